"""Shot cuts: a clip of a talking head is one shot.

A *cut* is a jump of the image's colours that no motion of one shot makes: the distance of the colour histograms of
neighbouring frames is large, and large against its neighbours in time. An image that is back within five frames was
a flash. A *jump cut*, which leaves out some of one take, hardly changes the colours, but things move further from one
frame to the next than from any other frames around. What changes without a jump is found by
:mod:`df_data.stages.transitions`. How well all are found and what is taken for one is measured in
``docs/results/stages.md``.

Shape legend: T frames, H height, W width, G grid cells, K histogram bins, B = 12 blocks a side.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from df_data.common.timing import timed
from df_data.stages.transitions import transitions

GRID = 4
BINS = 8
THRESHOLD = 0.18
"""Least mean histogram distance (0 equal, 1 disjoint) of a cut, over a 4x4 grid of cells."""
CONTRAST = 4.0
"""A cut stands out this much against the median of the changes within half a second."""
NEAR = 12
NEIGHBOURS = 3
STEEP = 2.5
"""And this much against the largest change of three frames on either side: a fast turn of the head takes several."""
BLOCKS = 12
JUMP = 3.0
"""A jump cut moves the image (mean of its blocks) this much further than any of four frames on either side."""
LEAST_JUMP = 1.0
"""Grey values: a key frame changes an image that stands still by less."""
AROUND = 4
FLASH = 4
"""Most frames that a flash lights, or a blank image fills; a shot is longer."""


@timed("shots")
def shot_cuts(frames_THWC: np.ndarray) -> list[int]:
    """Return the indices of the frames that begin a new shot (never 0); a transition is a shot of its own."""
    histograms = [_histograms(frame) for frame in frames_THWC]
    cuts = sorted({*hard_cuts(histograms), *jump_cuts(block_means(frames_THWC))})
    edges = [0, *cuts, len(frames_THWC)]
    for first, after in itertools.pairwise(edges):
        for found in transitions(np.stack(histograms[first:after])):
            cuts += [first + found.start, first + found.stop]
    return sorted(set(cuts))


def hard_cuts(histograms: Sequence[np.ndarray]) -> list[int]:
    """Return the frames at which the image's colours jump."""
    changes = np.array([_distance(a, b) for a, b in itertools.pairwise(histograms)])
    changes = without_flashes(changes, histograms)
    cuts = []
    for index in np.flatnonzero(changes > THRESHOLD).tolist():
        around = changes[max(0, index - NEAR) : index + NEAR + 1]
        beside = np.delete(changes[max(0, index - NEIGHBOURS) : index + NEIGHBOURS + 1], min(index, NEIGHBOURS))
        if changes[index] < CONTRAST * np.median(around) or changes[index] < around.max():
            continue
        if not len(beside) or changes[index] >= STEEP * beside.max():
            cuts.append(index + 1)
    return cuts


def jump_cuts(blocks_TB: np.ndarray) -> list[int]:
    """Return the frames at which things move further than around them, and stay there.

    Args:
        blocks_TB: of :func:`block_means`.
    """
    steps = np.abs(np.diff(blocks_TB, axis=0)).mean(axis=1)
    cuts = []
    for index in range(1, len(steps) - 1):
        before, after = steps[max(0, index - AROUND) : index], steps[index + 1 : index + 1 + AROUND]
        if steps[index] < max(LEAST_JUMP, JUMP * before.max(), JUMP * after.max()):
            continue
        later = blocks_TB[index + 2 : index + 2 + FLASH]
        if np.abs(later - blocks_TB[index]).mean(axis=1).min() >= steps[index] / 2:
            cuts.append(index + 1)
    return cuts


def block_means(frames_THWC: np.ndarray) -> np.ndarray:
    """Return the mean colours of 12x12 blocks, float32 ``[T, B * B * 3]``, of frames thinned to about 128 rows."""
    step = max(1, frames_THWC.shape[1] // 128)
    height, width = (side // step // BLOCKS * BLOCKS for side in frames_THWC.shape[1:3])
    if not height or not width:
        return np.zeros((len(frames_THWC), 1), np.float32)
    found = []
    for frame in frames_THWC:
        small = frame[::step, ::step][:height, :width]
        blocks = small.reshape(BLOCKS, height // BLOCKS, BLOCKS, width // BLOCKS, 3)
        found.append(blocks.mean(axis=(1, 3), dtype=np.float32).reshape(-1))
    return np.stack(found)


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
