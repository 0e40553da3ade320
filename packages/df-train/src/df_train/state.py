"""What a training run is made of at one moment: model, average, optimizer, reader, step; and how it is built.

FSDP2 (`fully_shard`) shards the parameters on any number of processes, one included, on CPU and CUDA alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from df_data.reader import ShardReader
from df_models import DualForce
from df_models.errors import UserError
from df_train import checkpoint
from df_train.config import OptimConfig, TrainConfig
from df_train.distributed import World
from df_train.ema import ParameterAverage
from df_train.meter import LossMeter
from df_train.noising import Banks

_BLOCKS_FROM = 50_000_000
_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)


@dataclass
class TrainState:
    """Everything that a step changes, and therefore everything that a checkpoint holds."""

    model: DualForce
    optimizer: torch.optim.Optimizer
    average: ParameterAverage
    reader: ShardReader
    banks: Banks | None
    meter: LossMeter
    step: int = 0
    seconds: float = 0.0


def wants_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the forward and backward compute in bfloat16."""
    setting = config.precision.bf16
    return setting == "on" or (setting == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())


def build_model(config: TrainConfig) -> DualForce:
    """The model at step 0, on the CPU in float32; its initial weights depend on the seed alone.

    Raises:
        UserError: an unknown preset, an unknown field in `model.overrides`, or values that do not fit together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return DualForce.from_preset(config.model.preset, **config.model.overrides)


def shard(model: nn.Module, config: TrainConfig, world: World) -> None:
    """Shard the parameters in place: in one group for small models, one group per block for large ones."""
    size = sum(parameter.numel() for parameter in model.parameters())
    group = config.sharding.group
    if group == "auto":
        group = "block" if size >= _BLOCKS_FROM else "model"
    dtype = torch.bfloat16 if wants_bf16(config, world.device) else None
    # Inputs keep their dtype: rounding sigma to bfloat16 would merge neighbouring noise levels.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    if group == "block":
        for block in blocks_of(model):
            fully_shard(block, mesh=world.mesh, mp_policy=policy)
    fully_shard(model, mesh=world.mesh, mp_policy=policy)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers: the items of every outermost ModuleList."""
    found: list[nn.Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, while vectors (biases, norms, gates) do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True
    )


# ---------------------------------------------------------------------------------------------------------- checkpoints


def tensors_of(state: TrainState) -> dict[str, Any]:
    """The state dict that DCP saves and loads in place."""
    return {
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": get_optimizer_state_dict(state.model, state.optimizer, options=_OPTIONS),
    }


def own_state(state: TrainState) -> checkpoint.RankState:
    """What this process alone knows: where its reader stands, the losses since the last log, the errors recorded."""
    tensors = {"meter": state.meter.sums_LK2.cpu()}
    if state.banks is not None:
        tensors |= {f"errors.{name}": value for name, value in state.banks.state_dict().items()}
    return checkpoint.RankState({"reader": state.reader.state_dict()}, tensors)


def restore(state: TrainState, info: checkpoint.CheckpointInfo, world: World) -> None:
    """Bring a freshly built state to where a checkpoint was taken.

    On the same number of processes the run continues bit by bit as if it had not stopped.

    Raises:
        UserError: the checkpoint's tensors are not this model's.
    """
    tensors = tensors_of(state)
    try:
        checkpoint.load_tensors(info, tensors)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{info.path} does not fit the model of the config ({reason})") from error
    state.model.load_state_dict(tensors["model"])
    set_optimizer_state_dict(state.model, state.optimizer, tensors["optimizer"], options=_OPTIONS)
    _restore_own(state, info, world)
    state.step = info.step
    state.seconds = float(info.values["seconds"])


def _restore_own(state: TrainState, info: checkpoint.CheckpointInfo, world: World) -> None:
    """On another number of processes: the readers' common position, everyone's losses, some process's errors."""
    old = [checkpoint.load_rank(info, rank) for rank in range(info.world_size)]
    mine = old[world.rank % info.world_size]
    state.reader.load_state_dict(mine.values["reader"])
    for rank in range(world.rank, info.world_size, world.size):
        state.meter.sums_LK2 += old[rank].tensors["meter"].to(state.meter.sums_LK2.device)
    if state.banks is not None:
        prefix = "errors."
        tensors = {k.removeprefix(prefix): v for k, v in mine.tensors.items() if k.startswith(prefix)}
        state.banks.load_state_dict(tensors)


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


def set_gradient_sync(model: nn.Module, sync: bool) -> None:
    """Whether the next backward adds up gradients over processes (only the last pass of a step needs to)."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(sync)
