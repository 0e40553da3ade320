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

from df_data.build.crew.messages import InputResult, MadeSample, Message, Outcome, Ready, Trouble
from df_data.format.sample import EncoderRecord
from df_data.sources.listing import Input
from df_models.errors import UserError

AT_ONCE = 2
"""Inputs that a worker has at a time."""
LOADING_S = 600.0
"""How long a worker may load its models, at least."""


class WorkerLost(Exception):
    """A worker is no more; the text says how, as in "crashed its worker (signal 11)"."""


class Seat(Protocol):
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


class Site(Protocol):
    """Where workers run. A worker sends :class:`Ready` or :class:`Trouble` first."""

    def hire(self) -> Seat:
        """Start a worker, without waiting for it."""
        ...

    def listen(self, seats: Sequence[Seat], timeout_s: float) -> list[Seat]:
        """Return those whose :meth:`Seat.take` has something to say, waiting for the first of them."""
        ...

    def close(self) -> None:
        """Leave the place; all workers are gone."""
        ...


@dataclass(eq=False)
class _Desk:
    """A worker and what it has to do; ``since`` is when it last gave a sign of life."""

    seat: Seat
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
        self.seat.give(made)


class SupervisedCrew:
    """Workers of a :class:`Site` (see the module).

    Args:
        timeout_s: a worker that gives no sign of life for so long hangs: no sample, no refused stretch, no end of an
            input.
        retries: how often an input that lost its worker is tried again.
    """

    def __init__(self, site: Site, *, workers: int, timeout_s: float, retries: int) -> None:
        self._site, self._workers = site, workers
        self._timeout_s, self._retries = timeout_s, retries
        self._desks: list[_Desk] = []
        self._records: dict[str, EncoderRecord] | None = None

    def records(self) -> dict[str, EncoderRecord]:
        """See :class:`df_data.build.crew.messages.Crew`."""
        if self._records is None:
            self._desks.append(_Desk(self._site.hire()))
        while self._records is None:
            for _ in self._listen(deque()):
                pass
        return self._records

    def run(self, todo: list[Input]) -> Iterator[tuple[Input, Outcome]]:
        """See :class:`df_data.build.crew.messages.Crew`.

        Raises:
            UserError: a worker cannot load its models, or dies of it.
        """
        suspects: list[tuple[Input, WorkerLost]] = []
        for made, event in self._work(todo, self._workers):
            if isinstance(event, WorkerLost):
                suspects.append((made, event))
            else:
                yield made, event
        for made, lost in suspects:
            yield from self._alone(made, lost)

    def close(self, *, now: bool) -> None:
        """See :class:`df_data.build.crew.messages.Crew`."""
        while self._desks:
            desk = self._desks.pop()
            if now or desk.busy:
                desk.seat.kill()
            else:
                desk.seat.close()
        self._site.close()

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
        while len(self._desks) > workers:
            self._desks.pop().seat.close()
        while waiting or any(desk.given for desk in self._desks):
            while waiting and (desk := self._vacancy(workers)) is not None:
                desk.give(waiting.popleft())
            yield from self._listen(waiting)

    def _vacancy(self, workers: int) -> _Desk | None:
        """Return a worker for the next input: one that has none, a new one, one that has one; or None."""
        least = min(self._desks, key=lambda desk: len(desk.given), default=None)
        if (least is None or least.given) and len(self._desks) < workers:
            least = _Desk(self._site.hire())
            self._desks.append(least)
        return least if least is not None and len(least.given) < AT_ONCE else None

    def _listen(self, waiting: deque[Input]) -> Iterator[tuple[Input, Outcome | WorkerLost]]:
        """Wait for news, hand it on, and see who is silent for too long; innocent inputs go back to ``waiting``."""
        by_seat = {id(desk.seat): desk for desk in self._desks}
        dues = [self._due(desk) for desk in self._desks if desk.busy]
        patience = max(0.0, min(dues, default=0.0) - time.monotonic())
        for seat in self._site.listen([desk.seat for desk in self._desks], patience):
            desk = by_seat[id(seat)]
            try:
                message = seat.take()
            except WorkerLost as lost:
                yield from self._bury(desk, lost, waiting)
                continue
            desk.since = time.monotonic()
            yield from self._heard(desk, message)
        for desk in list(self._desks):
            silent = desk.busy and time.monotonic() > self._due(desk)
            if silent and not self._site.listen([desk.seat], 0):
                yield from self._bury(desk, WorkerLost(f"took longer than {self._timeout_s:g} s"), waiting)

    def _due(self, desk: _Desk) -> float:
        return desk.since + (self._timeout_s if desk.ready else max(self._timeout_s, LOADING_S))

    def _heard(self, desk: _Desk, message: Message) -> Iterator[tuple[Input, Outcome]]:
        if isinstance(message, Trouble):
            raise message.error
        if isinstance(message, Ready):
            desk.ready, self._records = True, message.records
        elif isinstance(message, InputResult):
            yield desk.given.popleft(), message
        elif isinstance(message, MadeSample):
            yield desk.given[0], message

    def _bury(self, desk: _Desk, lost: WorkerLost, waiting: deque[Input]) -> Iterator[tuple[Input, WorkerLost]]:
        self._desks.remove(desk)
        desk.seat.kill()
        if not desk.ready:
            raise UserError(f"loading the models {lost}; is there memory for so many workers?")
        if desk.given:
            culprit = desk.given.popleft()
            waiting.extendleft(reversed(desk.given))
            yield culprit, lost
