"""Several workers, watched: who dies or hangs is replaced, and an input that does that to its workers is set aside.

Each worker has at most two inputs, one at work and one to go on with, and works in the order in which it got them; so
when it is lost, the input at fault is known: the first that has not ended. The other goes to another worker. The input
at fault is tried again when everything else is done, alone, so that it is not judged for what its neighbours took
(memory, above all), and is failed when it has lost its worker every time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from df_data.build.pool.messages import InputResult, MadeSample, Message, Outcome, Ready, WorkerFailure
from df_data.format.sample import EncoderRecord
from df_data.sources.listing import Input
from df_models.errors import UserError

AT_ONCE = 2
"""Inputs that a worker has at a time."""
LOADING_S = 600.0
"""How long a worker may load its models, at least."""


class WorkerLost(Exception):
    """A worker is no more; the text says how, as in "crashed its worker (signal 11)"."""


class WorkerHandle(Protocol):
    """One worker, seen from the build."""

    def give(self, made: Input) -> None:
        """Hand it an input, without waiting; if it is no more, :meth:`take` will tell."""
        ...

    def take(self) -> Message:
        """Return its next message.

        Raises:
            WorkerLost: there will be none.
        """
        ...

    def kill(self) -> None:
        """End it at once, whatever it is at."""
        ...

    def close(self) -> None:
        """End it when it has nothing to do."""
        ...


class WorkerHost(Protocol):
    """Where workers run. A worker sends :class:`Ready` or :class:`WorkerFailure` first."""

    def start_worker(self) -> WorkerHandle:
        """Start a worker, without waiting for it."""
        ...

    def listen(self, handles: Sequence[WorkerHandle], timeout_s: float) -> list[WorkerHandle]:
        """Return those whose :meth:`WorkerHandle.take` has something to say, waiting for the first of them."""
        ...

    def close(self) -> None:
        """Leave the place; all workers are gone."""
        ...


@dataclass(eq=False)
class _WorkerQueue:
    """A worker and what it has to do; ``since`` is when it last gave a sign of life."""

    handle: WorkerHandle
    given: deque[Input] = field(default_factory=deque)
    ready: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        return bool(self.given) or not self.ready

    def give(self, made: Input) -> None:
        if not self.busy:
            self.since = time.monotonic()
        self.given.append(made)
        self.handle.give(made)


class SupervisedPool:
    """Workers of a :class:`WorkerHost` (see the module).

    Args:
        timeout_s: a worker that gives no sign of life for so long hangs: no sample, no refused stretch, no end of an
            input.
        retries: how often an input that lost its worker is tried again.
    """

    def __init__(self, host: WorkerHost, *, workers: int, timeout_s: float, retries: int) -> None:
        self._host, self._workers = host, workers
        self._timeout_s, self._retries = timeout_s, retries
        self._queues: list[_WorkerQueue] = []
        self._records: dict[str, EncoderRecord] | None = None

    def records(self) -> dict[str, EncoderRecord]:
        """See :class:`df_data.build.pool.messages.WorkerPool`."""
        if self._records is None:
            self._queues.append(_WorkerQueue(self._host.start_worker()))
        while self._records is None:
            for _ in self._listen(deque()):
                pass
        return self._records

    def run(self, todo: list[Input]) -> Iterator[tuple[Input, Outcome]]:
        """See :class:`df_data.build.pool.messages.WorkerPool`.

        Raises:
            UserError: a worker cannot load its models, or dies of it.
        """
        retry_alone: list[tuple[Input, WorkerLost]] = []
        for made, event in self._work(todo, self._workers):
            if isinstance(event, WorkerLost):
                retry_alone.append((made, event))
            else:
                yield made, event
        for made, lost in retry_alone:
            yield from self._alone(made, lost)

    def close(self, *, now: bool) -> None:
        """See :class:`df_data.build.pool.messages.WorkerPool`."""
        while self._queues:
            queue = self._queues.pop()
            if now or queue.busy:
                queue.handle.kill()
            else:
                queue.handle.close()
        self._host.close()

    def _alone(self, made: Input, lost: WorkerLost) -> Iterator[tuple[Input, Outcome]]:
        for _ in range(self._retries):
            again: WorkerLost | None = None
            for _, event in self._work([made], 1):
                if isinstance(event, WorkerLost):
                    again = event
                else:
                    yield made, event
            if again is None:
                return
            lost = again
        yield made, InputResult("failed", error=str(lost))

    def _work(self, todo: Sequence[Input], workers: int) -> Iterator[tuple[Input, Outcome | WorkerLost]]:
        waiting = deque(todo)
        while len(self._queues) > workers:
            self._queues.pop().handle.close()
        while waiting or any(queue.given for queue in self._queues):
            while waiting and (queue := self._free_queue(workers)) is not None:
                queue.give(waiting.popleft())
            yield from self._listen(waiting)

    def _free_queue(self, workers: int) -> _WorkerQueue | None:
        """Return a worker for the next input: one that has none, a new one, one that has one; or None."""
        least = min(self._queues, key=lambda queue: len(queue.given), default=None)
        if (least is None or least.given) and len(self._queues) < workers:
            least = _WorkerQueue(self._host.start_worker())
            self._queues.append(least)
        return least if least is not None and len(least.given) < AT_ONCE else None

    def _listen(self, waiting: deque[Input]) -> Iterator[tuple[Input, Outcome | WorkerLost]]:
        """Wait for news, hand it on, and see who is silent for too long; innocent inputs go back to ``waiting``."""
        by_handle = {id(queue.handle): queue for queue in self._queues}
        deadlines = [self._deadline(queue) for queue in self._queues if queue.busy]
        patience = max(0.0, min(deadlines, default=0.0) - time.monotonic())
        for handle in self._host.listen([queue.handle for queue in self._queues], patience):
            queue = by_handle[id(handle)]
            try:
                message = handle.take()
            except WorkerLost as lost:
                yield from self._drop_worker(queue, lost, waiting)
                continue
            queue.since = time.monotonic()
            yield from self._handle_message(queue, message)
        for queue in list(self._queues):
            silent = queue.busy and time.monotonic() > self._deadline(queue)
            if silent and not self._host.listen([queue.handle], 0):
                yield from self._drop_worker(queue, WorkerLost(f"took longer than {self._timeout_s:g} s"), waiting)

    def _deadline(self, queue: _WorkerQueue) -> float:
        return queue.since + (self._timeout_s if queue.ready else max(self._timeout_s, LOADING_S))

    def _handle_message(self, queue: _WorkerQueue, message: Message) -> Iterator[tuple[Input, Outcome]]:
        if isinstance(message, WorkerFailure):
            raise message.error
        if isinstance(message, Ready):
            queue.ready, self._records = True, message.records
        elif isinstance(message, InputResult):
            yield queue.given.popleft(), message
        elif isinstance(message, MadeSample):
            yield queue.given[0], message

    def _drop_worker(
        self, queue: _WorkerQueue, lost: WorkerLost, waiting: deque[Input]
    ) -> Iterator[tuple[Input, WorkerLost]]:
        self._queues.remove(queue)
        queue.handle.kill()
        if not queue.ready:
            raise UserError(f"loading the models {lost}; is there memory for so many workers?")
        if queue.given:
            faulty = queue.given.popleft()
            waiting.extendleft(reversed(queue.given))
            yield faulty, lost
