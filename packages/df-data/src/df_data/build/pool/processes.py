"""Workers as processes of this machine, each with a pipe of its own, so that one can die without the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from df_data.build.config import BuildConfig
from df_data.build.devices import DeviceRota, resolve_devices
from df_data.build.pool.messages import Message, ModelsFactory
from df_data.build.pool.supervisor import WorkerHandle, WorkerLost
from df_data.build.pool.worker_loop import WorkerLoop
from df_data.common.processes import be_a_worker
from df_data.sources.listing import Input

SHUTDOWN_S = 20.0
"""How long an idle worker may take to free its models."""
PRELOAD = ["df_data.build.workers"]
"""Imported once, by the small server process that all workers are forked from, so that a new one starts at once."""


class LocalHost:
    """Starts workers by a fork server: they inherit nothing from this process, its threads and devices least of all.

    Raises:
        UserError: a device is not there.
    """

    def __init__(self, config: BuildConfig, make: ModelsFactory) -> None:
        self._config, self._make = config, make
        self._devices = DeviceRota(resolve_devices(config.device))
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def start_worker(self) -> LocalHandle:
        """See :class:`df_data.build.pool.supervisor.WorkerHost`."""
        pipe, theirs = self._context.Pipe()
        device = self._devices.take()
        config = self._config.model_copy(update={"device": device})
        process = self._context.Process(target=_work, args=(theirs, config, self._make), daemon=True)
        process.start()
        theirs.close()
        return LocalHandle(process, pipe, leave=lambda: self._devices.give_back(device))

    def listen(self, handles: Sequence[WorkerHandle], timeout_s: float) -> list[WorkerHandle]:
        """See :class:`df_data.build.pool.supervisor.WorkerHost`."""
        pipes = {handle.pipe: handle for handle in handles if isinstance(handle, LocalHandle)}
        return [pipes[pipe] for pipe in connection.wait(list(pipes), timeout_s) if isinstance(pipe, Connection)]

    def close(self) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHost`."""


class LocalHandle:
    """One worker process and this end of its pipe, which the system closes when the worker dies.

    Args:
        leave: called once, when the process is gone.
    """

    def __init__(self, process: BaseProcess, pipe: Connection, leave: Callable[[], None]) -> None:
        self.process, self.pipe, self._leave = process, pipe, leave

    def give(self, made: Input) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        with contextlib.suppress(BrokenPipeError):  # it died; take() finds out how
            self.pipe.send(made)

    def take(self) -> Message:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(SHUTDOWN_S)
            code = self.process.exitcode or 0  # no code: it closed its pipe and lives on
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise WorkerLost(f"crashed its worker ({how})") from error

    def kill(self) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self._leave()

    def close(self) -> None:
        """See :class:`df_data.build.pool.supervisor.WorkerHandle`."""
        self.pipe.close()
        self.process.join(SHUTDOWN_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self._leave()


def _work(pipe: Connection, config: BuildConfig, make: ModelsFactory) -> None:
    be_a_worker()
    loop = WorkerLoop(config, make)
    try:
        for message in loop.start():
            pipe.send(message)
        while True:
            for message in loop.work(pipe.recv()):
                pipe.send(message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        loop.close()  # the build has no more to do, or is no more
