"""Shot cuts: a clip of a talking head is one shot.

A cut is a jump of the image's colours that no motion of one shot makes: the distance of the colour histograms of
neighbouring frames is large, and large against its neighbours in time. An image that is back within five frames was
a flash. How well cuts are found and what is taken for one is measured in ``docs/results/stages.md``.

Shape legend: T frames, H height, W width, G grid cells, K histogram bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from df_data.common.timing import timed

GRID = 4
BINS = 8
THRESHOLD = 0.18
"""Least mean histogram distance (0 equal, 1 disjoint) of a cut, over a 4x4 grid of cells."""
CONTRAST = 4.0
"""A cut stands out this much against the median of the changes within half a second."""
NEAR = 12
FLASH = 4
"""Most frames that a flash lights, or a blank image fills; a shot is longer."""


@timed("shots")
def shot_cuts(frames_THWC: np.ndarray) -> list[int]:
    """Return the indices of the frames that begin a new shot (never 0)."""
    histograms = [_histograms(frame) for frame in frames_THWC]
    changes = np.array([_distance(a, b) for a, b in itertools.pairwise(histograms)])
    changes = without_flashes(changes, histograms)
    cuts = []
    for index in np.flatnonzero(changes > THRESHOLD):
        around = changes[max(0, index - NEAR) : index + NEAR + 1]
        if changes[index] >= CONTRAST * np.median(around) and changes[index] == around.max():
            cuts.append(int(index) + 1)
    return cuts


def without_flashes(changes: np.ndarray, histograms: Sequence[np.ndarray]) -> np.ndarray:
    """Return the changes ``[T - 1]`` from frame to frame, 0 where an image is back after at most ``FLASH`` frames."""
    left = changes.copy()
    for index in np.flatnonzero(changes > THRESHOLD).tolist():
        for after in range(index + 2, min(index + 2 + FLASH, len(histograms))):
            if _distance(histograms[index], histograms[after]) < THRESHOLD:
                left[index:after] = 0.0
                break
    return left


def longest_shot(cuts: list[int], num_frames: int) -> tuple[int, int]:
    """Return the longest stretch between cuts as (first frame, frame after the last)."""
    edges = [0, *cuts, num_frames]
    return max(itertools.pairwise(edges), key=lambda span: span[1] - span[0])


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over cells and colours of the distance of two histograms, 0 to 1."""
    return float(0.5 * np.abs(second - first).sum(axis=1).mean())


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
