"""Identity of one clip against its reference image and itself, over time.

Shape suffixes: T pixel frames, D identity features.
"""

from __future__ import annotations

import numpy as np

from df_eval.metrics.pair import Pair

QUARTERS = 4


def identity_distance(identity_TD: np.ndarray, reference_D: np.ndarray) -> np.ndarray:
    """RMS difference of every frame's identity vector to the reference image's: float [T], NaN where not read.

    That is the Euclidean distance over sqrt(D): the reference-to-frame variant of ACD (not the average over pairs of
    frames). Between two random people of the synthetic corpus, whose vectors are standardised, it is about 1.4.
    """
    return np.sqrt(np.mean((identity_TD.astype(np.float64) - reference_D.astype(np.float64)) ** 2, axis=1))


def quarter_means(values_T: np.ndarray, mask_T: np.ndarray | None = None) -> np.ndarray:
    """Mean over the read frames of each quarter of the clip: float [4], NaN for a quarter without a read frame."""
    readable = np.isfinite(values_T) if mask_T is None else np.isfinite(values_T) & mask_T.astype(bool)
    parts = np.array_split(np.arange(len(values_T)), QUARTERS)
    return np.array([values_T[part[readable[part]]].mean() if readable[part].any() else np.nan for part in parts])


def mean_over_time(values_T: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """Mean over the read frames."""
    readable = np.isfinite(values_T) if mask_T is None else np.isfinite(values_T) & mask_T.astype(bool)
    return Pair(float(values_T[readable].mean())) if readable.any() else Pair.undefined("no frame was read")


def last_over_first(values_T: np.ndarray, mask_T: np.ndarray | None = None) -> Pair:
    """Last quarter over first quarter (1: no drift). Clips pool as sum of last over sum of first quarters."""
    quarters = quarter_means(values_T, mask_T)
    if not np.isfinite(quarters[[0, -1]]).all():
        return Pair.undefined("no frame was read in the first or last quarter")
    if quarters[0] == 0:
        return Pair.undefined("the first quarter is exactly 0")
    return Pair(float(quarters[-1]), float(quarters[0]))


def unit_vectors(identity_TD: np.ndarray) -> np.ndarray:
    """Every frame's vector at length 1: float64 [T, D], NaN where not read."""
    vectors = identity_TD.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def cosine_to_reference(identity_TD: np.ndarray, reference_D: np.ndarray) -> Pair:
    """CSIM: cosine of every frame's vector with the reference image's, mean over the read frames."""
    return mean_over_time(unit_vectors(identity_TD) @ unit_vectors(reference_D))


def distance_to_reference(identity_TD: np.ndarray, reference_D: np.ndarray) -> Pair:
    """ACD to the reference: Euclidean distance of unit vectors, sqrt(2 - 2 cosine) per frame, mean over read frames."""
    return mean_over_time(np.linalg.norm(unit_vectors(identity_TD) - unit_vectors(reference_D), axis=1))


def pairwise_distance(identity_TD: np.ndarray) -> Pair:
    """ACD as MoCoGAN has it: Euclidean distance of unit vectors, mean over all pairs of two frames of the video."""
    vectors = unit_vectors(identity_TD)
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    if len(vectors) < 2:
        return Pair.undefined("fewer than 2 frames were read")
    squares = np.maximum(2.0 - 2.0 * vectors @ vectors.T, 0.0)
    return Pair(float(np.sqrt(squares[np.triu_indices(len(vectors), 1)]).mean()))
