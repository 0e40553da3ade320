"""The model at step 0: new, or begun with the weights of a saved one (`model.start_from`), part by part.

A part is taken whole or starts afresh, as a new model of the run's seed has it. So a model of both streams begins with
a video tower that was trained alone, and one that hears with one that did not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from df_infer.run_dir import MODEL, RunDir
from df_models import DualForce, DualForceConfig, VideoDiT
from df_models.errors import UserError, nearest
from df_models.model.presets import preset_config
from df_models.model.pretrained import CONFIG_FILE, find_model, read_header
from df_train.config import ModelConfig, TrainConfig
from df_train.data.contract import TOLD, kept_of
from df_train.tasks import TASKS

_PARTS = (
    ("text", r"(video|structure)\.(text_embedding\..*|blocks\.\d+\.cross_attn\.(k|v|norm_k)\..*)"),
    ("reference", r"video\.blocks\.\d+\.cross_attn\.(k_img|v_img|norm_k_img)\..*"),
    ("resampler", r"reference\..*"),
    ("context", r"(video|structure)\.blocks\.\d+\.(cross_attn|norm3)\..*"),
    ("known", r"structure\.known_embedding"),
    ("video", r"video\..*"),
    ("structure", r"structure\..*|structure_mean|structure_std"),
    ("bridge", r"fusion\.\d+\.(gate_)?to_.*"),
    ("audio", r"audio\..*|fusion\.\d+\.(gate_)?audio_to_.*"),
    ("flame", r"flame\..*"),
)
PARTS = tuple(part for part, _ in _PARTS)
"""Of a model, as `model.leave_out` names them; `context` is what text and reference tokens share of cross-attention,
`resampler` what makes the reference tokens, `known` the input that tells which entries of the structure are given."""


def part_of(name: str) -> str:
    """The part that a tensor of a model's state dict belongs to."""
    return next(part for part, pattern in _PARTS if re.fullmatch(pattern, name))


def build_model(
    config: TrainConfig,
    decided: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
    saved: Mapping[str, Any] | None = None,
) -> DualForce:
    """The model at step 0, on the CPU in float32: `model.start_from`, or weights that depend on the seed alone.

    Args:
        decided: fields of its configuration that the run decides (`df_train.data.contract.decided_by`), which
            `model.overrides` still wins over. What is taken of a trained model keeps its own (`kept_of`).
        say: told which parts start afresh.
        saved: the configuration of the model in the checkpoint that the run goes on from, whose weights will take the
            place of these: the model of `model.start_from` is then not needed, and may be gone. Beside an adapter it
            is needed: the checkpoint has the adapter alone.

    Raises:
        UserError: an unknown preset, an unknown field in `model.overrides`, values that do not fit together, a model
            that is not of the task, or a saved model that is missing, damaged, or does not fit.
    """
    section, decided = config.model, decided or {}
    if section.start_from is None:
        if section.leave_out or section.architecture != "start":
            raise UserError("model.architecture and model.leave_out are about model.start_from, which is not given")
        return _new(_configured(config, preset_config(section.preset), decided), config.seed)
    if saved is not None and config.adapter.kind == "none":
        told = {name: decided[name] for name in TOLD if name in decided}
        return DualForce(replace(DualForceConfig.from_dict(saved), **told))
    before, weights = _read_start(section)
    base = before if before is not None and section.architecture == "start" else preset_config(section.preset)
    if before is not None:
        decided = kept_of(before, {part_of(name) for name in weights}, _trained(before, weights), decided)
    model = _new(_configured(config, base, decided), config.seed)
    fresh = _take(model, weights, section, before)
    if fresh:
        parts = ", ".join(f"'{part}'" for part in fresh)
        say(f"model.start_from={section.start_from} has no {parts}: these parts start afresh")
    return model


def _new(config: DualForceConfig, seed: int) -> DualForce:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DualForce(config)


def _configured(config: TrainConfig, base: DualForceConfig, decided: Mapping[str, Any]) -> DualForceConfig:
    """The configuration: the base, what the dataset decides of what the model reads, the task, the overrides."""
    task, overrides = TASKS[config.task], config.model.overrides
    reads_text = DualForceConfig.from_dict({**asdict(base), **task.model, **overrides}).text_dim > 0
    read = {name: value for name, value in decided.items() if reads_text or name not in ("text_dim", "text_encoder")}
    found = DualForceConfig.from_dict({**asdict(base), **read, **task.model, **overrides})
    if found.streams not in task.streams:
        raise UserError(
            f"task={config.task} trains a model of streams={' or '.join(task.streams)}, not {found.streams}; leave "
            "streams out of model.overrides, or take another task"
        )
    return found


def _read_start(section: ModelConfig) -> tuple[DualForceConfig | None, dict[str, Tensor]]:
    """The saved model's configuration (None: it is a video tower alone) and the weights that are taken of it."""
    path = section.start_from
    assert path is not None
    refuse_untrained(path)
    header = read_header(find_model(path) / CONFIG_FILE, DualForce.model_type, VideoDiT.model_type)
    if header["model_type"] == VideoDiT.model_type:
        if section.architecture == "start":
            raise UserError(
                f"model.start_from={path} holds a video tower alone, which does not say what the model is; set "
                "model.architecture=preset, and the preset"
            )
        tower = VideoDiT.from_pretrained(path, dtype=torch.float32)
        saved, weights = None, {f"video.{name}": tensor for name, tensor in tower.state_dict().items()}
    else:
        model = DualForce.from_pretrained(path, dtype=torch.float32)
        saved, weights = model.config, model.state_dict()
    parts = {part_of(name) for name in weights}
    for part in section.leave_out:
        if part not in parts:
            raise UserError(
                f"model.leave_out: model.start_from={path} has no part {part!r}{nearest(part, sorted(parts))}"
            )
    return saved, {name: tensor for name, tensor in weights.items() if part_of(name) not in section.leave_out}


def refuse_untrained(path: str) -> None:
    """Refuse the place of a run's model that is not trained yet, in words that say what to do first.

    Raises:
        UserError: a run is to be trained or to be finished.
    """
    place = Path(path)
    if place.name != MODEL or place.exists():
        return
    if RunDir(place.parent).ours:
        raise UserError(
            f"model.start_from={path}: the run {place.parent} is not finished; let df-train finish it first"
        )
    if place.parent.parent.name == "runs":  # where runs lie by default: their directory says their name
        raise UserError(
            f"model.start_from={path}: there is no run {place.parent}; train the configuration of that name "
            f"({place.parent.name}) first, or name a model that is there"
        )


def _trained(saved: DualForceConfig, weights: Mapping[str, Tensor]) -> bool:
    """Whether a saved model was trained: it knows its encoders' hashes, or has statistics of its structure."""
    mean, std = weights.get("structure_mean"), weights.get("structure_std")
    return (
        bool(saved.encoder_hashes)
        or (mean is not None and bool(mean.any()))
        or (std is not None and not bool((std == 1).all()))
    )


def _take(
    model: DualForce, weights: Mapping[str, Tensor], section: ModelConfig, saved: DualForceConfig | None
) -> list[str]:
    """Put the start's weights into the model; return the parts that are afresh."""
    path, wanted = section.start_from, model.state_dict()
    have, need = {part_of(name) for name in weights}, {part_of(name) for name in wanted}
    foreign = sorted(have - need)
    if foreign:
        raise UserError(
            f"model.start_from={path} has weights for {', '.join(foreign)}, which the new model lacks; leave them out "
            f"with model.leave_out=[{','.join(foreign)}]"
        )
    misfits = [name for name in sorted(wanted.keys() | weights.keys()) if part_of(name) in have]
    misfits = [name for name in misfits if not _alike(wanted.get(name), weights.get(name))]
    if misfits:
        parts = list(dict.fromkeys([*section.leave_out, *map(part_of, misfits)]))
        raise UserError(
            f"model.overrides, the preset or the dataset change {misfits[0]}, which the weights of "
            f"model.start_from={path} do not fit{_changed(saved, model.config)}; set them back, or let what does not "
            f"fit start afresh with model.leave_out=[{','.join(parts)}]"
        )
    model.load_state_dict(dict(weights), strict=False, assign=True)
    model.requires_grad_(True)
    return [part for part in PARTS if part in need - have]


def _alike(wanted: Tensor | None, there: Tensor | None) -> bool:
    return wanted is not None and there is not None and wanted.shape == there.shape


def _changed(saved: DualForceConfig | None, config: DualForceConfig) -> str:
    """The settings of the model's sizes that differ, as a person writes them."""
    if saved is None:
        return ""
    pairs = [(name, getattr(saved, name), value) for name, value in asdict(config).items()]
    changed = [f"{name} {old} -> {new}" for name, old, new in pairs if isinstance(new, int) and old != new]
    return f": {', '.join(changed)}" if changed else ""


def is_new_head(model: DualForce) -> bool:
    """Whether a model has a FLAME head that knows no scale yet: its bias is as it was made."""
    if model.flame is None:
        return False
    last = model.flame[-1]
    assert isinstance(last, torch.nn.Linear) and last.bias is not None
    return not bool(last.bias.any())
