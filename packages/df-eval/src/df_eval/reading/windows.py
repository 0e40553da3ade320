"""Windows of a video that is too long to be held: its frames come, the wanted windows go out, the rest is dropped.

Shape suffixes: B clips, P pixel frames that come together, W pixel frames of a window, H width and height.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


def window_ends(frames: int, window: int, at: Sequence[int]) -> list[int]:
    """After how many frames windows end: at the places named, then each time the video has doubled, and at its end."""
    ends = {end for end in at if window <= end <= frames}
    last = max(at)
    while (last := 2 * last - 1) < frames:
        ends.add(last)
    return sorted(ends | {frames})


def windows_of(stream: Iterable[np.ndarray], window: int, ends: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (end, ``[B, W, H, W, 3]``) for each of the ends, which rise.

    Args:
        stream: pieces ``[B, P, H, W, 3]`` of any lengths. No more than a window and a piece of it is held.
    """
    wanted = deque(ends)
    held: deque[np.ndarray] = deque(maxlen=window)
    count = 0
    for piece in stream:
        for index in range(piece.shape[1]):
            if not wanted:
                return
            if count >= wanted[0] - window:
                held.append(piece[:, index].copy())  # a view would hold the whole piece
            count += 1
            if count == wanted[0]:
                yield wanted.popleft(), np.stack(held, axis=1)
                if wanted and count < wanted[0] - window:
                    held.clear()
        del piece
