"""Frames on a steady clock: which image stands for each tick of 25 fps, decided by time stamps as they come.

Shape legend: F source frames, T ticks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Image = TypeVar("Image")

TOLERANCE_S = 1e-6
"""A tick this little past the middle between two images still takes the earlier one."""
RECENT = 256
"""Frames whose intervals are remembered: 10 s at 25 fps, enough for a median, short enough to follow a change."""


@dataclass(frozen=True)
class Tick(Generic[Image]):
    """One moment of the steady clock.

    Attributes:
        run: number of the unbroken stretch of time stamps; a gap begins another one.
        index: place within the run; tick k is ``k / fps`` after the run's first time stamp.
        start: that first time stamp, in seconds.
        interval: mean distance of the run's latest time stamps, in seconds.
        image: the one whose time stamp is nearest.
    """

    run: int
    index: int
    start: float
    interval: float
    image: Image


def steady_ticks(
    stamped: Iterable[tuple[float, Image]], fps: float, max_gap_s: float, duration_s: float
) -> Iterator[Tick[Image]]:
    """Yield the ticks of rising time stamps, holding one image at a time.

    Nearest, rather than the frame on display, because its error has no sign: half a source frame at most, 0 on average,
    so audio and lips stay together. A tie takes the earlier frame. A run lasts to the end of its last frame, which is
    shown as long as the median of the frames before it; images whose stamp does not rise are passed over.

    Args:
        stamped: (time stamp in seconds, image).
        max_gap_s: time stamps further apart than this are two runs, with nothing between them.
        duration_s: how long a frame is shown as long as there are no two to tell.
    """
    run, start, next_tick = -1, 0.0, 0
    last: tuple[float, Image] | None = None
    recent: deque[float] = deque(maxlen=RECENT)

    def ticks_until(limit: float, image: Image) -> Iterator[Tick[Image]]:
        nonlocal next_tick
        interval = float(np.mean(recent)) if recent else duration_s
        while start + next_tick / fps - TOLERANCE_S <= limit:
            yield Tick(run, next_tick, start, interval, image)
            next_tick += 1

    def rest_of_run(last: tuple[float, Image]) -> Iterator[Tick[Image]]:
        shown = float(np.median(recent)) if recent else duration_s
        count = int(np.floor((last[0] - start + shown) * fps + 1e-3))
        yield from ticks_until(start + (count - 1) / fps, last[1])

    for time, image in stamped:
        if last is not None and time <= last[0]:
            continue
        if last is not None and time - last[0] <= max_gap_s:
            recent.append(time - last[0])
            yield from ticks_until((last[0] + time) / 2, last[1])
        else:
            if last is not None:
                yield from rest_of_run(last)
            run, start, next_tick = run + 1, time, 0
            recent.clear()
        last = (time, image)
    if last is not None:
        yield from rest_of_run(last)
