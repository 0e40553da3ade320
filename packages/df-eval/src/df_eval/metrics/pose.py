"""Head pose and blinks of one clip, in degrees and events per minute.

Shape suffixes: T pixel frames, A angles (yaw, pitch, roll).
"""

from __future__ import annotations

import numpy as np

from df_eval.metrics.pair import Pair
from df_models.time import FPS

CLOSED = 0.5
"""A blink begins when the eye's closure rises to this (0 open, 1 closed) ..."""

REOPENED = 0.35
"""... and is over when it falls below this; in between is one blink."""


def _valid(angles_TA: np.ndarray, mask_T: np.ndarray | None) -> np.ndarray:
    valid_T = np.asarray(np.isfinite(angles_TA).all(axis=1))
    return valid_T if mask_T is None else valid_T & mask_T.astype(bool)


def average_pose_distance(read_TA: np.ndarray, true_TA: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """APD: mean |difference| over the angles and the read frames, degrees. Misses are left out."""
    keep = _valid(read_TA, mask_T) & np.isfinite(true_TA).all(axis=1)
    if not keep.any():
        return Pair.undefined("no frame was read")
    return Pair(float(np.abs(read_TA[keep] - true_TA[keep]).mean()))


def pose_spread(angles_TA: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """Standard deviation over time of each angle, averaged over the angles, degrees."""
    keep = _valid(angles_TA, mask_T)
    if keep.sum() < 2:
        return Pair.undefined("fewer than 2 frames were read")
    return Pair(float(angles_TA[keep].std(axis=0).mean()))


def pose_range(angles_TA: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """Largest minus smallest value of each angle, averaged over the angles, degrees."""
    keep = _valid(angles_TA, mask_T)
    if keep.sum() < 2:
        return Pair.undefined("fewer than 2 frames were read")
    return Pair(float(np.ptp(angles_TA[keep], axis=0).mean()))


def pose_speed(angles_TA: np.ndarray, mask_T: np.ndarray | None = None, fps: float = FPS) -> Pair:
    """Mean |change| per second between neighbouring frames that were both read, averaged over the angles, degrees/s."""
    keep = _valid(angles_TA, mask_T)
    both = keep[1:] & keep[:-1]
    if not both.any():
        return Pair.undefined("no two neighbouring frames were read")
    return Pair(float(np.abs(np.diff(angles_TA, axis=0)[both]).mean() * fps))


def count_blinks(closure_T: np.ndarray, mask_T: np.ndarray | None = None) -> int:
    """Closures of the eye, with hysteresis (`CLOSED`, `REOPENED`); frames that were not read change nothing.

    An eye that is closed from the first frame on did not close there: a still image of closed eyes does not blink.
    """
    readable = np.isfinite(closure_T) if mask_T is None else np.isfinite(closure_T) & mask_T.astype(bool)
    blinks, closed = 0, bool(readable.any()) and bool(closure_T[readable][0] >= CLOSED)
    for value in closure_T[readable]:
        if not closed and value >= CLOSED:
            blinks, closed = blinks + 1, True
        elif closed and value < REOPENED:
            closed = False
    return blinks


def blink_rate(closure_T: np.ndarray, mask_T: np.ndarray | None = None, fps: float = FPS) -> Pair:
    """Blinks over minutes that were read: clips pool as total blinks over total minutes."""
    readable = np.isfinite(closure_T) if mask_T is None else np.isfinite(closure_T) & mask_T.astype(bool)
    if not readable.any():
        return Pair.undefined("no frame was read")
    return Pair(float(count_blinks(closure_T, mask_T)), float(readable.sum()) / fps / 60.0)
