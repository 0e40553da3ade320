"""Pooling over clips: sums, duplicates, ranks, and intervals that cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from df_eval.metrics import ClipRatio, Pair, Score, metric_class
from df_models.intervals.estimate import Cells, estimate, units_of
from df_models.intervals.ranges import CORRELATION, NOT_NEGATIVE, SHARE


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


def scored(values: np.ndarray, denominators: np.ndarray | None = None, **options: Any) -> Score:
    metric = ClipRatio()
    below = np.ones(len(values)) if denominators is None else denominators
    metric.update([Pair(*pair) for pair in zip(values, below, strict=True)], list(range(len(values))))
    return metric.score(**options)


def test_interval_is_reproducible_and_contains_the_value() -> None:
    values = np.random.default_rng(2).normal(size=16)
    found = scored(values, seed=3)
    assert found == scored(values, seed=3) != scored(values, seed=4)
    assert found.low < values.mean() < found.high


@pytest.mark.parametrize("people", [2, 4, 16])
def test_interval_covers_the_true_mean_as_often_as_it_says(people: int) -> None:
    """Also with few people, of whom percentiles of a bootstrap would cover half as often."""
    rng = np.random.default_rng(5)
    names, hits = [str(person) for person in range(people) for _ in range(4)], []
    for trial in range(300):
        values = 1.0 + rng.normal(scale=2.0, size=people).repeat(4) + rng.normal(scale=0.3, size=4 * people)
        found = scored(values, seed=trial, resamples=300, people=names)
        hits.append(found.low <= 1.0 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.99


def test_interval_width_follows_the_standard_error() -> None:
    values = np.random.default_rng(6).normal(size=400)
    found = scored(values)
    assert found.high - found.low == pytest.approx(2 * 1.966 * values.std() / np.sqrt(400), rel=0.05)


def test_interval_of_a_ratio_of_sums_weighs_clips_by_denominator() -> None:
    denominators = np.random.default_rng(7).uniform(1, 5, size=200)
    found = scored(3.0 * denominators, denominators)
    assert found.low == pytest.approx(3.0) and found.high == pytest.approx(3.0)


def test_clips_of_one_person_are_drawn_together() -> None:
    """Ten equal clips of each of four people tell no more of people than one clip of each."""
    values, people = np.array([0.1, 0.4, 0.5, 0.9]), [name for name in "abcd" for _ in range(10)]
    alone, together = scored(values), scored(values.repeat(10), people=people)
    apart = scored(values.repeat(10))
    assert (together.n, together.people, alone.people) == (40, 4, 0)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert apart.low > together.low and apart.high < together.high
    assert list(units_of(["a"] * 3)) == [0, 1, 2], "one person's clips are drawn one by one"


def test_what_is_drawn_is_decided_by_the_clips_that_count() -> None:
    """A metric that only one of two people has is of that person's clips."""
    values = np.array([0.1, 0.4, 0.7, np.nan, np.nan, np.nan])
    found, own = scored(values, people=[*"aaabbb"]), scored(values[:3])
    assert (found.n, found.people, found.undefined) == (3, 1, 3)
    assert (found.low, found.high) == pytest.approx((own.low, own.high))


def test_an_interval_holds_only_values_that_the_metric_can_have_and_always_its_own() -> None:
    blinks = np.array([0.0, 0.0, 0.0, 30.0])
    bare, cut = scored(blinks), scored(blinks, within=NOT_NEGATIVE)
    assert bare.low < 0 == cut.low and cut.value == bare.value and cut.high == bare.high
    shares = scored(np.array([1.0, 1.0, 0.9]), within=SHARE)
    assert shares.high == 1.0 and shares.low == scored(np.array([1.0, 1.0, 0.9])).low
    beyond = scored(np.array([-1e-12, -1e-12, -2e-12]), within=NOT_NEGATIVE)
    assert beyond.low == beyond.value < 0, "a rounding below 0 is held by its interval"
    assert metric_class("csim").within == CORRELATION, "a class of the list has its entry's range"


def test_a_difference_holds_only_what_two_values_can_differ_by() -> None:
    a, b = (Cells(np.array([values]), np.ones((1, 3))) for values in ([1.0, 1.0, 1.0], [0.0, 0.0, 0.9]))
    bare, cut = estimate(a, b), estimate(a, b, within=SHARE)
    assert bare.high > 1 == cut.high and cut.low == bare.low
    assert estimate(b, a, within=SHARE).low == -1 and estimate(a, b, within=NOT_NEGATIVE) == bare
