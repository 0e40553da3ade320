"""Shot cuts: a clip of a talking head is one shot.

A cut is a jump of the picture's colours that no motion of one shot makes: the distance of the colour histograms of
neighbouring frames is large, and large against its neighbours in time.

Shape legend: T frames, H height, W width, G grid cells, K histogram bins.
"""

from __future__ import annotations

import itertools

import numpy as np

from df_data.timing import timed

GRID = 4
BINS = 8
THRESHOLD = 0.18
"""Least mean histogram distance (0 equal, 1 disjoint) of a cut, over a 4x4 grid of cells."""
CONTRAST = 4.0
"""A cut stands out this much against the median of the changes within half a second."""
NEAR = 12


def histogram_changes(frames_THWC: np.ndarray) -> np.ndarray:
    """Return float64 ``[T - 1]``: the mean distance of the cells' colour histograms, frame to frame, in [0, 1]."""
    previous: np.ndarray | None = None
    changes = []
    for frame in frames_THWC:
        current = _histograms(frame)
        if previous is not None:
            changes.append(0.5 * np.abs(current - previous).sum(axis=1).mean())
        previous = current
    return np.array(changes)


@timed("shots")
def shot_cuts(frames_THWC: np.ndarray) -> list[int]:
    """Return the indices of the frames that begin a new shot (never 0)."""
    changes = histogram_changes(frames_THWC)
    cuts = []
    for index in np.flatnonzero(changes > THRESHOLD):
        around = changes[max(0, index - NEAR) : index + NEAR + 1]
        if changes[index] >= CONTRAST * np.median(around) and changes[index] == around.max():
            cuts.append(int(index) + 1)
    return cuts


def longest_shot(cuts: list[int], num_frames: int) -> tuple[int, int]:
    """Return the longest stretch between cuts as (first frame, frame after the last)."""
    edges = [0, *cuts, num_frames]
    return max(itertools.pairwise(edges), key=lambda span: span[1] - span[0])


def _histograms(frame_HWC: np.ndarray) -> np.ndarray:
    """float64 ``[G * 3, K]``: per cell and channel, sums to 1. Frames are thinned to about 64 rows first."""
    step = max(1, frame_HWC.shape[0] // 64)
    small = frame_HWC[::step, ::step]
    bins = small.astype(np.int64) * BINS // 256
    rows = np.arange(small.shape[0]) * GRID // small.shape[0]
    columns = np.arange(small.shape[1]) * GRID // small.shape[1]
    cell = rows[:, None] * GRID + columns[None]
    flat = ((cell[..., None] * 3 + np.arange(3)) * BINS + bins).reshape(-1)
    counts = np.bincount(flat, minlength=GRID * GRID * 3 * BINS).reshape(-1, BINS).astype(np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
