"""Distances of distributions against references, and their traps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from df_eval.metrics import SET_SPECS, SetDistance, frechet_distance, frechet_of_sets
from df_eval.metrics.frechet import kernel_distance

RNG = np.random.default_rng(0)


def moments(values: np.ndarray, ddof: int) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=0), np.cov(values, rowvar=False, ddof=ddof)


def by_sqrtm(a: np.ndarray, b: np.ndarray, ddof: int) -> float:
    (mean, cov), (other, other_cov) = moments(a, ddof), moments(b, ddof)
    root = sqrtm(cov @ other_cov).real
    return float(np.square(mean - other).sum() + np.trace(cov + other_cov - 2 * root))


@pytest.mark.parametrize("count", [7, 40], ids=["fewer than features", "more"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_frechet_is_the_formula_with_the_root_of_a_matrix(count: int, ddof: int) -> None:
    a, b = RNG.normal(size=(count, 12)) * RNG.uniform(0.5, 2, 12), RNG.normal(size=(count + 3, 12)) + 0.5
    found = frechet_of_sets(a, b, ddof)
    assert found == pytest.approx(by_sqrtm(a, b, ddof), rel=1e-4)
    assert found == pytest.approx(frechet_distance(*moments(a, ddof), *moments(b, ddof)), rel=1e-6)
    assert found == pytest.approx(frechet_of_sets(b, a, ddof))
    assert abs(found - frechet_of_sets(a, b, 1 - ddof)) > 1e-3, "which ddof it is can be told"


class Pass(torch.nn.Module):
    """Features of images that are features already."""

    num_features = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).double()


def test_fid_is_that_of_torchmetrics() -> None:
    a, b = (torch.from_numpy(RNG.normal(size=(30, 4, 1, 1)) + shift) for shift in (0.0, 1.0))
    reference, ours = FrechetInceptionDistance(feature=Pass()), SetDistance("fid")
    for values, real in ((a, True), (b, False)):
        reference.update(values, real=real)
        ours.update(values.flatten(1).numpy().reshape(3, 10, 4), [0, 1, 2], real=real)
    assert float(ours.compute()) == pytest.approx(float(reference.compute()), rel=1e-5)


def test_kid_of_single_frames_is_that_of_torchmetrics_but_for_the_pairs() -> None:
    """torchmetrics counts the kernels of a true image with the made one of the same place, too."""
    a, b = RNG.normal(size=(2, 30, 1, 4)) + np.array([0.0, 1.0])[:, None, None, None]
    reference, ours = KernelInceptionDistance(feature=Pass(), subsets=1, subset_size=30), SetDistance("kid")
    for values, real in ((a, True), (b, False)):
        reference.update(torch.from_numpy(values[:, 0, :, None, None]), real=real)
        ours.update(values, range(30), real=real)
    cross = ((a[:, 0] @ b[:, 0].T) / 4 + 1) ** 3
    apart = (cross.sum() - np.trace(cross)) / (30 * 29)
    wanted = float(reference.compute()[0]) + 2 * (cross.mean() - apart)
    assert float(ours.compute()) == pytest.approx(wanted, rel=1e-4)


def test_kid_of_alike_frames_is_about_0_for_one_distribution_however_few_the_clips() -> None:
    """Frames lie about their clip, clips of one person about that person: all that biases a mean over frames."""
    rng, found = np.random.default_rng(5), []
    for _ in range(200):
        person = rng.normal(size=(4, 1, 1, 16))
        clips = person + rng.normal(size=(4, 2, 1, 16)) + 0.1 * rng.normal(size=(4, 2, 20, 16))
        metric = SetDistance("kid")
        for which, real in enumerate((True, False)):
            metric.update(clips[:, which], range(4), real=real)
        found.append(float(metric.compute()))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_many_frames_are_not_many_clips() -> None:
    metric = SetDistance("frechet_reader")
    for real in (True, False):
        metric.update(RNG.normal(size=(16, 129, 3)), range(16), real=real)
    assert metric.score(resamples=3).reason == "Frechet of readings is biased below 2048 clips; N = 16"


def test_few_clips_are_biased_by_as_much_as_a_bad_score_and_flagged() -> None:
    """Two samples of one Gaussian of 400 features and trace 100: their true distance is 0."""
    a, b = np.random.default_rng(1).normal(size=(2, 2048, 400)) * 0.5
    few, some, protocol = (frechet_of_sets(a[:count], b[:count], ddof=0) for count in (50, 256, 2048))
    assert few > 100 > some > 30 > protocol > 3
    metric = SetDistance("fvd2048_16f")
    windows = a[:8].reshape(4, 2, 400), b[:8].reshape(4, 2, 400)
    metric.update(windows[0], range(4), real=True)
    metric.update(windows[1], range(4), real=False)
    score = metric.score(resamples=5)
    assert score.n == 4 and score.reason == "FVD is biased below 2048 clips; N = 4"
    assert score.value == pytest.approx(frechet_of_sets(windows[0][:, 0], windows[1][:, 0], ddof=0))


@pytest.mark.parametrize("name", [name for name, spec in SET_SPECS.items() if spec.better == "lower"])
def test_identical_sets_are_at_no_distance_and_one_vector_is_no_set(name: str) -> None:
    clips = RNG.normal(size=(5, 2, 6))
    same, single = SetDistance(name), SetDistance(name)
    for real in (True, False):
        same.update(clips, range(5), real=real)
        single.update(clips[:1, :1], [0], real=real)
    value = float(same.compute())
    assert value == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(float(single.compute()))
    assert single.score().value is None and "too few" in single.score().reason


def test_the_windows_at_the_end_see_a_drift_that_those_at_the_beginning_do_not() -> None:
    true = RNG.normal(size=(20, 2, 6))
    made = true.copy()
    made[:, 1] += 3.0
    found = {}
    for name in ("fvd2048_16f", "fvd2048_16f_last"):
        metric = SetDistance(name)
        metric.update(true, range(20), real=True)
        metric.update(made, range(20), real=False)
        found[name] = float(metric.compute())
    assert found["fvd2048_16f"] == pytest.approx(0.0, abs=1e-9)
    assert found["fvd2048_16f_last"] == pytest.approx(6 * 9.0)


def test_clips_that_come_twice_count_once_and_the_interval_holds_the_distance_of_more_clips() -> None:
    true, made = RNG.normal(size=(2, 60, 4, 3)) + np.array([0.0, 1.0])[:, None, None, None]
    metric, padded = SetDistance("frechet_reader"), SetDistance("frechet_reader")
    for each in (metric, padded):
        each.update(true, range(60), real=True)
        each.update(made, range(60), real=False)
    padded.update(made[:3] + 9, [0, 1, 2], real=False)
    assert float(padded.compute()) == float(metric.compute())
    score = metric.score(seed=1)
    assert score.low is not None and score.high is not None and score.low < score.value < score.high
    assert score.low < 3.0 < score.high, "three features, each moved by one deviation"
    assert metric.score(seed=1) == score != metric.score(seed=2)


def test_readings_of_any_unit_weigh_alike_and_what_does_not_vary_is_left_out() -> None:
    true, made = RNG.normal(size=(2, 5, 40, 3)) + np.array([0.0, 0.5])[:, None, None, None]
    constant = np.full((5, 40, 1), 7.0)

    def found(true: np.ndarray, made: np.ndarray) -> float:
        metric = SetDistance("frechet_reader")
        metric.update(true, range(5), real=True)
        metric.update(made, range(5), real=False)
        return float(metric.compute())

    units = np.array([1.0, 1000.0, 1e-3])
    assert found(true * units, made * units) == pytest.approx(found(true, made))
    assert found(np.concatenate([true, constant], 2), np.concatenate([made, constant], 2)) == found(true, made)
    assert found(true, made) > 0.5


def test_sets_must_be_sets() -> None:
    with pytest.raises(ValueError, match="two vectors"):
        frechet_of_sets(np.zeros((1, 3)), np.zeros((5, 3)), ddof=1)
    kernels = [np.zeros((4, 4))] * 3
    with pytest.raises(ValueError, match="two different clips"):
        kernel_distance(*kernels, np.array([2, 2]))
    with pytest.raises(ValueError, match="sample ids"):
        SetDistance("fid").update(np.zeros((2, 3, 4)), [0], real=True)


def test_vectors_of_another_width_are_refused():
    metric = SetDistance("fid")
    metric.update([np.zeros((3, 4))], [0], real=True)
    with pytest.raises(ValueError, match="vectors of 4 numbers, and those of clip 0 have 5"):
        metric.update([np.zeros((3, 5))], [0], real=False)
