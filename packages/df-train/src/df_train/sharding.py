"""FSDP2 (`fully_shard`): the one way parameters are sharded, on one process or many, CPU or CUDA."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from df_models.machine import choose_precision
from df_train.config import PrecisionConfig, ShardingConfig
from df_train.distributed import World

_BLOCKS_FROM = 50_000_000
"""Parameters from which each block is gathered alone; below, one gathering costs less than one for each block."""


def shard(
    model: nn.Module, sharding: ShardingConfig, precision: PrecisionConfig, world: World, *, passes: int = 1
) -> None:
    """Shard the parameters in place: in one group for small models, one group per block for large ones.

    Gradients are summed in float32, over processes and over the `passes` of a step.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    group = sharding.group
    if group == "auto":
        group = "block" if size >= _BLOCKS_FROM else "model"
    dtype = choose_precision(precision.name, world.device).dtype
    lower = None if dtype == torch.float32 else dtype
    # Inputs keep their dtype: rounding sigma to bfloat16 would merge neighbouring noise levels.
    # Where nothing is summed, converting before the (empty) reduction instead of after it costs 5 % of a step.
    summed = world.size > 1 or passes > 1
    policy = MixedPrecisionPolicy(
        param_dtype=lower, reduce_dtype=torch.float32 if summed else None, cast_forward_inputs=False
    )
    if group == "block":
        for block in blocks_of(model):
            fully_shard(block, mesh=world.mesh, mp_policy=policy)
    fully_shard(model, mesh=world.mesh, mp_policy=policy)
    # The velocities are views of the towers' outputs, and nothing writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated layers: the items of every outermost ModuleList."""
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
