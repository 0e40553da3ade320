"""Low-rank adapters (LoRA): read, checked against the model they are for, and added to its weights.

An adapter is a directory in the format of Hugging Face's `peft`: ``adapter_config.json`` (rank, alpha, layers) and
``adapter_model.safetensors``. A layer of weight ``W [O, I]`` has there ``A [R, I]`` and ``B [O, R]``, and computes
with ``W + s B A``, where ``s`` is ``alpha / R``, or ``alpha / sqrt(R)`` if the file says ``use_rslora`` (Hu et al.
2021, "LoRA"; Kalajdzievski 2023). Added to the weights it costs nothing when generating, and nothing of peft is needed.

What peft has no place for stands in the safetensors file's metadata: the hash of the weights that the adapter was
trained on, and what the training data decided about the model beside its weights (:data:`CARRIED`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from df_models.errors import UserError
from df_models.model.config import DualForceConfig
from df_models.model.dualforce import DualForce
from df_models.model.pretrained import CONFIG_FILE, read_header

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
KEY_PREFIX = "base_model.model."
"""What peft's files put before the model's own names."""
METADATA_KEY = "dualforce"
"""Of the safetensors metadata: JSON of `base_weights_sha256` and `settings`. One key, since safetensors writes several
in any order, and a file's bytes should follow from what it holds."""
CARRIED = (
    *("video_size", "face_crop", "speech_level", "structure_layout", "encoder_hashes"),
    *("structure_given", "given_fields", "one_level_frames"),
)
"""Fields of a model's configuration that its data and its training decide and that no weight's shape depends on."""
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}
"""Settings of peft whose other values mean more than ``W + s B A``."""


class LowRank(NamedTuple):
    """One layer's matrices: A ``[R, I]`` and B ``[O, R]``."""

    a_RI: Tensor
    b_OR: Tensor

    def added_to(self, weight_OI: Tensor, scale: float) -> Tensor:
        """Return ``weight + scale * B A`` in the weight's dtype, worked out in float32.

        The product is made on the CPU wherever the weight is, so that an exported model and one that is given its
        adapter later are the same to the bit.
        """
        update = scale * (self.b_OR.float().cpu() @ self.a_RI.float().cpu())
        return (weight_OI.float() + update.to(weight_OI.device)).to(weight_OI.dtype)


@dataclass(frozen=True)
class Adapter:
    """A trained adapter.

    Attributes:
        layers: by the name of the linear layer.
        scale: of every layer's product.
        base_sha256: hash of the base model's ``model.safetensors``.
        settings: the fields :data:`CARRIED` of the model it was trained as, as JSON has them.
    """

    layers: Mapping[str, LowRank]
    scale: float
    base_sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def weights_hash(model: str | os.PathLike[str]) -> str:
    """Return the hash of a saved model's weights, as its ``config.json`` records it.

    Raises:
        UserError: the directory holds no saved model, or one without a hash.
    """
    path = Path(model) / CONFIG_FILE
    digest = read_header(path).get("weights_sha256")
    if not isinstance(digest, str):
        raise UserError(f"{path} records no hash of the weights; save the model again")
    return digest


def settings_of(config: DualForceConfig) -> dict[str, Any]:
    """Return the fields :data:`CARRIED` as JSON has them."""
    return {name: value for name, value in asdict(config).items() if name in CARRIED}


def is_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter."""
    return all((path / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))


def read_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Read an adapter's directory.

    Raises:
        UserError: files are missing or damaged, it is no plain LoRA, or it does not say which model it is for.
    """
    directory = Path(path)
    if not is_adapter(directory):
        raise UserError(f"{directory} is no adapter: it must hold {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}")
    scale = _scale(directory / ADAPTER_CONFIG)
    file = directory / ADAPTER_WEIGHTS
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file} is truncated or no safetensors file ({error}); fetch or save it again") from error
    return Adapter(_paired(file, tensors), scale, *_told(file, metadata))


def _scale(path: Path) -> float:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        kind, rank, alpha = told["peft_type"], int(told["r"]), float(told["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); fetch or save the adapter again") from error
    if kind != "LORA" or rank < 1 or not math.isfinite(alpha):
        raise UserError(f"{path} is of type {kind!r}, rank {rank}, alpha {alpha}; only LoRA can be added to a model")
    other = [name for name, plain in _PLAIN.items() if name in told and told[name] not in plain]
    if other:
        raise UserError(f"{path} has {other[0]}={told[other[0]]!r}, which cannot be added here; train it as plain LoRA")
    return alpha / (math.sqrt(rank) if told.get("use_rslora") else rank)


def _paired(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, dot, part = name.removeprefix(KEY_PREFIX).removesuffix(".weight").rpartition(".")
        if not dot or part not in ("lora_A", "lora_B") or tensor.ndim != 2:
            raise UserError(f"{file} holds {name}, which is no matrix of a LoRA; fetch or save the adapter again")
        parts.setdefault(layer, {})[part] = tensor
    for layer, pair in parts.items():
        if len(pair) < 2 or pair["lora_A"].shape[0] != pair["lora_B"].shape[1]:
            raise UserError(f"{file}: the two matrices of {layer} do not fit; fetch or save the adapter again")
    return {layer: LowRank(pair["lora_A"], pair["lora_B"]) for layer, pair in parts.items()}


def metadata_of(adapter: Adapter) -> dict[str, str]:
    """Return what goes into the safetensors file beside the matrices."""
    told = {"base_weights_sha256": adapter.base_sha256, "settings": dict(adapter.settings)}
    return {METADATA_KEY: json.dumps(told, sort_keys=True)}


def _told(file: Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Read what :func:`metadata_of` wrote: the base's hash and the settings."""
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{file} does not say which model it is for; its metadata needs {METADATA_KEY!r}, JSON of "
            f"base_weights_sha256 (weights_sha256 in that model's {CONFIG_FILE}) and settings"
        )
    try:
        told = json.loads(metadata[METADATA_KEY])
        digest, settings = str(told["base_weights_sha256"]), dict(told.get("settings", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: its metadata are damaged ({error!r}); fetch or save the adapter again") from error
    if not set(settings) <= set(CARRIED):
        raise UserError(f"{file}: its metadata set {sorted(set(settings) - set(CARRIED))[0]}, which no adapter may")
    return digest, settings


@torch.no_grad()
def add_adapter(model: DualForce, adapter: Adapter, base_sha256: str) -> DualForce:
    """Add an adapter to a model's weights, in place, and take over the settings that it carries.

    Args:
        base_sha256: hash of the model's own weights (:func:`weights_hash`).

    Raises:
        UserError: the adapter is for another model; nothing is changed then.
    """
    if adapter.base_sha256 != base_sha256:
        raise UserError(
            f"the adapter was trained on another model (weights {adapter.base_sha256[:12]}) than this one "
            f"({base_sha256[:12]}); give that one as --run"
        )
    layers = {name: _layer(model, name, pair) for name, pair in adapter.layers.items()}
    config = DualForceConfig.from_dict({**asdict(model.config), **adapter.settings})
    for name, layer in layers.items():
        layer.weight.copy_(adapter.layers[name].added_to(layer.weight, adapter.scale))
    model.config = config
    return model


def _layer(model: nn.Module, name: str, pair: LowRank) -> nn.Linear:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        layer = None
    shape = pair.b_OR.shape[0], pair.a_RI.shape[1]
    if not isinstance(layer, nn.Linear) or tuple(layer.weight.shape) != shape:
        raise UserError(f"the adapter changes {name}, a layer of {list(shape)}, which this model does not have")
    return layer
