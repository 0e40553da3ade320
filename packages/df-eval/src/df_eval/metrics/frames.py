"""Pixel metrics of one clip. Frames are uint8 or float in [0, 1], [T, H, W, 3].

Shape suffixes: T pixel frames, H W height and width, C channels.
"""

from __future__ import annotations

import math

import numpy as np

from df_eval.metrics.pair import Pair

LUMA = np.array([0.299, 0.587, 0.114])


def as_float(frames_THWC: np.ndarray) -> np.ndarray:
    """Frames as float64 in [0, 1]."""
    if frames_THWC.dtype == np.uint8:
        return frames_THWC.astype(np.float64) / 255.0
    return frames_THWC.astype(np.float64)


def psnr(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> Pair:
    """Peak signal-to-noise ratio in dB, from the mean squared error over the whole clip (peak 1)."""
    error = float(((as_float(frames_THWC) - as_float(true_THWC)) ** 2).mean())
    if error == 0:
        return Pair.undefined("identical to the truth")
    return Pair(-10.0 * math.log10(error))


def ssim(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> Pair:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, borders cropped, K 0.01 and 0.03).

    Mean over pixels, channels and frames, peak 1. Frames must be at least 11 pixels high and wide.
    """

    def images(frames: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(as_float(frames).transpose(0, 3, 1, 2))

    def window(x_TCHW: np.ndarray) -> np.ndarray:
        return gaussian_band(x_TCHW.shape[2]).T @ (x_TCHW @ gaussian_band(x_TCHW.shape[3]))

    a, b = images(frames_THWC), images(true_THWC)
    mean_a, mean_b = window(a), window(b)
    var_a, var_b = window(a * a) - mean_a**2, window(b * b) - mean_b**2
    covariance = window(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    return Pair(float((top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))).mean()))


def gaussian_band(size: int, sigma: float = 1.5, radius: int = 5) -> np.ndarray:
    """Filtering by a Gaussian, borders cropped, as a matrix: float64 [size, size - 2 * radius]."""
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    offset = np.arange(size)[:, None] - np.arange(size - 2 * radius)[None, :]
    inside = (offset >= 0) & (offset <= 2 * radius)
    return np.where(inside, taps[np.clip(offset, 0, 2 * radius)] / taps.sum(), 0.0)


def motion_energy(frames_THWC: np.ndarray) -> Pair:
    """Mean absolute change of a pixel value from one frame to the next, in grey levels of 255."""
    if len(frames_THWC) < 2:
        return Pair.undefined("one frame has no motion")
    return Pair(float(np.abs(np.diff(as_float(frames_THWC), axis=0)).mean() * 255.0))


def motion_ratio(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> Pair:
    """`motion_energy` over the truth's; clips pool as sum over sum."""
    energy, truth = motion_energy(frames_THWC), motion_energy(true_THWC)
    if not (energy.defined and truth.defined):
        return energy
    if truth.numerator == 0:
        return Pair.undefined("the truth does not move")
    return Pair(energy.numerator, truth.numerator)


def sharpness(frames_THWC: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian of the luma (grey levels of 255) in every frame: float [T]."""
    luma = as_float(frames_THWC) @ LUMA * 255.0
    centre = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * centre
    return laplacian.var(axis=(1, 2))
