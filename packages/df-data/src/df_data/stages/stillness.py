"""Images that stand still while time goes on: a frozen picture, a pause of the encoder, a photograph.

The crop is averaged over squares of 16 pixels (of 256), which takes away noise and most of what a codec does to an
image that does not change. A frame *stands still* if no square differs from the frame before by ``MOST_CHANGE`` grey
values. A living face always moves somewhere: how often it is taken for frozen is in ``docs/results/stages.md``. Sources
of a low rate repeat single images; those runs are shorter than ``LEAST_RUN``.

Shape legend: T frames, S side of the crop, Q squares a side.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from df_data.common.timing import timed
from df_models.settings import FrozenModel

SQUARES = 16
MOST_CHANGE = 0.8
"""Grey values of 255; frozen and encoded anew: below 0.5 between key frames. Living faces: 1.2 in 1 of 20 frames."""
LEAST_RUN = 5
"""Frames: 0.2 s; an image of a source of 6 fps lasts four."""
MOST_PULSE = 3 * MOST_CHANGE
"""One change up to this between two standing frames does not end a run: a key frame renews the whole image."""


class FrozenFilter(FrozenModel):
    """When a sample counts as frozen.

    Attributes:
        enabled: off, the score ``frozen_share`` does not exist.
        max_share: a sample with a larger share of frozen frames is left out; a stretch of which no sample is left is
            refused (``frozen_picture``).
    """

    enabled: bool = True
    max_share: float = Field(default=0.2, ge=0, le=1)


@timed("stillness")
def frozen_frames(frames_TSSC: np.ndarray) -> np.ndarray:
    """Return which frames of a crop belong to a run that stands still, bool ``[T]``.

    Args:
        frames_TSSC: uint8 RGB, 256 pixels a side or more.
    """
    return still_runs(changes(frames_TSSC))


def changes(frames_TSSC: np.ndarray) -> np.ndarray:
    """Return the largest change of a square from each frame to the next, grey values, float64 ``[T - 1]``."""
    num, size = frames_TSSC.shape[:2]
    side = size // SQUARES
    green = frames_TSSC[:, : side * SQUARES, : side * SQUARES, 1].reshape(num, SQUARES, side, SQUARES, side)
    squares_TQQ = green.mean(axis=(2, 4), dtype=np.float64)
    return np.abs(np.diff(squares_TQQ, axis=0)).max(axis=(1, 2)) if num > 1 else np.zeros(0)


def still_runs(change: np.ndarray) -> np.ndarray:
    """Return which of T frames stand still for long enough, bool ``[T]``, of T - 1 changes."""
    still = change < MOST_CHANGE
    pulse = still[:-2] & (change[1:-1] < MOST_PULSE) & still[2:]
    still[1:-1] |= pulse
    frozen = np.zeros(len(change) + 1, dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(np.int8)))
    for first, after in zip(edges[::2].tolist(), edges[1::2].tolist()):
        if after - first >= LEAST_RUN:
            frozen[first : after + 1] = True
    return frozen
