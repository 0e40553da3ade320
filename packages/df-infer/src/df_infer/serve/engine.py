"""One thread that does all computing: what is needed first is done first.

Everything that touches a model goes through here, in one thread, so sessions need no locks and the event loop never
waits. Live chunks carry the moment at which they must be seen; whole videos carry none, and take what is left.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

NOW = 0.0
"""Deadline of what is done before all else, such as an interruption."""
WHENEVER = float("inf")
"""Deadline of what nobody is looking at while it is made."""

OPEN_S = 1.0


def soon() -> float:
    """Deadline of what somebody waits for without seeing anything yet: chunks of others that are due come first."""
    return time.monotonic() + OPEN_S


class _Job(NamedTuple):
    deadline: float
    number: int
    call: Callable[[], Any] | None
    future: Future[Any]


class Engine:
    """Runs calls in its own thread, the earliest deadline (of ``time.monotonic``) first, equal ones in their order."""

    def __init__(self) -> None:
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()
        self._stopped = False
        self.busy_s = 0.0

    def submit(self, deadline: float, call: Callable[..., T], *args: Any) -> Future[T]:
        """Have ``call(*args)`` done; from any thread.

        Raises:
            RuntimeError: the engine was stopped.
        """
        if self._stopped:
            raise RuntimeError("the engine was stopped")
        future: Future[T] = Future()
        self._jobs.put(_Job(deadline, next(self._numbers), lambda: call(*args), future))
        return future

    async def do(self, deadline: float, call: Callable[..., T], *args: Any) -> T:
        """Return ``call(*args)``; a call that has not begun is dropped when the waiting task is cancelled."""
        return await asyncio.wrap_future(self.submit(deadline, call, *args))

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        return self._jobs.qsize()

    def stop(self) -> None:
        """End the thread after the call that it is in; what has not begun is cancelled."""
        self._stopped = True
        self._jobs.put(_Job(-1.0, next(self._numbers), None, Future()))
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()).call is not None:
            if job.future.set_running_or_notify_cancel():
                began = time.monotonic()
                try:
                    result = job.call()
                except BaseException as error:
                    job.future.set_exception(error)
                else:
                    job.future.set_result(result)
                self.busy_s += time.monotonic() - began
            del job  # its result must not live on while nothing is to do
        while not self._jobs.empty():
            self._jobs.get_nowait().future.cancel()
