"""Scores of whether two readers of a head's motion agree, on motion whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from df_data.stages.agreement import (
    FLIP,
    AgreementFilter,
    View,
    agreement,
    agreement_scores,
    doubts,
    flame_view,
    head_disagreement,
    liveportrait_view,
    mediapipe_view,
)
from df_data.synth.head.structure import keypoints_from_structure
from df_models.structure import FLAME_159, LIVEPORTRAIT_70

FRAMES = 250


def smooth(seed: int, size: float, frames: int = FRAMES) -> np.ndarray:
    """Return a wandering track with this standard deviation, without a mean."""
    generator = np.random.default_rng(seed)
    noise = np.convolve(generator.standard_normal(frames + 24), np.hanning(25), "valid")
    return size * (noise - noise.mean()) / noise.std()


def head(seed: int, size: float = 8.0) -> Rotation:
    """Return a head's motion: pitch, yaw and roll each wander by ``size`` degrees."""
    angles = np.column_stack([smooth(3 * seed + axis, size) for axis in range(3)])
    return Rotation.from_euler("xyz", angles, degrees=True)


def motion_vectors(turn: Rotation, mouth_T: np.ndarray) -> np.ndarray:
    """Return LivePortrait's vectors of a head (axes right, down, away) whose lower lip sinks in its own axes."""
    vectors = np.zeros((len(mouth_T), 70), dtype=np.float32)
    vectors[:, 63:66] = turn.as_euler("xyz", degrees=True)
    offsets_TK3 = np.zeros((len(mouth_T), 21, 3))
    offsets_TK3[:, 19] = turn.apply(np.column_stack([0 * mouth_T, mouth_T, 0 * mouth_T]))
    vectors[:, :63] = offsets_TK3.reshape(len(mouth_T), 63)
    vectors[:, 69] = 1.4
    return vectors


def flame_vectors(turn: Rotation, mouth_T: np.ndarray) -> np.ndarray:
    """Return FLAME vectors of the same head; FLAME's axes are right, up, towards the camera."""
    vectors = np.zeros((len(mouth_T), 159), dtype=np.float32)
    pose = vectors[:, FLAME_159.slice("pose")]
    pose[:, :3] = Rotation.from_matrix(FLIP @ turn.as_matrix() @ FLIP).as_rotvec()
    pose[:, 3] = mouth_T
    return vectors


def test_liveportrait_and_flame_of_one_head_agree_whatever_each_calls_neutral() -> None:
    turn, mouth = head(0), smooth(50, 0.03)
    neutral = Rotation.from_euler("xyz", [7, -12, 3], degrees=True)
    views = {"liveportrait": liveportrait_view(motion_vectors(turn, mouth))}
    views["flame"] = flame_view(flame_vectors(turn * neutral, 0.4 + 5 * mouth))
    scores = agreement_scores(views)
    assert set(scores) == {"liveportrait_flame_head_deg", "liveportrait_flame_mouth"}
    assert scores["liveportrait_flame_head_deg"] < 1e-3
    assert scores["liveportrait_flame_mouth"] > 0.9999


def test_the_axes_are_those_of_the_sources() -> None:
    """One head, nose lowered by 10 degrees: x is right everywhere, so FLAME's turn about x is positive too."""
    motion, flame = np.zeros((1, 70), np.float32), np.zeros((1, 159), np.float32)
    motion[0, LIVEPORTRAIT_70.slice("pitch")], flame[0, 150] = 10, np.deg2rad(10)
    motion[0, 69] = 1
    nose_away = np.array([0.0, 0, -1])  # towards the camera, in axes right, down, away
    seen = [view.rotation[0] @ nose_away for view in (liveportrait_view(motion), flame_view(flame))]
    assert seen[0] == pytest.approx(keypoints_from_structure(motion, nose_away[None])[0, 0], abs=1e-6)
    assert seen[0][1] == pytest.approx(np.sin(np.deg2rad(10)), abs=1e-6), "the nose sinks: y is down"
    assert seen[1] == pytest.approx(seen[0], abs=1e-6)
    flame[0, 150:153] = [0, np.deg2rad(10), 0]  # about y, up: the nose, towards the camera, goes to the right
    assert (flame_view(flame).rotation[0] @ nose_away)[0] == pytest.approx(np.sin(np.deg2rad(10)), abs=1e-6)


@pytest.mark.parametrize("degrees", [0.5, 2.0, 6.0])
def test_noise_is_told_in_degrees(degrees: float) -> None:
    turn = head(1)
    noise = Rotation.from_rotvec(np.deg2rad(degrees / 3**0.5) * np.random.default_rng(0).standard_normal((FRAMES, 3)))
    found = head_disagreement(turn.as_matrix(), (turn * noise).as_matrix())
    assert found == pytest.approx(degrees, rel=0.1)


def test_worse_is_worse() -> None:
    """The same motion, with noise, late by 2 and by 10 frames, of another head, of a wrong sign."""
    turn, mouth = head(2), smooth(60, 0.03)
    noise = Rotation.from_rotvec(np.deg2rad(0.5) * np.random.default_rng(1).standard_normal((FRAMES, 3)))
    mirrored = Rotation.from_euler("xyz", turn.as_euler("xyz", degrees=True) * [1, -1, 1], degrees=True)
    others = {
        "same": (turn, mouth),
        "noise": (turn * noise, mouth + smooth(61, 0.006)),
        "late 2": (turn[np.r_[:2, : FRAMES - 2]], np.roll(mouth, 2)),
        "late 10": (turn[np.r_[:10, : FRAMES - 10]], np.roll(mouth, 10)),
        "other head": (head(3), smooth(62, 0.03)),
        "wrong sign": (mirrored, -mouth),
    }
    view = liveportrait_view(motion_vectors(turn, mouth))
    found = {
        what: agreement_scores({"liveportrait": view, "flame": flame_view(flame_vectors(*other))})
        for what, other in others.items()
    }
    heads = [
        found[what]["liveportrait_flame_head_deg"] for what in ("same", "noise", "late 2", "late 10", "other head")
    ]
    mouths = [found[what]["liveportrait_flame_mouth"] for what in others if what != "other head"]
    assert heads == sorted(heads) and mouths == sorted(mouths, reverse=True)
    assert heads[1] < 1.5 and heads[3] > 6 and heads[4] > 12
    assert found["wrong sign"]["liveportrait_flame_head_deg"] > 10
    assert abs(found["other head"]["liveportrait_flame_mouth"]) < 0.5
    assert mouths[0] > 0.999 and mouths[1] > 0.95 and mouths[-1] < -0.999


def test_still_heads_agree_and_still_mouths_have_no_score() -> None:
    still = np.repeat(np.eye(3)[None], 20, axis=0)
    assert head_disagreement(still, Rotation.from_euler("y", 30, degrees=True).as_matrix() @ still) < 1e-5
    assert agreement(np.ones(20), np.arange(20.0)) is None
    assert list(agreement_scores({"a": View(still, np.ones(20)), "b": View(still, np.arange(20.0))})) == [
        "a_b_head_deg"
    ]


def test_all_pairs_are_scored_in_order() -> None:
    turn, mouth = head(4), smooth(70, 0.03)
    motion = motion_vectors(turn, mouth)
    views = {"liveportrait": liveportrait_view(motion), "flame": flame_view(flame_vectors(turn, mouth))}
    scores = agreement_scores(views | {"mediapipe": mediapipe_view(motion, 3 * mouth)})
    assert [name for name in scores if name.endswith("deg")] == [
        "liveportrait_flame_head_deg",
        "liveportrait_mediapipe_head_deg",
        "flame_mediapipe_head_deg",
    ]
    assert max(value for name, value in scores.items() if name.endswith("deg")) < 1e-3
    assert min(value for name, value in scores.items() if name.endswith("mouth")) > 0.999


def test_limits_count_the_worst_pair_and_are_off_by_default() -> None:
    scores = {"a_b_head_deg": 3.0, "a_c_head_deg": 9.0, "a_b_mouth": 0.8, "a_c_mouth": 0.1}
    assert doubts(scores, AgreementFilter()) == ()
    assert doubts(scores, AgreementFilter(max_head_deg=8.0)) == ("heads_disagree",)
    assert doubts(scores, AgreementFilter(max_head_deg=10.0, min_mouth=0.05)) == ()
    assert doubts(scores, AgreementFilter(max_head_deg=8.0, min_mouth=0.5)) == ("heads_disagree", "mouths_disagree")
