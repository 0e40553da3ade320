"""PSNR, SSIM, motion and sharpness against independent computations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from df_eval.measure import Truth, Video, measure
from df_eval.metrics import frames
from df_eval.reading.readings import FaceReadings


def clip(seed: int, length: int = 6, size: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((length, size, size, 3)), (1, 2, 2, 0))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return (smooth * 255).astype(np.uint8)


def test_psnr_of_a_known_error() -> None:
    truth = np.full((4, 8, 8, 3), 100, np.uint8)
    for made in (truth + 10, (truth + 10) / 255.0):
        found = frames.psnr(frames.squared_errors(made, truth)).value
        assert found == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    same = frames.psnr(frames.squared_errors(truth, truth))
    assert same.value is None and "identical" in same.note


@pytest.mark.parametrize(
    "wrong", [lambda x: x / 127.5 - 1, lambda x: x.astype(np.float32)], ids=["-1 to 1", "0 to 255"]
)
def test_frames_of_another_range_are_refused(wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    truth = clip(0)
    other = wrong(truth)
    for compare in (frames.squared_errors, frames.similarities):
        with pytest.raises(ValueError, match="give uint8, or floats of 0 to 1"):
            compare(other, truth)
    for values_of in (frames.changes, frames.second_changes, frames.sharpness):
        with pytest.raises(ValueError, match="frames are of"):
            values_of(other)


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
    assert frames.ssim(frames.similarities(a, b)).value == pytest.approx(expected, abs=5e-5)
    assert frames.ssim(frames.similarities(a, a)).value == pytest.approx(1.0)


def test_motion_energy_and_ratio() -> None:
    video = np.zeros((5, 8, 8, 3), np.uint8)
    video[1::2] = 30
    moving, less, still = (frames.changes(v) for v in (video, video // 3, np.zeros_like(video)))
    assert frames.motion_energy(moving).value == pytest.approx(30.0)
    assert frames.changes(video / 255.0) == pytest.approx(moving), "whatever type the frames have"
    assert frames.motion_ratio(less, moving).value == pytest.approx(1 / 3)
    assert frames.motion_ratio(still, moving).value == 0.0
    assert frames.motion_ratio(moving, still).value is None
    assert frames.motion_energy(frames.changes(video[:1])).value is None


def test_what_was_computed_of_a_video_holds_for_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    made, true, signals = clip(3, 12), clip(4, 12), FaceReadings(np.ones(12, bool))
    seen: list[int] = []
    measured = frames.sharpness
    monkeypatch.setattr(frames, "sharpness", lambda video: (seen.append(len(video)), measured(video))[1])
    whole, values = Video(made, None), frames.FrameValues()
    for length in (12, 7):
        own, shared_truth = Truth(true[:length], signals, None), Truth(true[:length], signals, None, values=values)
        shared = measure("generated", whole.first(length), shared_truth, max_lag=5, shifts=(25,)).pairs
        before = len(seen)
        alone = measure("generated", Video(made[:length], None), own, max_lag=5, shifts=(25,)).pairs
        assert {"psnr", "ssim", "flicker", "motion_ratio", "sharpness_ratio"} <= shared.keys() == alone.keys()
        for name, pair in alone.items():
            assert shared[name].value == pytest.approx(pair.value, rel=1e-9), name
        assert seen[before:] == [length, length]
    assert seen == [12, 12, 12, 12, 7, 7], "the beginning was not measured again"


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_with_blur() -> None:
    video = clip(2)
    luma = video @ frames.LUMA
    expected = [ndimage.laplace(frame)[1:-1, 1:-1].var() for frame in luma]
    assert frames.sharpness(video) == pytest.approx(expected)
    blurred = ndimage.gaussian_filter(video.astype(float) / 255, (0, 1, 1, 0))
    assert (frames.sharpness(blurred) < frames.sharpness(video)).all()


def test_a_still_image_held_in_memory_once_is_measured_as_its_copies() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 256, size=(23, 64, 64, 3), dtype=np.uint8)
    held = np.broadcast_to(true[:1], true.shape)
    assert frames.held_still(held) and not frames.held_still(true) and not frames.held_still(held.copy())
    for values_of in (frames.changes, frames.second_changes, frames.sharpness):
        np.testing.assert_array_equal(values_of(held), values_of(held.copy()))
    np.testing.assert_array_equal(frames.similarities(held, true), frames.similarities(held.copy(), true))


def test_similarities_do_not_depend_on_how_many_frames_go_together() -> None:
    rng = np.random.default_rng(4)
    made, true = rng.integers(0, 256, size=(2, 23, 48, 64, 3), dtype=np.uint8)
    one_by_one = [frames.similarities(made[k : k + 1], true[k : k + 1])[0] for k in range(len(made))]
    assert frames.TOGETHER // made[0].size > 1, "several at a time"
    np.testing.assert_array_equal(frames.similarities(made, true), one_by_one)
    with pytest.raises(ValueError, match="the true ones"):
        frames.similarities(made[:14], true)
