"""Fine-tuning by a low-rank adapter (LoRA) instead of all weights, through Hugging Face's `peft`.

peft puts the small matrices beside the layers and names its files; it is loaded for runs that train an adapter and for
no other. Reading an adapter and adding it to a model is :mod:`df_models.model.adapter`'s, which needs no peft.

The weights of `model.start_from` get no gradient, no average and no place in a checkpoint: who resumes reads them from
there again, and they are known by their hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from df_models import DualForce
from df_models.errors import UserError, nearest
from df_models.files import atomic_path, atomic_write
from df_models.flow.noise import keyed_generator
from df_models.model.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARRIED,
    KEY_PREFIX,
    Adapter,
    LowRank,
    metadata_of,
    settings_of,
    weights_hash,
)
from df_models.model.config import DualForceConfig, config_from_dict
from df_models.model.layers import Float32Sequential
from df_models.model.pretrained import CONFIG_FILE, WEIGHTS_FILE, find_model, read_header
from df_train.config import AdapterConfig, TrainConfig
from df_train.processes import peers

if TYPE_CHECKING:
    from peft import LoraConfig

_A, _B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."
"""How peft names the two matrices and the layer that they stand beside."""


@dataclass(frozen=True)
class AdapterInTraining:
    """What a run knows of the adapter that it trains.

    Attributes:
        lora: peft's own configuration.
        scale: of every layer's product.
        base_sha256: hash of the weights that it stands beside.
        model_settings: what the exported adapter carries (:data:`df_models.model.adapter.CARRIED`).
    """

    lora: LoraConfig
    scale: float
    base_sha256: str
    model_settings: Mapping[str, Any]

    def of(self, weights: Mapping[str, Tensor]) -> Adapter:
        """The adapter in a whole state dict of the model that is trained."""
        layers = {
            name.removesuffix(_A): LowRank(value, weights[name.removesuffix(_A) + _B])
            for name, value in weights.items()
            if name.endswith(_A)
        }
        return Adapter(layers, self.scale, self.base_sha256, self.model_settings)


def start_adapter(model: DualForce, config: TrainConfig) -> AdapterInTraining | None:
    """Freeze a model and put a fresh adapter into it, in place; its output does not change. None if none is wanted.

    The adapter's first weights follow from `seed` alone.

    Raises:
        UserError: the model was not trained, was changed by `model.overrides`, or has no layers of these names.
        ModuleNotFoundError: peft is not installed.
    """
    adapter = config.adapter
    if adapter.kind == "none":
        return None
    from peft import LoraConfig, inject_adapter_in_model

    assert config.model.start_from is not None, "TrainConfig sees to it"
    base = find_model(config.model.start_from)
    _check_base(model, base)
    lora = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=_targets(model, adapter),
        base_model_name_or_path=config.model.start_from,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        inject_adapter_in_model(lora, model)  # pyright: ignore[reportArgumentType]
    return AdapterInTraining(lora, adapter.alpha / adapter.rank, weights_hash(base), settings_of(model.config))


def _check_base(model: DualForce, base: Path) -> None:
    """Refuse a model that is not the saved one: whoever adds the adapter later has only that."""
    if model.structure_mean is not None and not model.has_structure_statistics:
        raise UserError(
            f"an adapter is for a trained model, and model.start_from={base} was not trained by df-train (it has no "
            "structure statistics); train all its weights first (adapter.kind=none)"
        )
    saved = asdict(config_from_dict(DualForceConfig, read_header(base / CONFIG_FILE)["config"]))
    changed = [name for name, value in asdict(model.config).items() if name not in CARRIED and saved[name] != value]
    there = load_file(base / WEIGHTS_FILE)
    changed += [name for name, value in model.state_dict().items() if not _same(value, there.get(name))]
    if changed:
        raise UserError(
            f"the config changes {changed[0]} of model.start_from={base}, which an adapter cannot; leave out what does "
            "(model.overrides, model.leave_out, the task), or train all weights (adapter.kind=none)"
        )


def _same(value: Tensor, saved: Tensor | None) -> bool:
    return saved is not None and torch.equal(value, saved.to(value.dtype))


def check_head(config: TrainConfig) -> None:
    """Refuse to learn from a FLAME head that was never trained beside an adapter, which leaves the head as it is.

    Raises:
        UserError: an adapter is to be trained, and FLAME has a weight.
    """
    if config.adapter.kind != "none" and config.objective.flame.weight > 0:
        raise UserError(
            f"the FLAME head of model.start_from={config.model.start_from} was never trained, and an adapter does not "
            "train it; set objective.flame.weight=0, or train all weights (adapter.kind=none)"
        )


def _targets(model: nn.Module, adapter: AdapterConfig) -> list[str]:
    """The endings of layers' names that the configuration gives, of those that the model has."""
    layers = {name: layer for name, layer in model.named_modules() if name}
    exact = {
        f"{name}.{inner}"
        for name, part in layers.items()
        if isinstance(part, Float32Sequential)
        for inner, _ in part.named_modules()
    }
    usual = AdapterConfig.model_fields["targets"].default
    found = {target: [name for name in layers if f".{name}".endswith(f".{target}")] for target in adapter.targets}
    for target, names in found.items():
        linear = sorted({name.rpartition(".")[2] for name, part in layers.items() if isinstance(part, nn.Linear)})
        if not names and target not in usual:
            raise UserError(f"adapter.targets: no layer's name ends in {target!r}{nearest(target, linear)}")
        for name in names:
            if name in exact or not isinstance(layers[name], nn.Linear):
                why = "keeps float32 for noise levels" if name in exact else "is no linear layer"
                raise UserError(f"adapter.targets: {target!r} means {name}, which {why}; give others")
    return [target for target, names in found.items() if names]


def merged(weights: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """A whole state dict of the model that is trained, as one of a plain model: the adapter added to its layers."""
    plain = {name.replace(_BASE, "."): value for name, value in weights.items() if not name.endswith((_A, _B))}
    for layer, pair in adapter.layers.items():
        plain[f"{layer}.weight"] = pair.added_to(plain[f"{layer}.weight"], adapter.scale)
    return plain


def write_adapter(directory: Path, training: AdapterInTraining, adapter: Adapter) -> None:
    """Write an adapter as peft does, and what :mod:`df_models.model.adapter` wants to know into the metadata."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for layer, pair in adapter.layers.items():
        for part, value in (("lora_A", pair.a_RI), ("lora_B", pair.b_OR)):
            tensors[f"{KEY_PREFIX}{layer}.{part}.weight"] = value.detach().cpu().contiguous()
    (directory / ADAPTER_CONFIG).unlink(missing_ok=True)
    with atomic_path(directory / ADAPTER_WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata=metadata_of(adapter))
    told = {name: sorted(value) if isinstance(value, set) else value for name, value in training.lora.to_dict().items()}
    atomic_write(directory / ADAPTER_CONFIG, json.dumps({**told, "inference_mode": True}, indent=2) + "\n")


def seed_dropout(config: TrainConfig, step: int) -> None:
    """Let a step's dropout follow from (seed, step, process): resuming repeats it, on as many processes."""
    if config.adapter.kind != "none" and config.adapter.dropout:
        torch.manual_seed(keyed_generator(config.seed, step, peers.own_rank(), "dropout").initial_seed())


def check_same_base(saved: str | None, adapter: AdapterInTraining | None) -> None:
    """Refuse to go on with an adapter beside other weights than it was begun with.

    Args:
        saved: the hash that the checkpoint records; None in one of a run that trains all weights.

    Raises:
        UserError: naming both.
    """
    now = None if adapter is None else adapter.base_sha256
    if saved != now:
        raise UserError(
            f"the checkpoint's adapter stands beside other weights (sha256 {(saved or 'none')[:12]}) than "
            f"model.start_from holds now ({(now or 'none')[:12]}); put that model back, or say --fresh"
        )
