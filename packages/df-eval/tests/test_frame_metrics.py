"""PSNR, SSIM, motion and sharpness against independent computations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from df_eval.metrics import frames


def clip(seed: int, length: int = 6, size: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((length, size, size, 3)), (1, 2, 2, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (smooth * 255).astype(np.uint8)


def test_psnr_of_a_known_error() -> None:
    truth = np.full((4, 8, 8, 3), 100, np.uint8)
    assert frames.psnr(truth + 10, truth).value == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert frames.psnr((truth + 10) / 255.0, truth).value == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    same = frames.psnr(truth, truth)
    assert same.value is None and "identical" in same.note


@pytest.mark.parametrize(
    "wrong", [lambda x: x / 127.5 - 1, lambda x: x.astype(np.float32)], ids=["-1 to 1", "0 to 255"]
)
def test_frames_of_another_range_are_refused(wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    truth = clip(0)
    other = wrong(truth)
    for measure in (frames.psnr, frames.ssim, frames.motion_ratio):
        with pytest.raises(ValueError, match="give uint8, or floats of 0 to 1"):
            measure(other, truth)
    for measure in (frames.flicker, frames.sharpness):
        with pytest.raises(ValueError, match="frames are of"):
            measure(other)


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 on one channel, Gaussian window of 11 pixels, borders cropped."""

    def window(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    mean_a, mean_b = window(a), window(b)
    var_a, var_b = window(a * a) - mean_a**2, window(b * b) - mean_b**2
    cov = window(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * cov + 0.03**2)
    return float((top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))).mean())


def test_ssim_equals_the_published_formula() -> None:
    a, b = clip(0, 20), clip(1, 20)
    pairs = [(a[t, ..., c] / 255.0, b[t, ..., c] / 255.0) for t in range(len(a)) for c in range(3)]
    expected = np.mean([reference_ssim(x, y) for x, y in pairs])
    # float32: a rounding of 6e-8 of a mean square of 0.25, over the smallest denominator, 0.03**2
    assert frames.ssim(a, b).value == pytest.approx(expected, abs=5e-5)
    assert frames.ssim(a, a).value == pytest.approx(1.0)


def test_motion_energy_and_ratio() -> None:
    video = np.zeros((5, 8, 8, 3), np.uint8)
    video[1::2] = 30
    assert frames.motion_energy(video).value == pytest.approx(30.0)
    assert frames.motion_ratio(video // 3, video).value == pytest.approx(1 / 3)
    still = np.zeros_like(video)
    assert frames.motion_ratio(still, video).value == 0.0
    assert frames.motion_ratio(video, still).value is None


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur() -> None:
    video = clip(2)
    luma = video @ frames.LUMA
    expected = [ndimage.laplace(frame)[1:-1, 1:-1].var() for frame in luma]
    assert frames.sharpness(video) == pytest.approx(expected)
    blurred = ndimage.gaussian_filter(video.astype(float) / 255, (0, 1, 1, 0))
    assert (frames.sharpness(blurred) < frames.sharpness(video)).all()
