"""The files of the readers: those given, the landmarker of the dataset, and what a protocol demands of them."""

from __future__ import annotations

from pathlib import Path

from df_data.format.manifest import read_manifest
from df_eval.config import ProtocolConfig, ReadersConfig
from df_eval.reading.readers import MEDIAPIPE
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.settings import Location, expand_path, read_tree


def reader_files(files: ReadersConfig, root: Path | None) -> ReadersConfig:
    """The files of the readers; without a landmarker the one that the dataset's own config names, if it is there."""
    file = None if root is None else root / "config.yaml"
    if files.landmarker is not None or file is None or not file.is_file():
        return files
    models = read_tree(file).get("models")
    named = models.get("face_landmarker") if isinstance(models, dict) else None
    path = expand_path(named) if isinstance(named, str) else None
    if path is None or not path.is_file():
        return files
    return files.model_copy(update={"landmarker": Location(path)})


def stored_landmarker(root: Path | None) -> str:
    """SHA-256 of the landmarker whose readings a dataset stores as its clips' truth; empty: none."""
    encoders = {} if root is None else read_manifest(root / "val").encoders
    found = encoders.get("face_landmarker") or encoders.get("structure")
    return found.sha256 if found is not None and found.id == MEDIAPIPE else ""


def reader_hashes(files: ReadersConfig) -> dict[str, str]:
    """SHA-256 of the files that are given and there, by the readers' names."""
    found: dict[str, str] = {}
    for name in ReadersConfig.model_fields:
        given = getattr(files, name)
        if given is None:
            continue
        rest = split_spec(given)[1]
        path = given.path if rest is None else expand_path(rest)
        if path.is_file():
            found[name] = sha256_file(path)
    return found


def check_readers(protocol: ProtocolConfig | None, files: ReadersConfig) -> None:
    """Refuse a reader's file that is not the protocol's; one that is not given leaves its metrics unavailable.

    Raises:
        UserError: naming it.
    """
    if protocol is None or not protocol.readers:
        return
    for name, found in reader_hashes(files).items():
        wanted = protocol.readers.get(name, found)
        if found != wanted:
            raise UserError(
                f"the protocol {protocol.name} reads with a file of hash {wanted[:12]} as readers.{name}, and "
                f"{getattr(files, name)} has {found[:12]}: the numbers would not compare; give that file, or measure "
                "without the protocol"
            )
