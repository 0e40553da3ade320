"""Cuts, jump cuts, transitions and lips at the edge, on images and arrays made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.stages import one_take
from df_data.stages.cut_off import check_lips_inside, lips_outside
from df_data.stages.readings import CHIN, FOREHEAD, OUTER_LIPS
from df_data.stages.rejection import Rejected
from df_data.stages.shots import hard_cuts, jump_cuts, shot_cuts
from df_data.stages.transitions import person_changes
from df_data.synth.clip import make_clip


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    """Two people, 3 s each."""
    return make_clip(1, 1, 75, 96).frames, make_clip(4, 4, 75, 96).frames


@pytest.mark.parametrize("kind", one_take.TRANSITIONS)
def test_a_person_who_becomes_another_is_no_shot_whatever_the_transition(
    people: tuple[np.ndarray, np.ndarray], kind: str
) -> None:
    cuts = shot_cuts(one_take.TRANSITIONS[kind](*people))
    assert cuts and 20 <= min(cuts) <= max(cuts) <= 55, cuts


def test_one_take_is_one_shot_and_a_jump_within_it_is_seen(people: tuple[np.ndarray, np.ndarray]) -> None:
    for frames in people:
        assert shot_cuts(frames) == []
        assert shot_cuts(one_take.fade_through(frames, frames, 0)) == []  # it is the same before and after
        assert shot_cuts(one_take.with_jump(frames)) == [27]


def test_an_image_that_is_back_is_a_flash_and_a_key_frame_no_jump() -> None:
    blocks = np.cumsum(np.full((40, 6), 0.5), axis=0)
    assert jump_cuts(blocks) == []
    jumped = blocks + 8.0 * (np.arange(40) >= 20)[:, None]
    assert jump_cuts(jumped) == [20]
    assert jump_cuts(blocks + 8.0 * (np.abs(np.arange(40) - 20) < 2)[:, None]) == []
    still = np.zeros((40, 6))
    still[20:] = 0.9
    assert jump_cuts(still) == []


def test_a_turn_of_several_frames_is_no_cut() -> None:
    """The same large step, once alone and once with others beside it, as a head that turns fast makes them."""

    def histograms(*steps: float) -> list[np.ndarray]:
        share = np.cumsum([0.0] * 15 + list(steps) + [0.0] * 15)
        return [np.array([[1 - p, p]]) for p in share]

    assert hard_cuts(histograms(0.01, 0.25, 0.01)) == [16]
    assert hard_cuts(histograms(0.12, 0.25, 0.12)) == []


def test_two_people_are_told_by_their_vectors_and_one_who_turns_is_not() -> None:
    rng = np.random.default_rng(0)
    first, second = np.eye(16)[0], np.eye(16)[1]
    seen = first + 0.15 * rng.standard_normal((20, 16))
    assert not person_changes(seen / np.linalg.norm(seen, axis=1, keepdims=True))
    turned = seen.copy()
    turned[8:11] = first + second
    assert not person_changes(turned / np.linalg.norm(turned, axis=1, keepdims=True))
    seen[12:] += second - first
    assert person_changes(seen / np.linalg.norm(seen, axis=1, keepdims=True))
    assert not person_changes(seen[:5])


def test_lips_at_the_edge_are_cut_off_and_a_chin_is_not() -> None:
    points = np.full((10, 478, 2), 100.0)
    points[:, FOREHEAD], points[:, CHIN] = [100.0, 50.0], [100.0, 250.0]
    points[:, OUTER_LIPS] = [100.0, 200.0]
    assert lips_outside(points, 240, 200) == 0  # the chin is cut off, and 20 % of the face lies below the lips
    assert lips_outside(points, 211, 200) == 0
    assert lips_outside(points, 205, 200) == lips_outside(points, 190, 200) == 1
    assert lips_outside(points, 300, 105) == 1
    points[:3, OUTER_LIPS] = [5.0, 200.0]
    assert lips_outside(points, 300, 200) == 0.3
    check_lips_inside(0.1, 0.1, {})
    with pytest.raises(Rejected, match="face_cut_off: the lips are at the edge of the image in 30% of the frames"):
        check_lips_inside(0.3, 0.1, {"lips_outside": 0.3})
