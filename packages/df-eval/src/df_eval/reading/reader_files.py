"""The files of the readers: those given, the landmarker of the dataset, and what a protocol demands of them."""

from __future__ import annotations

from pathlib import Path

from df_data.format.manifest import SYNTHETIC, read_manifest
from df_eval.config import ProtocolConfig, ReadersConfig
from df_eval.reading.readers import MEDIAPIPE, OF_ANY_PIXELS
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.settings import Location, expand_path, read_tree


def reader_files(files: ReadersConfig, root: Path | None) -> ReadersConfig:
    """The files of the readers; without a landmarker the one that the dataset's own config names, if it is there."""
    path = None if files.landmarker is not None else _landmarker_of(root)
    if path is None or not path.is_file():
        return files
    return files.model_copy(update={"landmarker": Location(path)})


def absent_landmarker(root: Path | None) -> str:
    """That the landmarker which the dataset's config names is not where it says; empty: it is, or none is named."""
    path = _landmarker_of(root)
    if path is None or path.is_file():
        return ""
    return f"the dataset's landmarker {path} is not there; give readers.landmarker=PATH"


def _landmarker_of(root: Path | None) -> Path | None:
    """Where the config of a dataset says that its landmarker lies."""
    file = None if root is None else root / "config.yaml"
    if file is None or not file.is_file():
        return None
    models = read_tree(file).get("models")
    named = models.get("face_landmarker") if isinstance(models, dict) else None
    return expand_path(named) if isinstance(named, str) else None


def unused_readers(files: ReadersConfig, encoder: str) -> list[str]:
    """A line on the files that are given and not used, as faces of the synthetic corpus have an exact reader.

    Raises:
        UserError: one of them is not there.
    """
    if encoder != SYNTHETIC:
        return []
    unused = [name for name in ReadersConfig.model_fields if name not in OF_ANY_PIXELS and getattr(files, name)]
    for name in unused:
        given = getattr(files, name)
        if not expand_path(split_spec(given)[1] or given).exists():
            raise UserError(f"readers.{name}={given}: there is nothing; leave it out, or give the path of its file")
    if not unused:
        return []
    told = ", ".join(f"readers.{name}" for name in unused)
    return [f"{told}: not used, the rendered faces of this dataset are read by their own exact reader"]


def stored_landmarker(root: Path | None) -> str:
    """SHA-256 of the landmarker whose readings a dataset stores as its clips' truth; empty: none."""
    encoders = {} if root is None else read_manifest(root / "val").encoders
    found = encoders.get("face_landmarker") or encoders.get("structure")
    return found.sha256 if found is not None and found.id == MEDIAPIPE else ""


def reader_hashes(files: ReadersConfig) -> dict[str, str]:
    """SHA-256 of the files that are given and there, by the readers' names; behind the kind that is named with one:
    ``mobilefacenet:b712...``."""
    found: dict[str, str] = {}
    for name in ReadersConfig.model_fields:
        given = getattr(files, name)
        if given is None:
            continue
        kind, rest = split_spec(given)
        path = given.path if rest is None else expand_path(rest)
        if path.is_file():
            found[name] = sha256_file(path) if rest is None else f"{kind}:{sha256_file(path)}"
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
        held = found if ":" in wanted else found.rpartition(":")[2]
        if held != wanted:
            raise UserError(
                f"the protocol {protocol.name} reads with a file of hash {_short(wanted)} as readers.{name}, and "
                f"{getattr(files, name)} has {_short(held)}: the numbers would not compare; give that file, or measure "
                "without the protocol"
            )


def _short(digest: str) -> str:
    kind, colon, rest = digest.rpartition(":")
    return f"{kind}{colon}{rest[:12]}"
