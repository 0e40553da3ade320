"""One thread that does all computing: what is needed first is done first.

Everything that touches a model goes through here, in one thread, so sessions need no locks and the event loop never
waits. Live chunks carry the moment at which they must be seen; whole videos carry none, and take what is left.

A chunk is made by steps of the model (:mod:`df_infer.sampling.steps`), and after each it is looked what to do next. A
chunk that is due joins those that are being made, whatever step they are at; a call that is due is done in between; a
chunk that is not due, such as one of a whole video, stands still meanwhile. (With batches of one chunk nothing joins:
one that is due within a chunk's time of the one that is being made, or later, waits for its end.)
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from df_infer.sampling.steps import Rounds, Running, Steps
from df_models.time import FPS, TEMPORAL_STRIDE

T = TypeVar("T")

NOW = 0.0
"""Deadline of what is done before all else, such as an interruption."""
WHENEVER = float("inf")
"""Deadline of what nobody is looking at while it is made."""

AFTER_S = 3600.0
"""How much later the chunks of a face that takes more work than the model's own settings are due than they are seen:
what others leave is theirs, before whole videos."""

OPEN_S = 1.0

TOGETHER_S = TEMPORAL_STRIDE / FPS
"""How much later than the first chunk of a batch the others may be due: as long as a chunk lasts. What is due later
would hold up the first for nothing."""


def soon() -> float:
    """Deadline of what somebody waits for without seeing anything yet: chunks of others that are due come first."""
    return time.monotonic() + OPEN_S


class GivenUp(Exception):
    """A chunk that nobody wants any more was not made."""


class _Job(NamedTuple):
    deadline: float
    number: int
    call: Callable[[], Any]
    future: Future[Any]
    by_steps: bool


class _Begun(NamedTuple):
    """A chunk that is being made."""

    job: _Job
    running: Running[Any]


class Engine:
    """Runs calls in its own thread, the earliest deadline (of ``time.monotonic``) first, equal ones in their order.

    Chunks that are due together are made together: a batch takes longer than its first chunk alone would, and less
    than all of them one after the other.

    Args:
        together: chunks in a batch at most.
    """

    def __init__(self, together: int = 1) -> None:
        self._together = together
        self._jobs: list[_Job] = []
        self._begun: list[_Begun] = []
        self._rounds = Rounds()
        self._unwanted: set[Future[Any]] = set()
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
        """Have what ``steps(*args)`` makes made, together with what else is made by steps.

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

    def give_up(self, future: Future[Any] | None) -> None:
        """Do not make what :meth:`submit_steps` was to have made, nor its remaining steps; it raises :class:`GivenUp`.

        Nothing happens if it is done, or None.
        """
        if future is not None and not future.done():
            with self._changed:
                self._unwanted.add(future)
                self._changed.notify()

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        with self._changed:
            return len(self._jobs)

    def stop(self) -> None:
        """End the thread when what has begun is done, all chunks of it; what has not is cancelled."""
        with self._changed:
            self._stopped = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._wait():
            began = time.monotonic()
            self._drop_unwanted()
            self._go_on()
            self.busy_s += time.monotonic() - began

    def _wait(self) -> bool:
        """Wait for something to do; False when the engine is stopped and nothing is left of what has begun."""
        with self._changed:
            if not self._begun:
                self._rounds.rest()
                self._changed.wait_for(lambda: self._jobs or self._stopped)
            return bool(self._begun) or not self._stopped

    def _drop_unwanted(self) -> None:
        """End what was given up."""
        with self._changed:
            unwanted, self._unwanted = self._unwanted, set()
            unbegun = [job for job in self._jobs if job.future in unwanted]
            if unbegun:
                self._jobs = [job for job in self._jobs if job.future not in unwanted]
                heapq.heapify(self._jobs)
        for job in unbegun:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(GivenUp())
        for begun in [begun for begun in self._begun if begun.job.future in unwanted]:
            self._fail(begun, GivenUp())

    def _go_on(self) -> None:
        """Do a call, or make one step of all chunks that are due together."""
        horizon = self._horizon()
        while (job := self._taken(horizon)) is not None:
            if not job.by_steps:
                _call(job)
                return
            self._begin(job)
        held = [begun for begun in self._begun if begun.running.held_up]
        turn = held + self._due(horizon)[: self._together]
        try:
            self._rounds.go([begun.running for begun in turn])
        except BaseException as error:
            for begun in [begun for begun in turn if not begun.running.ended]:
                self._fail(begun, error)
        for begun in [begun for begun in turn if begun.running.ended]:
            self._end(begun)

    def _fail(self, begun: _Begun, error: BaseException) -> None:
        self._begun.remove(begun)
        begun.job.future.set_exception(error)
        with contextlib.suppress(Exception):  # what it does to come back to before the chunk may fail as the chunk did
            begun.running.close()

    def _horizon(self) -> float:
        """The latest deadline of what is done now. What is late does not hold up what has its deadline before it."""
        with self._changed:
            deadlines = [job.deadline for job in self._jobs[:1]]
        deadlines += [begun.job.deadline for begun in self._begun if not begun.running.held_up]
        return max(min(deadlines, default=0.0), time.monotonic()) + TOGETHER_S

    def _due(self, horizon: float) -> list[_Begun]:
        """Chunks that have begun, are due by then and not held up, the earliest first."""
        due = (begun for begun in self._begun if begun.job.deadline <= horizon)
        return sorted(begun for begun in due if not begun.running.held_up)

    def _taken(self, horizon: float) -> _Job | None:
        """Take the next that is due by then; a chunk only if there is room beside those that have begun."""
        full = len(self._due(horizon)) >= self._together
        with self._changed:
            due = sorted(job for job in self._jobs if job.deadline <= horizon and not (full and job.by_steps))
            taken = next((job for job in due if job.future.set_running_or_notify_cancel()), None)
            gone = [job for job in due if taken is None or job <= taken]
            self._jobs = [job for job in self._jobs if job not in gone]
            heapq.heapify(self._jobs)
            return taken

    def _begin(self, job: _Job) -> None:
        try:
            begun = _Begun(job, Running(job.call()))
        except BaseException as error:
            job.future.set_exception(error)
            return
        self._begun.append(begun)
        if begun.running.ended:
            self._end(begun)

    def _end(self, begun: _Begun) -> None:
        """Hand over what came of it: chunks are there as soon as they are done."""
        self._begun.remove(begun)
        outcome = begun.running.outcome
        if isinstance(outcome, Exception):
            begun.job.future.set_exception(outcome)
        else:
            begun.job.future.set_result(outcome)


def _call(job: _Job) -> None:
    try:
        result = job.call()
    except BaseException as error:
        job.future.set_exception(error)
    else:
        job.future.set_result(result)
