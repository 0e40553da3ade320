"""Metrics that the field quotes, against their formulas, and against what must not fool them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from df_eval.metrics import frames, identity, lips, syncnet
from df_models.encoders.face import syncnet as network

RNG = np.random.default_rng(0)


def test_csim_and_both_acds_are_cosines_and_distances_of_unit_vectors() -> None:
    vectors, reference = RNG.normal(size=(6, 5)) * 3, RNG.normal(size=5)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ reference / np.linalg.norm(reference)
    assert identity.cosine_to_reference(vectors, reference).value == pytest.approx(cosines.mean())
    near = identity.distance_to_reference(vectors, reference).value
    assert near == pytest.approx(np.sqrt(2 - 2 * cosines).mean())
    pairs = [np.linalg.norm(units[i] - units[j]) for i in range(6) for j in range(i)]
    assert identity.pairwise_distance(vectors).value == pytest.approx(np.mean(pairs))


def test_identity_leaves_misses_out_and_a_still_face_has_no_distance_to_itself() -> None:
    vectors, reference = RNG.normal(size=(6, 5)), RNG.normal(size=5)
    holes = vectors.copy()
    holes[[1, 4]] = np.nan
    seen = np.delete(vectors, [1, 4], axis=0)
    for function in (identity.cosine_to_reference, identity.distance_to_reference):
        assert function(holes, reference).value == pytest.approx(function(seen, reference).value)
    assert identity.pairwise_distance(holes).value == pytest.approx(identity.pairwise_distance(seen).value)
    assert identity.pairwise_distance(holes[[0, 1]]).value is None
    still = np.repeat(vectors[:1], 4, axis=0)
    assert identity.pairwise_distance(still).value == pytest.approx(0.0, abs=1e-7)
    assert identity.cosine_to_reference(still, vectors[0]).value == pytest.approx(1.0)


def test_lip_landmarks_know_the_shape_of_the_lips_and_not_where_or_how_large_the_face_is() -> None:
    true, eyes = RNG.normal(size=(5, 8, 2)), np.full(5, 4.0)
    assert lips.landmark_distance(true + np.array([3.0, -1.0]), true, eyes).value == pytest.approx(0.0, abs=1e-12)
    opened = true.copy()
    opened[:, 0, 1] += 8.0  # of 8 points: the mean moves by 1, one point by 7, the others by 1
    distance = lips.landmark_distance(opened, true, eyes).value
    assert distance == pytest.approx((7 + 7 * 1) / 8 / 4.0)
    assert lips.landmark_distance(2 * opened, 2 * true, 2 * eyes).value == pytest.approx(distance)
    opened[2] = np.nan
    assert lips.landmark_distance(opened, true, eyes).value == pytest.approx(distance)
    assert lips.landmark_distance(opened * np.nan, true, eyes).value is None


def plain_soft_dtw(costs: np.ndarray, gamma: float) -> float:
    """The recursion as the paper writes it, cell by cell."""
    table = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
    table[0, 0] = 0.0
    for i in range(costs.shape[0]):
        for j in range(costs.shape[1]):
            before = np.array([table[i, j + 1], table[i + 1, j], table[i, j]])
            table[i + 1, j + 1] = costs[i, j] - gamma * np.logaddexp.reduce(-before / gamma)
    return float(table[-1, -1])


@pytest.mark.parametrize("shape", [(7, 7), (4, 9), (9, 4), (1, 5)])
def test_soft_dtw_is_the_papers_recursion_and_dtw_where_it_is_cold(shape: tuple[int, int]) -> None:
    costs = np.square(RNG.normal(size=shape))
    soft = lips.soft_dtw(np.stack([costs, 2 * costs]), 0.3)
    assert soft == pytest.approx([plain_soft_dtw(costs, 0.3), plain_soft_dtw(2 * costs, 0.3)])
    hard = np.full((shape[0] + 1, shape[1] + 1), np.inf)
    hard[0, 0] = 0.0
    for i, j in np.ndindex(*shape):
        hard[i + 1, j + 1] = costs[i, j] + min(hard[i, j + 1], hard[i + 1, j], hard[i, j])
    assert lips.soft_dtw(costs[None], 1e-4) == pytest.approx([hard[-1, -1]], abs=0.01)


def test_the_aligned_distance_forgives_a_late_mouth_and_not_another_or_a_still_one() -> None:
    time = np.arange(60)
    true = np.sin(time / 3.0) + 0.6 * np.sin(time / 7.0)
    late, other = np.roll(true, 2), np.sin(time / 2.0 + 1.0)
    found = [lips.aligned_distance(read, true).value or 0.0 for read in (true, late, other, np.zeros(60))]
    assert found[0] == pytest.approx(0.0, abs=1e-9) and 0 < found[1] < 0.3 * min(found[2:])
    assert lips.aligned_distance(10 * late, 10 * true).value == pytest.approx(found[1])
    assert lips.aligned_distance(true, np.ones(60)).value is None
    assert lips.aligned_distance(np.full(60, np.nan), true).value is None


def test_silence_is_far_from_any_sound_and_a_mouth_that_moves_in_it_is_seen() -> None:
    wave = np.zeros(60 * 640)
    wave[: 20 * 640] = RNG.normal(size=20 * 640)
    wave[50 * 640 :] = 1e-3 * RNG.normal(size=10 * 640)  # 60 dB below: still silence
    silent = lips.silent_frames(wave, 60)
    assert silent.tolist() == [False] * 23 + [True] * 37
    assert lips.silent_frames(np.zeros(60 * 640), 60).all() and not lips.silent_frames(np.ones(640), 1).any()
    true = np.where(np.arange(60) < 20, np.sin(np.arange(60)), 0.0)
    babbling = true + np.where(np.arange(60) % 2, 0.5, -0.5)
    assert lips.silent_movement(true, true, silent).value == 0.0
    assert lips.silent_movement(babbling, true, silent).value == pytest.approx(1.0 / true.std())
    assert lips.silent_movement(true, true, np.zeros(60, bool)).value is None


def test_flicker_sees_what_jumps_back_and_forth_and_not_a_steady_change() -> None:
    steps = np.arange(12)[:, None, None, None]
    steady = np.broadcast_to(10 + 3 * steps, (12, 4, 6, 3)).astype(np.uint8)
    jumping = np.broadcast_to(100 + 3 * (steps % 2), (12, 4, 6, 3)).astype(np.uint8)
    assert frames.flicker(frames.second_changes(steady)).value == pytest.approx(0.0, abs=1e-9)
    assert frames.flicker(frames.second_changes(jumping)).value == pytest.approx(6.0)
    assert frames.flicker(frames.second_changes(jumping[:2])).value is None


def vectors_in_sync(length: int) -> tuple[np.ndarray, np.ndarray]:
    heard = np.random.default_rng(1).normal(size=(length, 16))
    return heard + 0.3 * np.random.default_rng(2).normal(size=heard.shape), heard


def test_sync_is_the_published_evaluation() -> None:
    seen, heard = vectors_in_sync(60)
    count = 60 - 5
    curve = network.offset_curve(torch.from_numpy(seen[:count]), torch.from_numpy(heard[:count]))
    wanted = network.sync_scores(curve)
    c, d, offset = syncnet.sync_scores(seen, heard)
    assert (c.value, d.value, offset.value) == pytest.approx((wanted.confidence, wanted.distance, wanted.offset))
    assert offset.value == 0 and c.value > 1


@pytest.mark.parametrize("late", [4, -7])
def test_an_offset_is_found_with_its_sign_and_sound_a_second_away_is_out_of_sync(late: int) -> None:
    seen, heard = vectors_in_sync(90)
    moved = np.roll(heard, late, axis=0)
    good, found = syncnet.sync_scores(seen, heard), syncnet.sync_scores(seen, moved)
    assert found[2].value == -late, "positive: the sound comes too early"
    rolled = syncnet.sync_scores(seen, np.roll(heard, 25, axis=0))
    assert rolled[0].value < 0.3 * good[0].value and rolled[1].value > 2 * good[1].value
    shifted = syncnet.shifted_scores(seen[:60], heard, (25, 30))
    assert shifted[0].value < 0.3 * good[0].value
    assert syncnet.shifted_scores(seen[:60], heard[:79], (25, 30))[0].value is None


def test_sync_of_too_few_frames_or_without_a_face_is_nothing_and_of_a_still_face_is_low() -> None:
    seen, heard = vectors_in_sync(60)
    assert "35 are needed" in syncnet.sync_scores(seen[:34], heard[:34])[0].note
    holes = seen.copy()
    holes[20] = np.nan
    assert [pair.value for pair in syncnet.sync_scores(holes, heard)] == [None] * 3
    still = np.repeat(seen[:1], 60, axis=0)
    assert syncnet.sync_scores(still, heard)[0].value < 0.3 * syncnet.sync_scores(seen, heard)[0].value
