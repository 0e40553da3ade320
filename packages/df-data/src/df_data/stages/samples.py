"""What a sample is worth by itself: a stretch may be good as a whole and hold a second that is not.

Shape legend: T frames of the sample, W = windows of 32 ms (:mod:`df_data.stages.voice`).
"""

from __future__ import annotations

import numpy as np

from df_data.stages.voice import WINDOW
from df_models.time import FPS, SAMPLE_RATE

FROZEN = "frozen_picture"
STILL_LIPS = "still_lips"
MOSTLY_SPEECH = 0.5
"""Share of a sample's frames with speech from which lips ought to move."""


def speech_frames(speech_W: np.ndarray, num_frames: int) -> np.ndarray:
    """Return for each frame whether the window at its middle has speech, bool ``[num_frames]``."""
    middle = (np.arange(num_frames) + 0.5) * SAMPLE_RATE / FPS
    return speech_W[np.minimum((middle / WINDOW).astype(int), len(speech_W) - 1)]


def is_frozen(frozen_T: np.ndarray, max_share: float) -> bool:
    """Return whether more of a sample's frames stand still than may."""
    return bool(frozen_T.mean() > max_share)


def lips_are_still(mouth_open_T: np.ndarray, speech_T: np.ndarray, min_std: float | None) -> bool:
    """Return whether the lips of a sample stand still while somebody speaks for most of it.

    Args:
        mouth_open_T: opening of the mouth in neutral face heights.
        min_std: least standard deviation of it over the frames with speech; None: lips may do as they like.
    """
    if min_std is None or speech_T.mean() < MOSTLY_SPEECH:
        return False
    return bool(mouth_open_T[speech_T].std() < min_std)
