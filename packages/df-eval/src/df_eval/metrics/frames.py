"""Pixel metrics of one clip. Frames are uint8 or float in [0, 1], [T, H, W, 3].

Shape suffixes: T pixel frames, H W height and width, C channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from df_eval.metrics.pair import Pair

LUMA = np.array([0.299, 0.587, 0.114])
_BORDER = 5
"""Half of SSIM's window of 11 pixels."""
_ROUNDING = 1e-3
"""Beyond 0 and 1, as resizing leaves it; less than half a grey level."""
_TOGETHER = 16
"""Frames whose SSIM is computed at once: torchmetrics keeps five filtered copies of them."""


def as_float(frames_THWC: np.ndarray) -> np.ndarray:
    """Frames as float64 in [0, 1].

    Raises:
        ValueError: they are in another range, such as [-1, 1] or floats of 0 to 255, whose numbers would look right.
    """
    if frames_THWC.dtype == np.uint8:
        return frames_THWC.astype(np.float64) / 255.0
    least, most = float(frames_THWC.min()), float(frames_THWC.max())
    if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # NaN is neither
        raise ValueError(f"frames are of {least:g} to {most:g}; give uint8, or floats of 0 to 1")
    return frames_THWC.astype(np.float64)


def psnr(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> Pair:
    """Peak signal-to-noise ratio in dB, from the mean squared error over the whole clip (peak 1; torchmetrics)."""
    value = float(peak_signal_noise_ratio(_images(frames_THWC), _images(true_THWC), data_range=1.0))
    return Pair(value) if math.isfinite(value) else Pair.undefined("identical to the truth")


def ssim(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> Pair:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, borders cropped, K 0.01 and 0.03).

    Mean over pixels, channels and frames, peak 1, in float32 by torchmetrics. Frames must be at least 11 pixels high
    and wide.
    """
    pairs = zip(_images(frames_THWC).split(_TOGETHER), _images(true_THWC).split(_TOGETHER))
    each = [_ssim_of_frames(*pair) for pair in pairs]
    return Pair(float(torch.cat(each).mean()))


def _ssim_of_frames(a_TCHW: torch.Tensor, b_TCHW: torch.Tensor) -> torch.Tensor:
    """The mean of each frame without its borders, which torchmetrics mirrors and counts, and Wang does not."""
    options = {"data_range": 1.0, "reduction": "none", "return_full_image": True}
    _, map_TCHW = structural_similarity_index_measure(a_TCHW, b_TCHW, **options)
    return map_TCHW[..., _BORDER:-_BORDER, _BORDER:-_BORDER].mean(dim=(1, 2, 3))


def _images(frames_THWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(as_float(frames_THWC).astype(np.float32)).permute(0, 3, 1, 2)


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


def flicker(frames_THWC: np.ndarray) -> Pair:
    """Mean absolute second difference of a pixel over time, in grey levels of 255.

    Over the whole image: which part of a video stands still cannot be known without another network, and a part chosen
    by the video's own changes could be chosen to look well. The second difference takes no count of steady changes,
    so slow motion weighs little.
    """
    if len(frames_THWC) < 3:
        return Pair.undefined("fewer than 3 frames cannot flicker")
    return Pair(float(np.abs(np.diff(as_float(frames_THWC), n=2, axis=0)).mean() * 255.0))


def sharpness(frames_THWC: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian of the luma (grey levels of 255) in every frame: float [T]."""
    luma = as_float(frames_THWC) @ LUMA * 255.0
    centre = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * centre
    return laplacian.var(axis=(1, 2))
