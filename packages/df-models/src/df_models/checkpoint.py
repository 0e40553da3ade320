"""Models on disk: ``config.json`` (configuration and the hash of the weights) and ``model.safetensors``."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from df_models.config import DualForceConfig
from df_models.errors import UserError
from df_models.files import atomic_path, atomic_write, sha256_file

if TYPE_CHECKING:
    from df_models.dualforce import DualForce

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "dualforce"
FORMAT = 1
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def save_model(model: DualForce, path: str | os.PathLike[str]) -> None:
    """Write a model into a directory; the configuration comes last, so a broken write is not taken for a model."""
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    (directory / CONFIG_FILE).unlink(missing_ok=True)
    with atomic_path(directory / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        digest = sha256_file(temporary)
    header = {
        "model_type": MODEL_TYPE,
        "format": FORMAT,
        "df_models": metadata.version("df-models"),
        "weights_sha256": digest,
        "config": asdict(model.config),
    }
    atomic_write(directory / CONFIG_FILE, json.dumps(header, indent=2) + "\n")


def load_model(
    cls: type[DualForce],
    path_or_hub_id: str | os.PathLike[str],
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
    revision: str | None,
) -> DualForce:
    """Load a model from a directory or the Hub; see :meth:`df_models.DualForce.from_pretrained`."""
    directory = find_model(path_or_hub_id, revision)
    header = read_header(directory / CONFIG_FILE)
    config = DualForceConfig.from_dict(header["config"])
    tensors = read_weights(directory / WEIGHTS_FILE, header.get("weights_sha256"))
    with torch.device("meta"):
        model = cls(config)
    _check_tensors(directory / WEIGHTS_FILE, model.state_dict(), tensors)
    model.load_state_dict(tensors, strict=True, assign=True)
    model.requires_grad_(True)
    return model.to(device=device, dtype=dtype)


def push_model(model: DualForce, repo_id: str, *, private: bool) -> str:
    """Upload a model to the Hub; see :meth:`df_models.DualForce.push_to_hub`."""
    from huggingface_hub import HfApi

    hub = HfApi()
    address = hub.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        save_model(model, directory)
        hub.upload_folder(repo_id=repo_id, folder_path=directory)
    return str(address)


def find_model(path_or_hub_id: str | os.PathLike[str], revision: str | None) -> Path:
    """Return the directory of a model, fetching it from the Hub if the name is ``owner/name`` and no directory."""
    directory = Path(path_or_hub_id)
    if directory.is_dir():
        return directory
    if directory.exists():
        raise UserError(f"{directory} is a file; give the directory that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    name = os.fspath(path_or_hub_id)
    if not _HUB_ID.match(name):
        raise UserError(f"there is no model directory {name}, and it is no Hub id (owner/name) either")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        fetched = snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} is no directory here, and the Hub did not give it: {reason}") from error
    return Path(fetched)


def read_header(path: Path) -> dict[str, Any]:
    """Read and check ``config.json``."""
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {CONFIG_FILE}: it is no saved DualForce model")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}; fetch or save the model again") from error
    if not isinstance(header, dict) or header.get("model_type") != MODEL_TYPE:
        raise UserError(f"{path} does not describe a DualForce model; it may belong to another library")
    if header.get("format") != FORMAT:
        raise UserError(f"{path} has format {header.get('format')!r}; this version of df-models reads format {FORMAT}")
    if not isinstance(header.get("config"), dict):
        raise UserError(f"{path} has no configuration; fetch or save the model again")
    return header


def read_weights(path: Path, sha256: str | None) -> dict[str, torch.Tensor]:
    """Read ``model.safetensors`` and check it against the recorded hash."""
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {WEIGHTS_FILE}; fetch or save the model again")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error}); fetch or save it again") from error
    if sha256 is None:
        raise UserError(f"{path.parent / CONFIG_FILE} records no hash of the weights; save the model again")
    if sha256_file(path) != sha256:
        raise UserError(f"{path} is not the file that {CONFIG_FILE} was saved with (sha256 differs); fetch it again")
    return tensors


def _check_tensors(path: Path, wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    missing, foreign = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or foreign:
        example = f"{missing[0]} is missing" if missing else f"{foreign[0]} is unknown"
        raise UserError(
            f"{path} does not fit its {CONFIG_FILE}: {len(missing)} tensors missing, {len(foreign)} unknown ({example})"
        )
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise UserError(
                f"{path} does not fit its {CONFIG_FILE}: {name} is {list(found[name].shape)}, not {list(tensor.shape)}"
            )
