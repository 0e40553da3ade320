"""Pooling over clips: sums, duplicates, ranks, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from df_eval.metrics import ClipRatio, Pair, bootstrap_interval
from df_eval.metrics.aggregate import units_of


def pairs_of(values: np.ndarray) -> list[Pair]:
    return [Pair(float(v)) for v in values]


def test_batches_give_the_same_as_one_update_and_repeated_clips_count_once() -> None:
    values = np.random.default_rng(0).normal(size=10)
    whole, batched = ClipRatio(), ClipRatio()
    whole.update(pairs_of(values), list(range(10)))
    for start in range(0, 10, 4):
        batched.update(pairs_of(values[start : start + 4]), list(range(start, min(start + 4, 10))))
    batched.update(pairs_of(values[:3]), [0, 1, 2])
    assert float(whole.compute()) == pytest.approx(values.mean())
    assert float(batched.compute()) == pytest.approx(values.mean())
    assert batched.score() == whole.score()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_ranks_with_padding_and_with_nothing_pool_to_the_same() -> None:
    values = np.random.default_rng(1).normal(size=7)
    single = ClipRatio()
    single.update(pairs_of(values), list(range(7)))
    first, second, empty = ClipRatio(), ClipRatio(), ClipRatio()
    first.update(pairs_of(values[:4]), [0, 1, 2, 3])
    second.update(pairs_of(np.r_[values[4:], values[:1]]), [4, 5, 6, 0])  # padded with clip 0 again
    first.merge_state(second)
    empty.merge_state(first)
    assert float(empty.compute()) == pytest.approx(float(single.compute()))
    assert empty.score() == single.score()


def test_ratio_pools_sums_and_leaves_undefined_clips_out() -> None:
    metric = ClipRatio()
    metric.update([Pair(2, 1), Pair(1, 3), Pair.undefined("gone"), Pair(float("nan"))], [1, 2, 3, 4])
    score = metric.score()
    assert score.value == pytest.approx(3 / 4)
    assert (score.n, score.undefined) == (2, 2)
    assert float(metric.compute()) == pytest.approx(3 / 4)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_defined_is_no_value_and_says_why() -> None:
    metric = ClipRatio()
    assert torch.isnan(metric.compute())
    metric.update([Pair.undefined("x")], [1])
    assert metric.score(reason="the reason").value is None
    assert metric.score(reason="the reason").reason == "the reason"
    assert metric.score().reason == "undefined on every clip"


def test_values_and_ids_must_match() -> None:
    with pytest.raises(ValueError, match="sample ids"):
        ClipRatio().update([Pair(1.0)], [1, 2])


def test_one_clip_has_no_interval() -> None:
    metric = ClipRatio()
    metric.update([Pair(0.5)], [1])
    assert metric.score().value == 0.5
    assert metric.score().low is None


def test_interval_is_reproducible_and_contains_the_value() -> None:
    values = np.random.default_rng(2).normal(size=16)
    ones = np.ones(16)
    low, high = bootstrap_interval(values, ones, seed=3) or (0, 0)
    assert (low, high) == bootstrap_interval(values, ones, seed=3)
    assert (low, high) != bootstrap_interval(values, ones, seed=4)
    assert low < values.mean() < high


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.normal(1.0, 2.0, size=40), np.ones(40), trial, resamples=400) or (0, 0)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 300 <= 0.99


def test_interval_width_follows_the_standard_error() -> None:
    values = np.random.default_rng(6).normal(size=400)
    low, high = bootstrap_interval(values, np.ones(400), seed=0) or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.15)


def test_interval_of_a_ratio_of_sums_weighs_clips_by_denominator() -> None:
    rng = np.random.default_rng(7)
    denominators = rng.uniform(1, 5, size=200)
    numerators = 3.0 * denominators
    low, high = bootstrap_interval(numerators, denominators, seed=0) or (0, 0)
    assert low == pytest.approx(3.0) and high == pytest.approx(3.0)


def test_clips_of_one_person_are_drawn_together() -> None:
    """Ten equal clips of each of four people tell no more of people than one clip of each."""
    values, people = np.array([0.1, 0.4, 0.5, 0.9]), [name for name in "abcd" for _ in range(10)]
    one, ten = ClipRatio(), ClipRatio()
    one.update(pairs_of(values), list(range(4)))
    ten.update(pairs_of(values.repeat(10)), list(range(40)))
    alone, together, apart = one.score(), ten.score(units_N=units_of(people)), ten.score()
    assert (together.n, together.units, alone.units, apart.units) == (40, 4, 4, 40)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert apart.low > together.low and apart.high < together.high
    assert list(units_of(["a"] * 3)) == [0, 1, 2], "one person's clips are drawn one by one"
