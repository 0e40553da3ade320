"""Pixel metrics of one clip. Frames are uint8 or float in [0, 1], [T, H, W, 3].

What a metric takes of each frame has a function of its own, which goes frame by frame: a clip's frames are never held a
second time in floats, and what was computed of a video is also true of its beginning.

Shape suffixes: T pixel frames, H W height and width, N images of one channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from df_eval.metrics.pair import Pair

LUMA = np.array([0.299, 0.587, 0.114])
WINDOW, SIGMA = 11, 1.5
"""SSIM's Gaussian window in pixels (Wang et al. 2004)."""
C1, C2 = 0.01**2, 0.03**2
"""SSIM's constants for values of 0 to 1."""
TOGETHER = 2**17
"""Values whose SSIM is computed in one go: of small frames several, since calls then cost more than sums."""
_ROUNDING = 1e-3
"""Beyond 0 and 1, as resizing leaves it; less than half a grey level."""


def grey_levels(frame_HWC: np.ndarray) -> np.ndarray:
    """A frame, or several, in levels of 0 to 255: int16 of bytes, else float64.

    Raises:
        ValueError: they are in another range, such as [-1, 1] or floats of 0 to 255, whose numbers would look right.
    """
    if frame_HWC.dtype == np.uint8:
        return frame_HWC.astype(np.int16)
    least, most = float(frame_HWC.min()), float(frame_HWC.max())
    if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):  # NaN is neither
        raise ValueError(f"frames are of {least:g} to {most:g}; give uint8, or floats of 0 to 1")
    return frame_HWC.astype(np.float64) * 255.0


def held_still(frames_THWC: np.ndarray) -> bool:
    """Whether all frames are one image in memory (``np.broadcast_to``): what is taken of one holds for all."""
    return len(frames_THWC) > 1 and frames_THWC.strides[0] == 0


def squared_errors(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> np.ndarray:
    """Mean squared difference of each frame, for values of 0 to 1: float [T]."""
    pairs = zip(frames_THWC, true_THWC, strict=True)
    gaps = (grey_levels(a).astype(np.float64) - grey_levels(b) for a, b in pairs)
    return np.array([float(np.square(gap).mean()) for gap in gaps]) / 255.0**2


def similarities(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> np.ndarray:
    """SSIM of each frame (Wang et al. 2004), mean over the channels and the pixels whose window is whole: float [T].

    In float32. Frames must be at least 11 pixels high and wide.
    """
    if frames_THWC.shape != true_THWC.shape:
        raise ValueError(f"frames are {frames_THWC.shape} and the true ones {true_THWC.shape}")
    together = max(1, TOGETHER // math.prod(frames_THWC.shape[1:]))
    held, means, found = held_still(frames_THWC), None, list[float]()
    for start in range(0, len(frames_THWC), together):
        part = slice(start, start + together)
        planes, true = (torch.cat([_planes(frame) for frame in video[part]]) for video in (frames_THWC, true_THWC))
        if not held or means is None or len(means) < len(planes):
            means = _windowed(planes)
        found += [float(one_3HW.mean()) for one_3HW in _similarities(planes, true, means[: len(planes)]).split(3)]
    return np.array(found)


def _similarities(a_NHW: Tensor, b_NHW: Tensor, mean_a: Tensor) -> Tensor:
    mean_b = _windowed(b_NHW)
    squares, product = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
    variances = _windowed(a_NHW * a_NHW + b_NHW * b_NHW) - squares
    covariance = _windowed(a_NHW * b_NHW) - product
    top = (2 * product + C1) * (2 * covariance + C2)
    return top / ((squares + C1) * (variances + C2))


def _planes(frame_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(grey_levels(frame_HWC).astype(np.float32)).permute(2, 0, 1).contiguous() / 255.0


def _windowed(images_NHW: Tensor) -> Tensor:
    """Weighted means over the windows that lie within the images: down the columns, then along the rows.

    Shifted images are added up, which on a CPU is much faster than torch's 11x11 convolution.
    """
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-np.square(offsets) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):
        size = images_NHW.shape[axis] - WINDOW + 1
        shifted = [images_NHW.narrow(axis, offset, size) for offset in range(WINDOW)]
        total = shifted[0] * float(weights[0])
        for part, weight in zip(shifted[1:], weights[1:], strict=True):
            total.add_(part, alpha=float(weight))
        images_NHW = total
    return images_NHW


def changes(frames_THWC: np.ndarray) -> np.ndarray:
    """Mean absolute change of a pixel value from one frame to the next, in grey levels of 255: float [T - 1]."""
    if held_still(frames_THWC):
        return changes(frames_THWC[:1].repeat(2, axis=0)).repeat(len(frames_THWC) - 1)
    pairs = pairwise(frames_THWC)
    return np.array([float(np.abs(grey_levels(b) - grey_levels(a)).mean()) for a, b in pairs])


def second_changes(frames_THWC: np.ndarray) -> np.ndarray:
    """Mean absolute second difference of a pixel value over time, in grey levels of 255: float [T - 2]."""
    if held_still(frames_THWC):
        return second_changes(frames_THWC[:1].repeat(3, axis=0)).repeat(len(frames_THWC) - 2)
    triples = zip(frames_THWC[:-2], frames_THWC[1:-1], frames_THWC[2:], strict=True)
    gaps = (grey_levels(a) - 2 * grey_levels(b) + grey_levels(c) for a, b, c in triples)
    return np.array([float(np.abs(gap).mean()) for gap in gaps])


def sharpness(frames_THWC: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian of the luma (grey levels of 255) in every frame: float [T]."""
    if held_still(frames_THWC):
        return sharpness(frames_THWC[:1]).repeat(len(frames_THWC))
    return np.array([_laplacian_variance(grey_levels(frame)) for frame in frames_THWC])


def _laplacian_variance(levels_HWC: np.ndarray) -> float:
    red, green, blue = (levels_HWC[..., channel] * LUMA[channel] for channel in range(3))
    luma = red + green + blue
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * luma[1:-1, 1:-1]).var())


def psnr(squared_T: np.ndarray) -> Pair:
    """Peak signal-to-noise ratio in dB, from the mean squared error over the whole clip (peak 1).

    Args:
        squared_T: :func:`squared_errors`.
    """
    mean = float(squared_T.mean())
    return Pair(-10.0 * math.log10(mean)) if mean > 0 else Pair.undefined("identical to the truth")


def ssim(similarities_T: np.ndarray) -> Pair:
    """Mean of :func:`similarities`."""
    return Pair(float(similarities_T.mean()))


def motion_energy(changes_T: np.ndarray) -> Pair:
    """Mean of :func:`changes`."""
    return Pair(float(changes_T.mean())) if len(changes_T) else Pair.undefined("one frame has no motion")


def motion_ratio(changes_T: np.ndarray, true_changes_T: np.ndarray) -> Pair:
    """`motion_energy` over the truth's; clips pool as sum over sum."""
    energy, truth = motion_energy(changes_T), motion_energy(true_changes_T)
    if not (energy.defined and truth.defined):
        return energy
    if truth.numerator == 0:
        return Pair.undefined("the truth does not move")
    return Pair(energy.numerator, truth.numerator)


def flicker(second_changes_T: np.ndarray) -> Pair:
    """Mean of :func:`second_changes`.

    Over the whole image: which part of a video stands still cannot be known without another network, and a part chosen
    by the video's own changes could be chosen to look well. The second difference takes no count of steady changes,
    so slow motion weighs little.
    """
    return (
        Pair(float(second_changes_T.mean()))
        if len(second_changes_T)
        else Pair.undefined("fewer than 3 frames cannot flicker")
    )


class FrameValues:
    """What was computed of a video's frames, once for the video and all its beginnings."""

    def __init__(self) -> None:
        self._found: dict[str, np.ndarray] = {}

    def first(self, name: str, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The first so many values, computed now if they were not.

        Args:
            compute: all values of the frames at hand; those of the beginning do not depend on the rest.
        """
        held = self._found.get(name)
        if held is None or len(held) < count:
            held = self._found[name] = compute()
        return held[:count]
