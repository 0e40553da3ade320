"""Seconds that the stages of one input take, each counted once.

A stage names itself, ``with stage("vae"):`` or ``@timed("shots")``, and knows nothing of who listens. Whoever wants the
seconds opens a :func:`stopwatch`; without one nothing is measured. A stage within a stage takes its seconds from the
outer one, so the seconds of all names together are the time that passed.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
OTHER = "other"
"""Where time goes that passes in no named stage."""


class Stopwatch:
    """Seconds by stage.

    Attributes:
        seconds: what was counted so far, by name.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._open: list[str | None] = [OTHER]
        self._last = clock()

    def charge(self) -> None:
        """Count the time since the last call for the innermost open stage."""
        now = self._clock()
        if (name := self._open[-1]) is not None:
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    @contextmanager
    def counting(self, name: str | None) -> Iterator[None]:
        """Count what passes within for a stage; for None, count it for nobody."""
        self.charge()
        self._open.append(name)
        try:
            yield
        finally:
            self.charge()
            self._open.pop()


_running: ContextVar[Stopwatch | None] = ContextVar("df_data_stopwatch", default=None)


@contextmanager
def stopwatch(clock: Callable[[], float] = time.perf_counter) -> Iterator[Stopwatch]:
    """Measure the stages within; ``time.process_time`` as a clock counts core seconds, of all threads."""
    watch = Stopwatch(clock)
    token = _running.set(watch)
    try:
        yield watch
    finally:
        watch.charge()
        _running.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name the time that passes within."""
    watch = _running.get()
    if watch is None:
        yield
        return
    with watch.counting(name):
        yield


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Name the time that a function takes; of a generator function, the time until each of its values."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(function):
            return functools.wraps(function)(_timed_steps(name, function))  # pyright: ignore[reportReturnType]

        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            with stage(name):
                return function(*args, **options)

        return call

    return decorate


def _timed_steps(name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def steps(*args: Any, **options: Any) -> Iterator[Any]:
        made: Any = function(*args, **options)
        try:
            while True:
                with stage(name):
                    try:
                        value = next(made)
                    except StopIteration:
                        return
                yield value
        finally:
            made.close()

    return steps
