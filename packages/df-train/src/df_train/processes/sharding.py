"""FSDP2 (`fully_shard`): the one way parameters are sharded, on one process or many, CPU or CUDA."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from df_models import DualForce
from df_models.machine import choose_precision
from df_models.model.memory import BLOCKS_FROM
from df_train.config import PrecisionConfig, ShardingConfig, TrainConfig
from df_train.float8 import to_float8
from df_train.processes.distributed import World


def spread(model: DualForce, config: TrainConfig, world: World, say: Callable[[str], None]) -> None:
    """Make a model, on its device, compute its layers as the configuration says, and shard it in place.

    From the inside out: linear layers in float8, a layer's `forward` compiled, its parameters sharded, and outermost
    its activations recomputed. FSDP2's hooks are thus in no compiled graph, and they know a recomputation (it runs
    inside of the backward pass, when the parameters are there) and gather nothing a second time.
    """
    sharding = config.sharding
    if config.precision.float8:
        say(to_float8(blocks_of(model)))
    if sharding.compile == "layers":
        say("compiling the layers: the first step takes minutes, and the bar stands meanwhile")
        model.compile_layers()
    model.gradient_checkpointing = sharding.recomputed
    shard(model, sharding, config.precision, world, passes=config.data.accumulate)


def shard(
    model: nn.Module, sharding: ShardingConfig, precision: PrecisionConfig, world: World, *, passes: int = 1
) -> None:
    """Shard the parameters in place: in one group for small models, one group per block for large ones.

    Gradients are summed in float32, over processes and over the `passes` of a step.
    """
    blocks = blocks_of(model) if _by_blocks(model, sharding) else []
    common: dict[str, Any] = {
        "mesh": world.mesh,
        "mp_policy": _mixed_precision(precision, world, passes),
        "offload_policy": _offload(sharding, world),
    }
    for block in blocks:
        fully_shard(block, reshard_after_forward=sharding.reshard_after_forward, **common)
    # the backward pass begins with what is in no block, and losses read heads of it after the forward pass
    fully_shard(model, reshard_after_forward=False, **common)
    if sharding.prefetch:
        _prefetch(model, blocks, sharding.prefetch)
    # The velocities are views of the towers' outputs, and nothing writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def _by_blocks(model: nn.Module, sharding: ShardingConfig) -> bool:
    if sharding.group == "auto":
        return sharding.prefetch > 0 or sum(parameter.numel() for parameter in model.parameters()) >= BLOCKS_FROM
    return sharding.group == "block"


def _mixed_precision(precision: PrecisionConfig, world: World, passes: int) -> MixedPrecisionPolicy:
    dtype = choose_precision(precision.name, world.device).dtype
    lower = None if dtype == torch.float32 else dtype
    # Inputs keep their dtype: rounding sigma to bfloat16 would merge neighbouring noise levels.
    # Where nothing is summed, converting before the (empty) reduction instead of after it costs 5 % of a step.
    summed = world.size > 1 or passes > 1
    return MixedPrecisionPolicy(
        param_dtype=lower, reduce_dtype=torch.float32 if summed else None, cast_forward_inputs=False
    )


def _offload(sharding: ShardingConfig, world: World) -> OffloadPolicy:
    """Pinned memory is for copies to a GPU; without one there is none."""
    return CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if sharding.offload else OffloadPolicy()


def _prefetch(model: nn.Module, blocks: list[nn.Module], count: int) -> None:
    """Have each block gather the next ones ahead: after it in the forward pass, before it in the backward pass."""
    groups = cast("list[FSDPModule]", blocks)
    for place, block in enumerate(groups):
        block.set_modules_to_forward_prefetch(groups[place + 1 : place + 1 + count])
        block.set_modules_to_backward_prefetch(groups[max(place - count, 0) : place][::-1])
    root = cast("FSDPModule", model)
    root.set_modules_to_forward_prefetch(groups[:count])
    root.set_modules_to_backward_prefetch(groups[-count:][::-1])


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers in the order in which a pass runs them: as the model says, or else the items of every
    outermost ModuleList."""
    if isinstance(model, DualForce):
        return list(model.layers())
    found: list[nn.Module] = []
    for child in model.children():
        found += list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
    return found


def reshard(model: nn.Module) -> None:
    """Let go of gathered parameters: after a pass without a backward they stay, and would hide a change of the shards.

    A model that is not sharded is left as it is.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def set_gradient_sync(model: nn.Module, sync: bool) -> None:
    """Whether the next backward adds up gradients over processes (only the last pass of a step needs to)."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(sync)
