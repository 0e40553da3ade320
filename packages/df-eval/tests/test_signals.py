"""Correlation, lag and stillness against SciPy and constructed signals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from df_eval.metrics import sync
from df_eval.metrics.signals import MIN_FRAMES, lag_curve, pearson


def smooth_signal(length: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=length + 40)
    return ndimage.gaussian_filter1d(noise, 1.5)[20 : 20 + length]


@pytest.mark.parametrize("seed", range(5))
def test_pearson_equals_scipy_also_under_a_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=60), rng.normal(size=60)
    b = 0.5 * a + b
    mask = rng.random(60) > 0.3
    assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-12)
    assert pearson(a, b, mask) == pytest.approx(stats.pearsonr(a[mask], b[mask])[0], abs=1e-12)


def test_frames_that_were_not_read_are_left_out_not_filled() -> None:
    a, b = smooth_signal(60, 0), smooth_signal(60, 1)
    holes = a.copy()
    holes[10:20] = np.nan
    kept = np.r_[0:10, 20:60]
    assert pearson(holes, b) == pytest.approx(stats.pearsonr(a[kept], b[kept])[0], abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_pearson_does_not_depend_on_scale(scale: float) -> None:
    a, b = smooth_signal(60, 2), smooth_signal(60, 3)
    assert pearson(scale * a + 7, b) == pytest.approx(pearson(a, b), abs=1e-7)


def test_pearson_is_undefined_on_constant_or_short_signals() -> None:
    a = smooth_signal(60, 0)
    assert np.isnan(pearson(np.full(60, 0.3), a))
    assert np.isnan(pearson(a, np.zeros(60)))
    assert np.isnan(pearson(a[: MIN_FRAMES - 1], a[: MIN_FRAMES - 1]))
    assert pearson(a[:MIN_FRAMES], a[:MIN_FRAMES]) == pytest.approx(1.0)


def test_signals_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        pearson(np.zeros(10), np.zeros(11))


@pytest.mark.parametrize("late", [-4, -1, 0, 2, 5])
def test_lag_is_positive_when_the_video_is_late(late: int) -> None:
    long = smooth_signal(120, 4)
    true = long[20:80]
    read = long[20 - late : 80 - late]  # read[t] = true[t - late]: the mouth moves `late` frames after the audio
    curve = lag_curve(read, true, max_lag=5)
    lag, value = curve.best or (None, None)
    assert lag == late
    assert value == pytest.approx(1.0, abs=1e-9)
    assert curve.correlation[curve.lags == 0][0] == pytest.approx(stats.pearsonr(read, true)[0])


def test_lag_curve_equals_a_direct_computation_under_a_mask() -> None:
    read, true = smooth_signal(50, 5), smooth_signal(50, 6)
    mask = np.random.default_rng(0).random(50) > 0.2
    curve = lag_curve(read, true, mask, max_lag=5)
    for lag, value in zip(curve.lags, curve.correlation, strict=True):
        pairs = [(read[t + lag], true[t]) for t in range(50) if 0 <= t + lag < 50 and mask[t + lag]]
        assert value == pytest.approx(stats.pearsonr(*zip(*pairs, strict=True))[0], abs=1e-12)


def test_a_mouth_that_stands_still_counts_as_zero_and_says_so() -> None:
    true = smooth_signal(60, 7)
    pair = sync.correlation(np.full(60, 0.2), true)
    assert (pair.value, pair.note) == (0.0, sync.STILL_NOTE)
    assert sync.still(np.full(60, 0.2), true).value == 1.0
    assert sync.still(true, true).value == 0.0
    lag, best = sync.best_lag(np.full(60, 0.2), true)
    assert lag.value is None and best.value is None and "no lag" in lag.note


def test_a_faint_copy_of_the_truth_is_still_and_a_small_one_is_not() -> None:
    true = smooth_signal(60, 8)
    assert sync.correlation(0.005 * true, true).value == 0.0
    assert sync.correlation(0.05 * true, true).value == pytest.approx(1.0)


def test_a_constant_truth_leaves_the_clip_out() -> None:
    read = smooth_signal(60, 9)
    pair = sync.correlation(read, np.zeros(60))
    assert pair.value is None and "constant" in pair.note
    assert sync.still(read, np.zeros(60)).value is None
    nothing = np.full(60, np.nan)
    assert "read" in sync.correlation(nothing, read).note


def test_amplitude_is_the_ratio_of_standard_deviations() -> None:
    true = smooth_signal(60, 10)
    assert sync.amplitude(0.4 * true + 1, true).value == pytest.approx(0.4)
    assert sync.amplitude(true, np.zeros(60)).value is None


def test_shifted_control_compares_with_later_truth_and_is_near_zero_for_a_perfect_video() -> None:
    shifts = tuple(range(25, 51, 5))
    values = []
    for seed in range(40):
        long = smooth_signal(129 + 50, 100 + seed)
        pair = sync.shifted_correlation(long[:129], long, None, shifts)
        expected = np.mean([np.corrcoef(long[:129], long[s : s + 129])[0, 1] for s in shifts])
        assert pair.value == pytest.approx(expected, abs=1e-12)
        values.append(pair.value)
    assert abs(np.mean(values)) < 0.05


def test_shifted_control_finds_a_repeated_audio_and_compares_without_wrap_around() -> None:
    beat = smooth_signal(25, 11)
    long = np.tile(beat, 6)
    assert sync.shifted_correlation(long[:50], long, None, (25, 50)).value == pytest.approx(1.0)
    other = smooth_signal(129, 12)
    pair = sync.shifted_correlation(other, other, None, (25, 50))
    expected = [float(np.corrcoef(other[:104], other[25:])[0, 1]), float(np.corrcoef(other[:79], other[50:])[0, 1])]
    assert pair.value == pytest.approx(np.mean(expected))


def test_shifted_control_needs_a_second_to_compare_and_counts_a_still_mouth_as_zero() -> None:
    long = smooth_signal(60, 13)
    too_short = sync.shifted_correlation(long[:33], long[:49], None, (25, 50))
    assert too_short.value is None and "50 frames" in too_short.note
    assert sync.shifted_correlation(long[:33], long[:50], None, (25, 50)).value is not None
    unread = sync.shifted_correlation(np.full(33, np.nan), long, None, (25,))
    assert unread.value is None and "read" in unread.note
    frozen = sync.shifted_correlation(np.zeros(33), long, None, (25,))
    assert (frozen.value, frozen.note) == (0.0, sync.STILL_NOTE)


def test_other_clips_show_a_rhythm_that_all_sentences_share() -> None:
    """Every clip opens the mouth in its middle, with something of its own on top."""
    usual = np.exp(-(((np.arange(73) - 36) / 12.0) ** 2))
    truths = [usual + 0.2 * smooth_signal(73, seed) for seed in range(6)]
    others = [truth[:60] for truth in truths[1:]]
    expected = np.mean([stats.pearsonr(truths[0][:60], other)[0] for other in others])
    mean = sync.mean_correlation(truths[0], others)
    assert mean.value == pytest.approx(expected) and expected > 0.5
    own = sync.correlation(truths[0], truths[0])
    assert sync.gain(own, mean).value == pytest.approx(1 - expected)
    asleep = sync.mean_correlation(np.zeros(73), others)
    assert asleep.value == 0.0 and asleep.note == sync.STILL_NOTE
    assert sync.mean_correlation(truths[0], []).value is None
    assert sync.gain(own, sync.mean_correlation(truths[0], [])).value is None
