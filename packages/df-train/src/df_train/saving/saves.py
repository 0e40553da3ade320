"""When checkpoints are written, and by which thread: the one that trains, or one beside it.

Beside it (`checkpoint.asynchronous`), training waits only for a copy of its state in host memory. Everything else
(writing, hashing, fsync, the agreement of all processes that their parts are whole, the final name, the removal of old
checkpoints) is done by the other thread while steps are taken, with collectives of its own (`World.beside`).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from df_train.config import CheckpointConfig
from df_train.processes.distributed import World
from df_train.saving import checkpoint
from df_train.saving.checkpoint import RankState

THREAD = "df-train-saves"
"""Name of the thread that writes, for those who look at what it does (`df_train.processes.watch`)."""


class Saves:
    """The checkpoints of one run; there are never two in the making.

    As a context manager it comes back when the last one is whole, also on an exception.

    Args:
        root: the directory of the checkpoints.
    """

    def __init__(self, root: Path, settings: CheckpointConfig, world: World) -> None:
        self._root, self._keep, self._world = root, settings.keep, world
        self._staging = Staging() if settings.asynchronous else None
        chosen = partial(torch.cuda.set_device, world.device) if world.device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, THREAD, chosen)
        self._pending: Future[None] | None = None

    def save(self, step: int, tensors: dict[str, Any], own: RankState, shared: Mapping[str, Any]) -> None:
        """Write a checkpoint, or begin to, after the one before; every process must call it.

        Args:
            own, shared: as for `checkpoint.save`, and no longer changed by anybody.

        Raises:
            MachineError, UserError, PeerFailed: as `checkpoint.save`, of this checkpoint or the one before.
        """
        self.finish()
        write = partial(checkpoint.save, self._root, step, own=own, shared=shared, world=self._world, keep=self._keep)
        if self._staging is None:
            write(tensors=tensors)
        else:
            self._pending = self._thread.submit(write, tensors=self._staging.copy(tensors))

    def check(self) -> None:
        """Raise what went wrong beside training, if anything did by now."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the last checkpoint is whole.

        Raises:
            MachineError, UserError, PeerFailed: it could not be written.
        """
        if self._pending is not None:
            try:
                self._pending.result()
            finally:  # a Ctrl-C ends the wait, not the writing
                if self._pending.done():
                    self._pending = None

    def __enter__(self) -> Saves:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with suppress(*() if kind is None else (Exception,)):  # the first error is the one to tell
                self.finish()
        finally:
            self._thread.shutdown(wait=False)


class Staging:
    """Copies a state dict into host memory that is kept for the next time, pinned if the tensors are on CUDA.

    DCP's `DefaultStager` does the same, but with torch 2.11 it gives its memory back after each time.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, ...], Tensor] = {}

    def copy(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same tree of tensors with its values of now; the one that was returned before is overwritten."""
        copied = self._tree((), tensors)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return copied

    def _tree(self, path: tuple[str, ...], tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: self._one((*path, name), value) if isinstance(value, Tensor) else self._tree((*path, name), value)
            for name, value in tensors.items()
        }

    def _one(self, path: tuple[str, ...], value: Tensor) -> Tensor:
        if path not in self._held:
            self._held[path] = torch.empty_like(value.detach(), device="cpu", pin_memory=value.is_cuda)
        _local(self._held[path]).copy_(_local(value.detach()), non_blocking=True)
        return self._held[path]


def _local(value: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value
