"""Where a frozen model's files lie, how they are read, and what they hash to.

A frozen model is named in a config by ``NAME`` or ``NAME:LOCATION``. ``LOCATION`` is a file, a directory or a Hub id.
Without one, the folder (or file) ``NAME`` in the directory ``$DF_WEIGHTS`` is taken if it is there, else the model's
own Hub id. Nothing is unpickled but tensors, and a missing file is told by its name, with how to get it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.paths import expand_path

WEIGHTS_VARIABLE = "DF_WEIGHTS"
TENSOR_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".model", ".pkl")


@dataclass(frozen=True)
class Origin:
    """Where one frozen model is published.

    Attributes:
        name: what configs and manifests call it.
        licence: SPDX name of the weights' licence, or what its owners say.
        hub_id: repository on the Hugging Face Hub, or None where the user must bring the file.
        files: patterns of the files fetched from the Hub.
        subfolder: where in the repository they lie.
        how_to_get: a sentence for a person who has not got them.
    """

    name: str
    licence: str
    how_to_get: str
    hub_id: str | None = None
    files: tuple[str, ...] = ()
    subfolder: str = ""


def split_spec(spec: str) -> tuple[str, str | None]:
    """Return name and location of ``NAME`` or ``NAME:LOCATION``."""
    name, colon, location = spec.partition(":")
    return name, location if colon else None


def refuse_location(name: str, location: str | None) -> None:
    """Raise UserError if a location was given to a model without weights."""
    if location is not None:
        raise UserError(f"{name} has no weights to look for in {location!r}; name it {name} alone")


def locate(origin: Origin, location: str | None = None) -> Path:
    """Return the file or directory of a model's weights, downloaded if need be.

    Raises:
        UserError: it is nowhere to be found; the message says how to get it.
    """
    if location is not None:
        path = expand_path(location)
        if path.exists():
            return path
        if location.count("/") != 1 or path.is_absolute():
            raise UserError(f"{origin.name}: there is no {path}; {origin.how_to_get}")
        return _download(origin, location)
    folder = os.environ.get(WEIGHTS_VARIABLE)
    if folder:
        for candidate in (Path(folder) / origin.name, *Path(folder).glob(f"{origin.name}.*")):
            if candidate.exists():
                return candidate
    if origin.hub_id is None:
        where = f"name it as {origin.name}:PATH, or put it as {origin.name} into the folder ${WEIGHTS_VARIABLE}"
        raise UserError(f"{origin.name}: no weights were given; {where}; {origin.how_to_get}")
    return _download(origin, origin.hub_id)


def _download(origin: Origin, hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    prefix = f"{origin.subfolder}/" if origin.subfolder else ""
    patterns = [f"{prefix}{pattern}" for pattern in origin.files]
    try:
        root = Path(snapshot_download(hub_id, allow_patterns=[*patterns, *origin.files]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{origin.name}: {hub_id} cannot be fetched from the Hub ({type(error).__name__}); fetch it elsewhere and "
            f"name it as {origin.name}:PATH; {origin.how_to_get}"
        ) from error
    inside = root / origin.subfolder if origin.subfolder else root
    return inside if inside.is_dir() else root


def require_files(origin: Origin, directory: Path, names: Sequence[str]) -> None:
    """Raise UserError unless every named file is in the directory."""
    for name in names:
        if not (directory / name).is_file():
            raise UserError(f"{origin.name}: {directory} lacks {name}; {origin.how_to_get}")


def find_file(origin: Origin, path: Path, names: Sequence[str]) -> Path:
    """Return ``path`` if it is a file, else the first of ``names`` that is in the directory ``path``."""
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{origin.name}: {path} holds none of {', '.join(names)}; {origin.how_to_get}")


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file, or a PyTorch checkpoint of tensors and plain containers (never other pickles).

    Raises:
        UserError: the file is damaged, of an unknown kind, or holds pickled objects.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix not in TENSOR_SUFFIXES:
        raise UserError(f"{path} is no file of weights; known are {', '.join(TENSOR_SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, EOFError, OSError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is truncated or damaged ({_first_line(error)}); fetch it again") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or holds pickled objects beside tensors, which are never loaded; save its tensors "
            f"alone with safetensors.torch.save_file and give that file"
        ) from error
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path} holds a {type(loaded).__name__}, not named tensors")
    return dict(loaded)


def load_strict(module: nn.Module, tensors: Mapping[str, Any], origin: Origin, path: Path) -> None:
    """Load tensors whose names and shapes must be exactly the module's.

    Raises:
        UserError: naming the first tensor that is missing, unknown or of another shape.
    """
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    problem = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown" if unknown else ""
    for name in wanted.keys() & tensors.keys():
        found = tensors[name]
        if not isinstance(found, Tensor) or found.shape != wanted[name].shape:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            problem = problem or f"{name} is {shape}, not {list(wanted[name].shape)}"
    if problem:
        raise UserError(f"{path} is not {origin.name}'s checkpoint: {problem}; {origin.how_to_get}")
    module.load_state_dict(dict(tensors), strict=True)


def hash_files(paths: Sequence[Path]) -> str:
    """Return the sha256 of one file, or of the list of names and hashes of several."""
    if len(paths) == 1:
        return sha256_file(paths[0])
    lines = sorted(f"{path.name} {sha256_file(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
