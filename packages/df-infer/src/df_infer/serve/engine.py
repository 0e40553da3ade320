"""One thread that does all computing: what is needed first is done first.

Everything that touches a model goes through here, in one thread, so sessions need no locks and the event loop never
waits. Live chunks carry the moment at which they must be seen; whole videos carry none, and take what is left.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from df_infer.sampling.steps import Steps, together
from df_models.time import FPS, TEMPORAL_STRIDE

T = TypeVar("T")

NOW = 0.0
"""Deadline of what is done before all else, such as an interruption."""
WHENEVER = float("inf")
"""Deadline of what nobody is looking at while it is made."""

OPEN_S = 1.0

TOGETHER_S = TEMPORAL_STRIDE / FPS
"""How much later than the first chunk of a batch the others may be due: as long as a chunk lasts. What is due later
would hold up the first, and whoever interrupts, for nothing."""


def soon() -> float:
    """Deadline of what somebody waits for without seeing anything yet: chunks of others that are due come first."""
    return time.monotonic() + OPEN_S


class _Job(NamedTuple):
    deadline: float
    number: int
    call: Callable[[], Any]
    future: Future[Any]
    by_steps: bool


class Engine:
    """Runs calls in its own thread, the earliest deadline (of ``time.monotonic``) first, equal ones in their order.

    Chunks that are due together are made together (:mod:`df_infer.sampling.steps`): a batch takes longer than its
    first chunk alone would, and less than all of them one after the other.

    Args:
        together: chunks in a batch at most.
    """

    def __init__(self, together: int = 1) -> None:
        self._together = together
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._stopped = False
        self.busy_s = 0.0
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, deadline: float, call: Callable[..., T], *args: Any) -> Future[T]:
        """Have ``call(*args)`` done; from any thread.

        Raises:
            RuntimeError: the engine was stopped.
        """
        return self._add(deadline, lambda: call(*args), by_steps=False)

    def submit_steps(self, deadline: float, steps: Callable[..., Steps[T]], *args: Any) -> Future[T]:
        """Have what ``steps(*args)`` makes made, together with what else waits to be made by steps.

        Raises:
            RuntimeError: the engine was stopped.
        """
        return self._add(deadline, lambda: steps(*args), by_steps=True)

    def _add(self, deadline: float, call: Callable[[], Any], *, by_steps: bool) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            if self._stopped:
                raise RuntimeError("the engine was stopped")
            heapq.heappush(self._jobs, _Job(deadline, next(self._numbers), call, future, by_steps))
            self._changed.notify()
        return future

    async def do(self, deadline: float, call: Callable[..., T], *args: Any) -> T:
        """Return ``call(*args)``; a call that has not begun is dropped when the waiting task is cancelled."""
        return await asyncio.wrap_future(self.submit(deadline, call, *args))

    async def do_steps(self, deadline: float, steps: Callable[..., Steps[T]], *args: Any) -> T:
        """Return what ``steps(*args)`` makes; dropped as by :meth:`do`, and made to its end once it has begun."""
        return await asyncio.wrap_future(self.submit_steps(deadline, steps, *args))

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        with self._changed:
            return len(self._jobs)

    def stop(self) -> None:
        """End the thread after the call that it is in; what has not begun is cancelled."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            began = time.monotonic()
            if jobs[0].by_steps:
                _make(jobs)
            else:
                _call(jobs[0])
            self.busy_s += time.monotonic() - began
            jobs.clear()  # their results must not live on while nothing is to do
        for job in self._jobs:
            job.future.cancel()
        self._jobs.clear()

    def _next(self) -> list[_Job]:
        """Wait for the next call, and take what goes together with it; nothing when the engine is stopped."""
        with self._changed:
            jobs: list[_Job] = []
            while not jobs:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
                if self._stopped:
                    return []
                jobs = self._take()
            return jobs

    def _take(self) -> list[_Job]:
        """Take the next call, and what goes together with it; nothing where they were cancelled.

        A method of its own: cancelled calls must not live on in variables while nothing is to do.
        """
        first = heapq.heappop(self._jobs)
        others = sorted(job for job in self._jobs if first.by_steps and _goes_with(job, first))
        taken = [first, *others[: self._together - 1]]
        numbers = {job.number for job in taken}
        self._jobs = [job for job in self._jobs if job.number not in numbers]
        heapq.heapify(self._jobs)
        return [job for job in taken if job.future.set_running_or_notify_cancel()]


def _goes_with(job: _Job, first: _Job) -> bool:
    return job.by_steps and job.deadline <= first.deadline + TOGETHER_S and not job.future.cancelled()


def _call(job: _Job) -> None:
    try:
        result = job.call()
    except BaseException as error:
        job.future.set_exception(error)
    else:
        job.future.set_result(result)


def _make(jobs: list[_Job]) -> None:
    """Make chunks together; each is there as soon as it is done."""
    begun: list[tuple[_Job, Steps[Any]]] = []
    try:
        for job in jobs:
            try:
                begun.append((job, job.call()))
            except Exception as error:
                job.future.set_exception(error)
        for place, made in together([steps for _, steps in begun]):
            if isinstance(made, Exception):
                begun[place][0].future.set_exception(made)
            else:
                begun[place][0].future.set_result(made)
    except BaseException as error:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)
