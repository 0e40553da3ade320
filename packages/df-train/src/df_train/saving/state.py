"""What a training run is made of at one moment, and how that goes into a checkpoint and comes back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from df_data.reading import ShardReader
from df_models import DualForce
from df_models.errors import UserError
from df_models.model.adapter import Adapter
from df_train.adapter import AdapterInTraining, merged
from df_train.ema import ParameterAverage
from df_train.figures.meter import ClipLengths, LossMeter
from df_train.noising import Banks
from df_train.optimizer import optimizer_steps, optimizer_tensors, set_optimizer_steps, trained
from df_train.processes.distributed import World
from df_train.saving import checkpoint
from df_train.skips import Skips

Averaged = tuple[DualForce, Adapter | None]
_ERRORS = "errors."


@dataclass
class TrainState:
    """Everything that a step changes, and therefore everything that a checkpoint holds.

    Attributes:
        adapter: what is trained instead of the model's own weights; None if those are.
    """

    model: DualForce
    optimizer: torch.optim.Optimizer
    average: ParameterAverage
    reader: ShardReader
    banks: Banks | None
    meter: LossMeter
    skips: Skips
    adapter: AdapterInTraining | None = None
    lengths: ClipLengths = field(default_factory=ClipLengths)
    step: int = 0
    seconds: float = 0.0


def tensors_of(state: TrainState) -> dict[str, Any]:
    """The tensors that DCP saves and loads in place: what is trained, and the buffers."""
    moments = optimizer_tensors(state.model, state.optimizer)
    frozen = dict(state.model.named_parameters()).keys() - trained(state.model).keys()
    return {
        "model": {name: value for name, value in state.model.state_dict().items() if name not in frozen},
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
    state.model.load_state_dict(tensors["model"], strict=False)  # DCP has looked; frozen weights are not in it
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


def averaged(state: TrainState, world: World) -> Averaged | None:
    """The averaged model on the host, its adapter added to its weights if one is trained, and that adapter.

    Every process must call it; the first alone gets it, the others None. Parameters are gathered one at a time.
    """
    weights = _whole_average(state, world)
    if not world.is_main:
        return None
    adapter = None if state.adapter is None else state.adapter.of(weights)
    if adapter is not None:
        weights = merged(weights, adapter)
    with torch.random.fork_rng(devices=[]):
        copy = DualForce(state.model.config)
    copy.load_state_dict(weights)
    return copy.eval(), adapter


def _whole_average(state: TrainState, world: World) -> dict[str, Tensor]:
    """The averaged weights and the buffers, in the first process."""
    whole: dict[str, Tensor] = {}
    for name, value in {**state.model.state_dict(), **state.average.state_dict()}.items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if world.is_main:
            whole[name] = full.cpu()
    return whole
