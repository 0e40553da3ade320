from __future__ import annotations

from collections.abc import Iterator

import pytest

from df_data.common.timing import stage, stopwatch, timed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_every_second_counts_once() -> None:
    clock = Clock()

    @timed("inner")
    def inner() -> str:
        clock.now += 2
        return "done"

    with stopwatch(clock) as watch:
        clock.now += 1
        with stage("outer"):
            clock.now += 4
            assert inner() == "done"
            clock.now += 8
        inner()
        with watch.counting(None):
            clock.now += 100
    assert watch.seconds == {"other": 1, "outer": 12, "inner": 4}


def test_a_generator_counts_until_each_value_and_not_what_is_done_with_it() -> None:
    clock, closed = Clock(), []

    @timed("steps")
    def steps(count: int) -> Iterator[int]:
        try:
            for index in range(count):
                clock.now += 1
                yield index
            clock.now += 0.5
        finally:
            closed.append(True)

    with stopwatch(clock) as watch:
        for _ in steps(3):
            clock.now += 10
        next(steps(3))
    assert watch.seconds == {"steps": 4.5, "other": 30}
    assert closed == [True, True]


def test_without_a_stopwatch_nothing_is_measured_and_errors_pass() -> None:
    with stage("any"):
        pass
    clock = Clock()

    @timed("broken")
    def broken() -> None:
        clock.now += 3
        raise ValueError("inside")

    with stopwatch(clock) as watch, pytest.raises(ValueError, match="inside"):
        broken()
    clock.now += 1
    assert watch.seconds == {"broken": 3, "other": 0}
