"""Models on disk and on the Hub: ``config.json`` (configuration, hash of the weights) and ``model.safetensors``.

huggingface_hub's ``ModelHubMixin`` saves, pushes and writes the model card (``README.md``). Loading is ours from the
fetched files on: it checks the weights' hash and says in one line what is wrong.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from df_models.errors import UserError
from df_models.files import atomic_path, atomic_write, sha256_file
from df_models.initial_values import without_initial_values
from df_models.model.card import TEMPLATE, card_values
from df_models.model.config import DualForceConfig, StructureDiTConfig, VideoDiTConfig, config_from_dict

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = 1
P = ParamSpec("P")
R = TypeVar("R")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


def called_like(forward: Callable[P, R]) -> Callable[[Callable[..., Any]], Callable[P, R]]:
    """Give ``__call__`` the types of ``forward``: ``nn.Module`` itself declares it to take and return anything."""
    return lambda _call: forward


class Pretrained(nn.Module, ModelHubMixin, library_name="df-models", license="apache-2.0", tags=["talking-head"]):
    """A module with a frozen configuration that can be saved, loaded and shared; base of the models.

    Attributes:
        model_type: what ``config.json`` calls this kind of model.
        config_type: the class of its configuration, the constructor's only argument.
        config: the configuration.
    """

    model_type: ClassVar[str]
    config_type: ClassVar[type[DualForceConfig] | type[VideoDiTConfig] | type[StructureDiTConfig]]
    config: Any

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        path_or_hub_id: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load what :meth:`save_pretrained` wrote, from a directory or from the Hub (``owner/name``).

        Args:
            device, dtype: where the model goes; the dtype (or its name) is the checkpoint's by default.
            revision, token, cache_dir, local_files_only: for the Hub, as of ``huggingface_hub.snapshot_download``.

        Raises:
            UserError: files are missing, truncated, altered, or belong to another kind of model; no such dtype.
        """
        chosen = None if dtype is None else _floating(dtype)
        directory = find_model(
            path_or_hub_id, revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        header = read_header(directory / CONFIG_FILE, cls.model_type)
        config = config_from_dict(cls.config_type, header["config"])
        tensors = read_weights(directory / WEIGHTS_FILE, header.get("weights_sha256"))
        with without_initial_values():
            model = cls(config)  # type: ignore[call-arg]
        _check_tensors(directory / WEIGHTS_FILE, model.state_dict(), tensors)
        model.load_state_dict(tensors, strict=True, assign=True)
        model.requires_grad_(True)
        return model.to(device=device, dtype=chosen)

    @classmethod
    def check(cls, directory: str | os.PathLike[str]) -> None:
        """Check a saved model as :meth:`from_pretrained` does, without its weights in memory.

        Raises:
            UserError: files are missing, truncated, altered, or belong to another kind of model.
        """
        place = Path(directory)
        header = read_header(place / CONFIG_FILE, cls.model_type)
        config = config_from_dict(cls.config_type, header["config"])
        shapes = _checked_shapes(place / WEIGHTS_FILE, header.get("weights_sha256"))
        with torch.device("meta"):
            model = cls(config)  # type: ignore[call-arg]
        _check_tensors(place / WEIGHTS_FILE, model.state_dict(), shapes)

    def push_to_hub(self, repo_id: str, *, private: bool | None = True, **options: Any) -> str:
        """Save the model and upload it to the Hugging Face Hub; return the commit's address.

        Needs a login (``hf auth login``) or a ``token``; other options are those of ``ModelHubMixin.push_to_hub``. A
        new repository is private unless said otherwise.
        """
        card = {"name": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        return super().push_to_hub(repo_id, private=private, model_card_kwargs=card, **options)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the model card: what it is, how to load it, its configuration, size, statistics and licence."""
        return ModelCard.from_template(
            self._hub_mixin_info.model_card_data, template_str=TEMPLATE, **card_values(self, **kwargs)
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self, save_directory)


def _floating(dtype: torch.dtype | str) -> torch.dtype:
    """Return a floating-point type that is given as itself or by its name."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype={dtype!r} is no floating-point type; give one such as torch.bfloat16 or 'bfloat16'")
    return found


def save_model(model: Pretrained, path: str | os.PathLike[str]) -> None:
    """Write a model into a directory; the configuration comes last, so a broken write is not taken for a model."""
    directory = Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    (directory / CONFIG_FILE).unlink(missing_ok=True)
    with atomic_path(directory / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        digest = sha256_file(temporary)
    header = {
        "model_type": model.model_type,
        "format": FORMAT,
        "df_models": metadata.version("df-models"),
        "weights_sha256": digest,
        "config": asdict(model.config),
    }
    atomic_write(directory / CONFIG_FILE, json.dumps(header, indent=2) + "\n")


def find_model(path_or_hub_id: str | os.PathLike[str], revision: str | None = None, **hub: Any) -> Path:
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
        fetched = snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE], **hub)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} is no directory here, and the Hub did not give it: {reason}") from error
    return Path(fetched)


def read_header(path: Path, *model_types: str) -> dict[str, Any]:
    """Read and check the ``config.json`` of a kind of model, the whole one by default, or of one of several kinds."""
    wanted = model_types or ("dualforce",)
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {CONFIG_FILE}: it is no saved DualForce model")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}; fetch or save the model again") from error
    found = header.get("model_type") if isinstance(header, dict) else None
    if found not in wanted:
        named = " or ".join(map(repr, wanted))
        raise UserError(
            f"{path} describes a model of type {found!r}, not {named}; it may belong to another class or library"
        )
    if header.get("format") != FORMAT:
        raise UserError(f"{path} has format {header.get('format')!r}; this version of df-models reads format {FORMAT}")
    if not isinstance(header.get("config"), dict):
        raise UserError(f"{path} has no configuration; fetch or save the model again")
    return header


def read_weights(path: Path, sha256: str | None) -> dict[str, torch.Tensor]:
    """Read ``model.safetensors`` and check it against the recorded hash."""
    return _checked(path, sha256, load_file)


def _checked_shapes(path: Path, sha256: str | None) -> dict[str, torch.Tensor]:
    """The tensors of ``model.safetensors`` as shapes alone, the file checked as by :func:`read_weights`."""

    def shapes_of(path: Path) -> dict[str, torch.Tensor]:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}

    return _checked(path, sha256, shapes_of)


def _checked(
    path: Path, sha256: str | None, read: Callable[[Path], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {WEIGHTS_FILE}; fetch or save the model again")
    try:
        tensors = read(path)
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
