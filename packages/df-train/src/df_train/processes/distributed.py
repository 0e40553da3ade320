"""Processes and devices: one process by default, many under torchrun or `accelerate launch`.

Rank, number of processes, device and what they gather are accelerate's (`PartialState`, `gather`, `reduce`). The
sharding path is the same in all cases, so a process group always exists: a single process, for which accelerate opens
none, gets a group of one over an in-memory store (no environment variables and no port).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather, gather_object, reduce
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from df_models.device import choose_device
from df_models.errors import UserError
from df_train.processes import peers
from df_train.processes.allocator import keep_freed_memory

T = TypeVar("T")

_BESIDE = timedelta(days=1)
"""Writing may take as long as the slowest disk; a process that dies is noticed at once."""

_LAST_TENSORS = 0.2
"""Seconds for gloo's threads to let go of the tensors of the last collective, which takes the interpreter. One that
comes to it after the interpreter has begun to end aborts the process (pytorch/pytorch#179291), on busy cores now and
then. torch's caches hold the groups, so the threads cannot be joined."""


@dataclass(frozen=True)
class World:
    """This process among the others.

    Attributes:
        mesh: what shards: one dimension `shard`, or two, `replicate` and `shard`, where neighbouring processes hold the
            shards of one copy.
        beside: another group of the same processes, by gloo, for a thread beside the one that trains; None if there is
            only one process.
    """

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    beside: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def first_alone(self, work: Callable[[], T]) -> T:
        """:func:`df_train.processes.peers.first_alone`: for work of the first process that may take long."""
        return peers.first_alone(work)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes (on the same device)."""
        return reduce(values, "sum")  # type: ignore[return-value]

    def max(self, values: Tensor) -> Tensor:
        """The largest of each of ``values`` over all processes (on the same device)."""
        return gather(values[None]).amax(dim=0)  # type: ignore[union-attr]

    def each(self, value: T) -> list[T]:
        """What every process gives, in their order; all processes must call it."""
        return gather_object([value])

    def each_beside(self, value: T) -> list[T]:
        """The same over the group `beside`, whatever the thread that trains is doing meanwhile."""
        if self.beside is None:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.beside)
        return values  # type: ignore[return-value]


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


def check_replicas(replicate: int) -> None:
    """The processes divide into so many copies of the sharded model.

    Raises:
        UserError: they do not.
    """
    count = peers.count()
    if count % replicate:
        fitting = ", ".join(str(number) for number in range(1, count + 1) if count % number == 0)
        raise UserError(
            f"sharding.replicate={replicate} does not divide the {count} processes of this launch into copies of one "
            f"size; set it to one of {fitting}"
        )


@contextlib.contextmanager
def open_world(wanted: str = "auto", patience: timedelta | None = None, *, replicate: int = 1) -> Iterator[World]:
    """Open the process group (or reuse one that is open) and close what was opened on leaving.

    Args:
        wanted: the device.
        patience: how long a collective operation waits for the others; torch's own limits (10 minutes for NCCL) by
            default.
        replicate: copies of the sharded model.

    Raises:
        UserError: the device cannot be used, or the copies do not divide the processes.
    """
    device = pick_device(wanted)
    check_replicas(replicate)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    opened = not dist.is_initialized()
    if opened:
        _init_group(device, patience)
    # accelerate would set the threads of a lone launched process itself, from a count of cores that may be unknown
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    state = PartialState(cpu=device.type == "cpu")
    sizes, names = (state.num_processes,), ("shard",)
    if replicate > 1:
        sizes, names = (replicate, state.num_processes // replicate), ("replicate", "shard")
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=names)
    beside = dist.new_group(backend="gloo", timeout=_BESIDE) if state.num_processes > 1 else None
    assert beside is None or isinstance(beside, dist.ProcessGroup)
    try:
        yield World(state.process_index, state.num_processes, device, mesh, beside)
    finally:
        if opened:
            dist.destroy_process_group()
            if state.num_processes > 1:
                time.sleep(_LAST_TENSORS)
            PartialState._reset_state()  # one process may train on one device after another (tests do)


def _init_group(device: torch.device, patience: timedelta | None) -> None:
    """Open the group before accelerate does, which would know neither the store nor gloo beside NCCL (for tensors on
    the host, such as DCP's metadata)."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if peers.launched():
        group = dist.PrefixStore("df-train/group", peers.store())
        dist.init_process_group(backend, store=group, rank=peers.own_rank(), world_size=peers.count(), timeout=patience)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
