"""Gaze and expression of one clip, from landmarks.

Shape suffixes: T pixel frames, K keypoints, 2 = x, y.
"""

from __future__ import annotations

import numpy as np

from df_eval.metrics.pair import Pair
from df_eval.metrics.signals import MIN_FRAMES


def gaze_distance(read_T2: np.ndarray, true_T2: np.ndarray) -> Pair:
    """Mean distance of read and true gaze over the frames that were read in both, in eye widths."""
    return _mean(np.linalg.norm(read_T2 - true_T2, axis=-1))


def gaze_amplitude(read_T2: np.ndarray, true_T2: np.ndarray) -> Pair:
    """Spread of the read gaze over time about its mean, over the truth's: clips pool as sums of either."""
    both = np.isfinite(read_T2).all(axis=1) & np.isfinite(true_T2).all(axis=1)
    if both.sum() < MIN_FRAMES:
        return Pair.undefined(f"fewer than {MIN_FRAMES} frames were read")
    read, true = (float(np.sqrt(gaze[both].var(axis=0).sum())) for gaze in (read_T2, true_T2))
    return Pair(read, true)


def keypoint_distance(read_TK2: np.ndarray, true_TK2: np.ndarray) -> Pair:
    """Mean distance of the keypoints, in the offsets' unit, over the frames that were read in both.

    Each is taken from its own median over these frames, so that the same video read at another length is no other face.
    """
    both = np.isfinite(read_TK2).all(axis=(1, 2)) & np.isfinite(true_TK2).all(axis=(1, 2))
    if not both.any():
        return Pair.undefined("no frame was read in both")
    read, true = (offsets[both] - np.median(offsets[both], axis=0) for offsets in (read_TK2, true_TK2))
    return Pair(float(np.linalg.norm(read - true, axis=-1).mean()))


def _mean(distance_T: np.ndarray) -> Pair:
    seen = np.isfinite(distance_T)
    return Pair(float(distance_T[seen].mean())) if seen.any() else Pair.undefined("no frame was read in both")
