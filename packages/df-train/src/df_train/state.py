"""What a training run is made of at one moment, and how that goes into a checkpoint and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from df_data.reading import ShardReader
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.model.presets import preset_config
from df_train import checkpoint
from df_train.config import TrainConfig
from df_train.contract import for_trained
from df_train.distributed import World
from df_train.ema import ParameterAverage
from df_train.meter import ClipLengths, LossMeter
from df_train.noising import Banks
from df_train.optimizer import optimizer_steps, optimizer_tensors, set_optimizer_steps
from df_train.skips import Skips

_ERRORS = "errors."
_KNOWN = "structure.known_embedding"


@dataclass
class TrainState:
    """Everything that a step changes, and therefore everything that a checkpoint holds."""

    model: DualForce
    optimizer: torch.optim.Optimizer
    average: ParameterAverage
    reader: ShardReader
    banks: Banks | None
    meter: LossMeter
    skips: Skips
    lengths: ClipLengths = field(default_factory=ClipLengths)
    step: int = 0
    seconds: float = 0.0


def build_model(
    config: TrainConfig, decided: Mapping[str, Any] | None = None, saved: Mapping[str, Any] | None = None
) -> DualForce:
    """The model at step 0, on the CPU in float32: `model.start_from`, or weights that depend on the seed alone.

    Args:
        decided: fields of its configuration that the dataset decides (`df_train.contract.taken_over`), which
            `model.overrides` still wins over. A model that was trained keeps its own (`df_train.contract.for_trained`).
        saved: the configuration of the model in the checkpoint that the run goes on from, whose weights will take the
            place of these: the model of `model.start_from` is then not needed, and may be gone.

    Raises:
        UserError: an unknown preset, an unknown field in `model.overrides`, values that do not fit together, or a
            saved model that is missing, damaged, or does not fit `model.overrides`.
    """
    overrides = config.model.overrides
    if config.model.start_from is not None and saved is not None:
        return DualForce(DualForceConfig.from_dict(saved))
    if config.model.start_from is not None:
        return _start_from(config.model.start_from, decided or {}, overrides)
    reads_text = preset_config(config.model.preset, **overrides).text_dim > 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return DualForce.from_preset(config.model.preset, **{**_read(decided or {}, reads_text), **overrides})


def _read(decided: Mapping[str, Any], reads_text: bool) -> dict[str, Any]:
    """What a dataset decides without its text, for a model that reads none."""
    return {name: value for name, value in decided.items() if reads_text or name not in ("text_dim", "text_encoder")}


def _start_from(path: str, decided: Mapping[str, Any], overrides: Mapping[str, Any]) -> DualForce:
    saved = DualForce.from_pretrained(path, dtype=torch.float32)
    decided = _read(decided, saved.config.text_dim > 0)
    taken = for_trained(saved.config, decided) if saved.has_structure_statistics else decided
    config = DualForceConfig.from_dict({**asdict(saved.config), **taken, **overrides})
    if config == saved.config:
        return saved
    with torch.device("meta"):
        model = DualForce(config)
    weights = saved.state_dict()
    if config.structure_known and not saved.config.structure_known:
        weights[_KNOWN] = torch.zeros(config.structure_width, config.structure_dim)  # as a new model has it: no change
    for name, tensor in model.state_dict().items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise UserError(
                f"model.overrides or the dataset change {name}, which the weights of model.start_from={path} do not "
                f"fit: {_changed(saved.config, config)}"
            )
    if len(weights) > len(model.state_dict()):
        raise UserError(f"model.overrides leave out parts that model.start_from={path} has weights for")
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(True)


def _changed(saved: DualForceConfig, config: DualForceConfig) -> str:
    """The settings of the model's sizes that differ, as a person writes them."""
    pairs = [(name, getattr(saved, name), value) for name, value in asdict(config).items()]
    changed = [f"{name} {old} -> {new}" for name, old, new in pairs if isinstance(new, int) and old != new]
    return ", ".join(changed)


def tensors_of(state: TrainState) -> dict[str, Any]:
    """The tensors that DCP saves and loads in place."""
    moments = optimizer_tensors(state.model, state.optimizer)
    return {
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": {**moments, "steps": optimizer_steps(state.model, state.optimizer)},
    }


def own_state(state: TrainState) -> checkpoint.RankState:
    """What this process alone knows: where its reader stands, the figures since the last log, the errors recorded.

    All of it copied, so that it stays what it is while training goes on.
    """
    tensors = {"meter": state.meter.sums_LK2}
    if state.banks is not None:
        tensors |= {f"{_ERRORS}{name}": value for name, value in state.banks.state_dict().items()}
    tensors = {name: value.to("cpu", copy=True) for name, value in tensors.items()}
    return checkpoint.RankState({"reader": state.reader.state_dict(), "lengths": asdict(state.lengths)}, tensors)


def restore(state: TrainState, info: checkpoint.CheckpointInfo, world: World) -> None:
    """Bring a freshly built state to where a checkpoint was taken.

    On the same number of processes the run continues bit by bit as if it had not stopped.

    Raises:
        UserError: the checkpoint's tensors are not this model's.
    """
    tensors = tensors_of(state)
    checkpoint.load_tensors(info, tensors)
    state.model.load_state_dict(tensors["model"])
    set_optimizer_steps(state.model, state.optimizer, tensors["optimizer"]["steps"])
    _restore_own(state, info, world)
    state.step = info.step
    state.seconds = float(info.values["seconds"])
    state.skips.load_state_dict(info.values.get("skips", {"total": 0, "row": 0, "last": 0}))


def _restore_own(state: TrainState, info: checkpoint.CheckpointInfo, world: World) -> None:
    """On another number of processes: the readers' common position, everyone's losses, some process's errors."""
    old = [checkpoint.load_rank(info, rank) for rank in range(info.world_size)]
    mine = old[world.rank % info.world_size]
    state.reader.load_state_dict(mine.values["reader"])
    state.lengths = ClipLengths(**mine.values.get("lengths", {}))
    for rank in range(world.rank, info.world_size, world.size):
        saved = old[rank].tensors["meter"]
        if saved.shape != state.meter.sums_LK2.shape:
            raise UserError(f"{info.path} was written with other losses switched on; set them back, or say --fresh")
        state.meter.sums_LK2 += saved.to(state.meter.sums_LK2.device)
    errors = {k.removeprefix(_ERRORS): v for k, v in mine.tensors.items() if k.startswith(_ERRORS)}
    if state.banks is not None and errors:
        state.banks.load_state_dict(errors)


def full_average(state: TrainState) -> dict[str, Tensor]:
    """The averaged weights and the buffers, gathered whole; every process must call it."""
    full = {**state.model.state_dict(), **state.average.state_dict()}
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in full.items()}


def averaged_model(state: TrainState) -> DualForce:
    """An unsharded copy of the model with the averaged weights, on the training device, ready to generate."""
    weights = full_average(state)
    with torch.random.fork_rng(devices=[]):
        copy = DualForce(state.model.config)
    copy.load_state_dict(weights)
    return copy.to(next(iter(weights.values())).device).eval()
