"""Intervals over seeds and clips: they cover, pairing helps, and they say what they rest on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from df_models.intervals.estimate import Cells, estimate, holm, p_value


def cells(values_SC: np.ndarray) -> Cells:
    return Cells(values_SC, np.ones_like(values_SC))


def drawn(
    random: np.random.Generator, seeds: int, clips: int, between: float, people: float, rest: float
) -> np.ndarray:
    """Values with an effect of each seed, of each clip, and of each cell."""
    return (
        between * random.normal(size=(seeds, 1))
        + people * random.normal(size=(1, clips))
        + rest * random.normal(size=(seeds, clips))
    )


@pytest.mark.parametrize(
    ("seeds", "clips", "between", "people", "rest"),
    [
        (3, 16, 1.0, 0.2, 0.2),
        (5, 16, 0.3, 1.0, 0.5),
        (5, 8, 0.0, 0.0, 1.0),
        (1, 16, 0.0, 1.0, 0.5),
        (5, 16, 0.5, 1.0, 0.1),
    ],
)
def test_intervals_cover_the_truth(seeds: int, clips: int, between: float, people: float, rest: float) -> None:
    random = np.random.default_rng(0)
    hits = []
    for _ in range(300):
        found = estimate(cells(drawn(random, seeds, clips, between, people, rest)), resamples=400)
        assert found.low is not None and found.high is not None
        hits.append(found.low <= 0 <= found.high)
    assert np.mean(hits) >= 0.92, "95 % are promised; 300 trials are within 2.5 % of it"


def test_clips_alone_would_not_cover() -> None:
    """The reason for seeds: an interval over the clips of one training knows nothing of another training."""
    random = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        found = estimate(cells(drawn(random, 1, 16, 1.0, 0.2, 0.2)), resamples=200)
        assert found.low is not None and found.high is not None and found.seeds == 1
        hits.append(found.low <= 0 <= found.high)
    assert np.mean(hits) < 0.5


def test_pairing_narrows_what_both_arms_share() -> None:
    random = np.random.default_rng(1)
    shared = drawn(random, 4, 12, 0.5, 1.0, 0.0)
    a, b = (cells(shared + shift + 0.05 * random.normal(size=shared.shape)) for shift in (0.3, 0.0))
    paired, alone = estimate(a, b), (estimate(a), estimate(b))
    assert paired.error is not None and alone[0].error is not None and alone[1].error is not None
    assert paired.error < 0.2 * np.hypot(alone[0].error, alone[1].error)
    assert paired.low is not None and paired.low > 0.2 and paired.value == pytest.approx(0.3, abs=0.05)


def test_an_arm_differs_by_nothing_from_itself() -> None:
    a = cells(drawn(np.random.default_rng(2), 3, 6, 1, 1, 1))
    found = estimate(a, a)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert p_value(found, 0.0) == 1.0
    assert p_value(found, 0.1) is None, "few that agree are not certainty"


def test_cells_that_one_arm_lacks_are_left_out_of_both() -> None:
    random = np.random.default_rng(3)
    a, b = cells(random.normal(size=(2, 5))), cells(random.normal(size=(2, 5)))
    b.denominator_SC[0, 1] = 0.0
    a.numerator_SC[0, 1] = 1e9
    found = estimate(a, b)
    assert found.undefined == 1 and found.value is not None and abs(found.value) < 10


def test_ratios_are_pooled_as_df_eval_pools_them() -> None:
    a = Cells(np.array([[1.0, 2.0]]), np.array([[2.0, 2.0]]))
    assert estimate(a).value == pytest.approx(3 / 4)


def test_one_clip_of_one_seed_has_no_interval() -> None:
    found = estimate(cells(np.ones((1, 1))))
    assert found.value == 1.0 and found.low is None and p_value(found, 0.0) is None
    nothing = estimate(Cells(np.zeros((2, 2)), np.zeros((2, 2))))
    assert nothing.value is None and nothing.undefined == 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 6), st.floats(-2, 2))
def test_p_and_interval_agree(seed: int, seeds: int, clips: int, margin: float) -> None:
    random = np.random.default_rng(seed)
    found = estimate(
        cells(random.normal(size=(seeds, clips))), cells(random.normal(size=(seeds, clips))), resamples=100
    )
    p = p_value(found, margin)
    assert p is not None and found.low is not None and found.high is not None
    assert (p < 0.05) == (not found.low <= margin <= found.high)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.04, 0.09, 0.09, None], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_a_seed_without_any_value_is_no_seed() -> None:
    values = np.random.default_rng(1).normal(size=(3, 6))
    there = np.ones_like(values)
    there[1:] = 0
    found = estimate(Cells(values * there, there), cells(np.zeros_like(values)))
    alone = estimate(cells(values[:1]), cells(np.zeros((1, 6))))
    assert (found.seeds, found.clips, found.undefined) == (1, 6, 12)
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)


def test_clips_of_one_person_are_drawn_together() -> None:
    """More clips of the same people change nothing; taken as people, they would promise too much."""
    random = np.random.default_rng(4)
    values_SC = drawn(random, 3, 8, 0.2, 1.0, 0.3)
    people = [str(person) for person in range(8) for _ in range(5)]
    single, many = estimate(cells(values_SC)), estimate(cells(values_SC.repeat(5, axis=1)), people=people)
    assert (many.clips, many.people, single.people) == (40, 8, 0)
    assert (many.value, many.error, many.freedom) == pytest.approx((single.value, single.error, single.freedom))
    apart = estimate(cells(values_SC.repeat(5, axis=1)))
    assert apart.error is not None and many.error is not None and apart.error < many.error


def test_a_person_who_alone_has_values_is_not_taken_for_certainty() -> None:
    """An interval over seeds alone would say nothing of the clips, and be far too narrow."""
    random = np.random.default_rng(1)
    values_SC = drawn(random, 5, 6, 0.0, 0.3, 0.01)
    only = Cells(np.where(np.arange(6) < 3, values_SC, 0.0), np.where(np.arange(6) < 3, np.ones_like(values_SC), 0.0))
    found, wanted = estimate(only, people=[*"aaabbb"]), estimate(cells(values_SC[:, :3]))
    assert (found.people, found.clips) == (1, 3)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
