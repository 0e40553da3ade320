"""Lips of one clip beyond correlation: distance of landmarks, alignment in time, and what they do in silence.

Shape suffixes: T pixel frames, K landmarks of the lips, N samples at 16 kHz, B tables of R rows and C columns.
"""

from __future__ import annotations

import numpy as np

from df_eval.metrics.pair import Pair
from df_eval.metrics.signals import MIN_FRAMES, common_mask
from df_models.time import samples_for

GAMMA = 0.1
"""Of soft-DTW, in variances of the true mouth."""
SILENT_DB = 30.0
"""A frame whose sound lies this far below the clip's loudest frame is silent. The quietest frames of
three GRID clips lie 34 to 47 dB below."""
SETTLING = 3
"""Frames after sound and before it that do not count as silence: lips close late and open early."""


def landmark_distance(read_TK2: np.ndarray, true_TK2: np.ndarray, true_eyes_T: np.ndarray) -> Pair:
    """LMD: mean distance of the lips' landmarks to the truth's, over the distance of the true eyes.

    The lips of either video are centred on their own mean in every frame first, so that only their shape (with its
    size and tilt) counts, as in Chen et al. 2018 ("Lip movements generation at a glance"), who divide by nothing.
    """
    read, true = (lips - lips.mean(axis=1, keepdims=True) for lips in (read_TK2, true_TK2))
    distance_T = np.linalg.norm(read - true, axis=-1).mean(axis=1) / true_eyes_T
    seen = np.isfinite(distance_T)
    return Pair(float(distance_T[seen].mean())) if seen.any() else Pair.undefined("no frame was read in both")


def soft_dtw(costs_BRC: np.ndarray, gamma: float) -> np.ndarray:
    """Soft-DTW of tables of costs, float64 [B] (Cuturi and Blondel 2017, algorithm 1), diagonal by diagonal.

    ``r[i, j] = cost[i, j] + softmin(r[i-1, j], r[i, j-1], r[i-1, j-1])``, softmin of temperature ``gamma``.
    """
    tables, rows, columns = costs_BRC.shape
    table = np.full((tables, rows + 1, columns + 1), np.inf)
    table[:, 0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([table[:, i - 1, j], table[:, i, j - 1], table[:, i - 1, j - 1]])
        least = before.min(axis=0)
        soft = least - gamma * np.log(np.exp(-(before - least) / gamma).sum(axis=0))
        table[:, i, j] = costs_BRC[:, i - 1, j - 1] + soft
    return table[:, -1, -1]


def soft_dtw_divergence(a_T: np.ndarray, b_T: np.ndarray, gamma: float = GAMMA) -> float:
    """Soft-DTW of squared differences, made zero for equal signals (Blondel et al. 2021)."""
    pairs = ((a_T, b_T), (a_T, a_T), (b_T, b_T))
    costs = np.stack([np.square(x[:, None] - y[None, :]) for x, y in pairs])
    across, own, other = soft_dtw(costs, gamma)
    return float(across - 0.5 * (own + other))


def aligned_distance(read_T: np.ndarray, true_T: np.ndarray) -> Pair:
    """Soft-DTW divergence of two mouth openings per frame, both standardised by the truth's mean and deviation.

    About 0 for the truth itself; small where the same movements come a little early or late. Only frames that were read
    in both enter.
    """
    keep = common_mask(read_T, true_T)
    if keep.sum() < MIN_FRAMES:
        return Pair.undefined(f"fewer than {MIN_FRAMES} frames were read")
    read, true = read_T[keep], true_T[keep]
    deviation = float(np.std(true))
    if deviation <= 1e-12:
        return Pair.undefined("the true signal is constant")
    mean = true.mean()
    return Pair(soft_dtw_divergence((read - mean) / deviation, (true - mean) / deviation) / len(read))


def silent_frames(wave_N: np.ndarray, frames: int) -> np.ndarray:
    """Frames that lie in silence, `SETTLING` frames away from any sound: bool [T]."""
    needed = samples_for(frames)
    wave = np.pad(wave_N.astype(np.float64), (0, max(0, needed - len(wave_N))))[:needed]
    power_T = np.square(wave.reshape(frames, -1)).mean(axis=1)
    loud_T = power_T > power_T.max() * 10 ** (-SILENT_DB / 10)
    near_T = np.convolve(loud_T, np.ones(2 * SETTLING + 1), mode="same") > 0
    return ~near_T


def silent_movement(read_T: np.ndarray, true_T: np.ndarray, silent_T: np.ndarray) -> Pair:
    """Mean absolute change of the mouth opening per frame in silence, in standard deviations of the true mouth."""
    both = silent_T[1:] & silent_T[:-1] & np.isfinite(np.diff(read_T))
    deviation = float(np.nanstd(true_T)) if np.isfinite(true_T).any() else 0.0
    if both.sum() < MIN_FRAMES:
        return Pair.undefined(f"fewer than {MIN_FRAMES} silent frames were read")
    if deviation <= 1e-12:
        return Pair.undefined("the true signal is constant")
    return Pair(float(np.abs(np.diff(read_T))[both].mean()) / deviation)
