"""Processes and devices: one process by default, many under torchrun or `accelerate launch`.

The sharding path is the same in all cases, so a process group always exists. A single process opens a group of one
over an in-memory store: no environment variables and no port.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from df_models.device import choose_device
from df_models.errors import UserError


@dataclass(frozen=True)
class World:
    """This process among the others: its rank, how many there are, its device and the mesh that shards."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes (a new tensor on the same device)."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total

    def max(self, values: Tensor) -> Tensor:
        """The largest of each of ``values`` over all processes (a new tensor on the same device)."""
        if self.size == 1:
            return values
        largest = values.clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest

    def broadcast(self, value: int) -> int:
        """The first process's `value`, in every process."""
        if self.size == 1:
            return value
        held = torch.tensor([value], device=self.device)
        dist.broadcast(held, src=0)
        return int(held.item())

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all processes must call it."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item())


def launched_by_torchrun() -> bool:
    """Whether a launcher (torchrun, accelerate launch) has described a group of processes in the environment."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def pick_device(wanted: str) -> torch.device:
    """The device of this process; with several processes on one machine each takes its own GPU.

    Raises:
        UserError: the device is unknown or not there, is one that training cannot use, or is one for several processes.
    """
    device = choose_device(wanted)
    if device.type == "mps":
        raise UserError("device=mps: training shards its parameters by FSDP, which has no MPS backend; use device=cpu")
    if device.type == "cpu":
        return device
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if device.index is not None:
        if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise UserError(f"device={wanted} is one GPU for several processes; use device=cuda: each takes its own")
        index = device.index
    if index >= torch.cuda.device_count():
        raise UserError(f"process {index} of this machine has no GPU ({torch.cuda.device_count()} present)")
    return torch.device("cuda", index)


@contextlib.contextmanager
def open_world(wanted: str = "auto") -> Iterator[World]:
    """Open the process group (or reuse one that is open) and close what was opened on leaving."""
    device = pick_device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    opened = not dist.is_initialized()
    if opened:
        _init_group(device)
    rank, size = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    try:
        yield World(rank, size, device, mesh)
    finally:
        if opened:
            dist.destroy_process_group()


def _init_group(device: torch.device) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if launched_by_torchrun():
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
