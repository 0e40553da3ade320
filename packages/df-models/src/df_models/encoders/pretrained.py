"""Checkpoints in the layout of transformers: found, checked key by key, frozen.

A checkpoint is a directory with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``, in one file or in
shards with an index. Nothing but tensors is unpickled: ``from_pretrained`` maps safetensors into memory, and opens
``.bin`` by ``torch.load(weights_only=True)`` (transformers, ``modeling_utils.load_state_dict``). It would give tensors
that a checkpoint lacks random values and only warn; here such a checkpoint is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from df_models.encoders.weights import Origin, find_file, hash_files, locate, require_files
from df_models.errors import UserError
from df_models.files import safe_join

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of weights in the order in which transformers prefers them."""
SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


class FrozenPretrained:
    """A frozen model of transformers, with what manifests record of it.

    Attributes:
        library: name and version of the library that computes it.
        module: the model, in evaluation mode and without gradients.
    """

    def __init__(self, module: nn.Module, origin: Origin, sha256: str) -> None:
        import transformers

        self.id, self.sha256, self.licence = origin.name, sha256, origin.licence
        self.library = f"transformers {transformers.__version__}"
        self.module: Any = module.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and the outputs will be."""
        return next(self.module.parameters()).device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the weights to a device or dtype; outputs stay float32. Returns itself."""
        nn.Module.to(self.module, device=device, dtype=dtype)
        return self

    def _cast(self, x: Tensor) -> Tensor:
        parameter = next(self.module.parameters())
        return x.to(device=parameter.device, dtype=parameter.dtype)


def hub_origin(name: str, hub_id: str, licence: str) -> Origin:
    """Return the origin of a model whose checkpoint is the root of a Hub repository."""
    return Origin(
        name=name,
        licence=licence,
        how_to_get=f"`hf download {hub_id} --local-dir PATH` fetches it",
        hub_id=hub_id,
        files=(CONFIG, PREPROCESSOR, *SAFETENSORS),
    )


def find_checkpoint(origin: Origin, location: str | None) -> Path:
    """Return the directory of a checkpoint; from the Hub, pickled tensors come only where there are no safetensors.

    Raises:
        UserError: transformers is not installed, or the directory is nowhere to be found.
    """
    if find_spec("transformers") is None:
        raise UserError(f"{origin.name} needs transformers; install df-models[encoders]")
    path = locate(origin, location)
    if path.is_file():
        raise UserError(f"{origin.name}: {path} is a file; name the directory that holds it with its {CONFIG}")
    if not any(path.rglob("model*.safetensors")):
        locate(replace(origin, files=(*origin.files, *PICKLED)), location)
    return path


def load_model(
    origin: Origin,
    directory: Path,
    model_class: Any,
    kinds: Sequence[str],
    *,
    unused: Sequence[str] = (),
    absent: Sequence[str] = (),
    dtype: torch.dtype | str = torch.float32,
) -> tuple[Any, str]:
    """Build a model from a directory's own configuration and weights.

    Args:
        origin: the model that the directory should hold.
        directory: see the module's docstring.
        model_class: class of transformers.
        kinds: the ``model_type`` that config.json may state.
        unused: patterns of the names of tensors that the checkpoint may have and the model has not.
        absent: patterns of the names of tensors that the checkpoint may lack, because nothing here reads them.
        dtype: of the weights in memory, or "auto" for the checkpoint's own.

    Returns:
        The model and the sha256 of its weights.

    Raises:
        UserError: a file is missing or damaged, or the checkpoint is of another model.
    """
    require_files(origin, directory, (CONFIG,))
    files = weight_files(origin, directory)
    kind = read_json(directory / CONFIG).get("model_type")
    if kind not in kinds:
        wanted = " or ".join(map(repr, kinds))
        raise UserError(f"{origin.name}: {directory / CONFIG} states the model {kind!r}, not {wanted}")
    try:
        with _errors_only():
            model, report = model_class.from_pretrained(
                str(directory),
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=dtype,
            )
    except Exception as error:  # whatever a damaged file makes another library trip over
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{origin.name}: the checkpoint in {directory} is damaged or does not fit its {CONFIG} "
            f"({type(error).__name__}: {reason}); {origin.how_to_get}"
        ) from error
    _refuse_foreign(origin, directory, report, unused, absent)
    return model, hash_files(files)


def weight_files(origin: Origin, directory: Path) -> list[Path]:
    """Return the file or the shards of a checkpoint's weights.

    Raises:
        UserError: there are none, or the index names a shard that is not there.
    """
    first = find_file(origin, directory, WEIGHTS)
    if first.suffix != ".json":
        return [first]
    shards = read_json(first).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{first} names no shards; {origin.how_to_get}")
    names = sorted({str(name) for name in shards.values()})
    paths = [safe_join(directory, name) for name in names]
    require_files(origin, directory, names)
    return paths


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise UserError that names the file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from error
    if not isinstance(document, dict):
        raise UserError(f"{path} holds no JSON object; fetch it again")
    return document


def read_setting(path: Path, name: str) -> Any:
    """Return one setting of a JSON file, or raise UserError that names it."""
    document = read_json(path)
    if name not in document:
        raise UserError(f"{path} does not state {name}; fetch the file that belongs to the checkpoint")
    return document[name]


def _refuse_foreign(
    origin: Origin, directory: Path, report: dict[str, Any], unused: Sequence[str], absent: Sequence[str]
) -> None:
    missing, unknown = _others(report["missing_keys"], absent), _others(report["unexpected_keys"], unused)
    shapes = sorted(report["mismatched_keys"], key=str)
    if missing:
        problem = f"{missing[0]} is missing"
    elif shapes:
        name, found, wanted = shapes[0][:3]
        problem = f"{name} is {list(found)}, not {list(wanted)}"
    elif unknown:
        problem = f"{unknown[0]} is unknown"
    else:
        return
    raise UserError(f"{directory} holds no checkpoint of {origin.name}: {problem}; {origin.how_to_get}")


def _others(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted(name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns))


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Keep transformers' bars and report of unused tensors off the terminal; :func:`_refuse_foreign` judges these."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
