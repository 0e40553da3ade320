"""Brows, gaze and expression from landmarks: a constructed face, and what must not count."""

from __future__ import annotations

import numpy as np
import pytest

from df_data.stages.landmarks import BLENDSHAPES, Landmarks
from df_data.stages.readings import CHIN, FOREHEAD, KEYPOINTS, RIGID
from df_eval.metrics import expression, sync
from df_eval.reading.face_points import EYE_CORNERS, IRISES, LEFT_BROW, MOVING, RIGHT_BROW, face_signals

FRAMES = 40
TIME = np.arange(FRAMES)
BROW = 0.02 * np.sin(TIME / 3)
GAZE = np.stack([0.1 * np.sin(TIME / 5), 0.05 * np.cos(TIME / 4)], axis=1)
HALF = 0.5
"""Half of the constructed face's height."""
REST = np.random.default_rng(0).uniform(-0.3, 0.3, size=(478, 3)) * (1, 1, 0.3)
REST[FOREHEAD], REST[CHIN] = (0, -HALF, 0), (0, HALF, 0)
for _left, _right in EYE_CORNERS:
    REST[[_left, _right], 1:] = (-0.1, 0.0)
REST[[33, 133, 362, 263], 0] = (-0.3, -0.1, 0.1, 0.3)
REST[[*LEFT_BROW, *RIGHT_BROW], 1] = -0.3
EYE = 0.2


def turned(tilt: float) -> np.ndarray:
    return np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])


def face(
    brow_T: np.ndarray = BROW, gaze_T2: np.ndarray = GAZE, size: float = 1.0, tilt: float = 0.0, shift: float = 0.0
) -> Landmarks:
    """A face with brows raised by ``brow_T`` face heights, that looks ``gaze_T2`` eye widths to the right and down."""
    frames = len(brow_T)
    points = np.repeat(REST[None], frames, axis=0)
    points[:, [*LEFT_BROW, *RIGHT_BROW], 1] -= brow_T[:, None] * 2 * HALF
    for iris, middle in zip(IRISES, (-0.2, 0.2), strict=True):
        points[:, iris] = np.column_stack([middle + EYE * gaze_T2[:, 0], -0.1 + EYE * gaze_T2[:, 1], 0 * brow_T])
    points = size * points @ turned(tilt).T + (shift, 0, 0)
    rotation, seen = np.repeat(turned(tilt)[None], frames, axis=0), np.ones(frames, bool)
    return Landmarks(points, rotation, np.full(frames, 50.0), np.full((frames, 52), 0.1), seen, BLENDSHAPES)


def test_brows_gaze_and_expression_are_what_the_face_does() -> None:
    found = face_signals(face())
    assert found["brow_T"] == pytest.approx(0.2 + BROW)
    assert found["gaze_T2"] == pytest.approx(GAZE)
    brows = [list(KEYPOINTS)[place] for place in MOVING].index("brow_left")
    raised = -found["expression_TK2"][:, brows, 1]
    assert raised - raised[0] == pytest.approx(BROW - BROW[0])
    moving = {landmark for place in MOVING for landmark in list(KEYPOINTS.values())[place]}
    assert len(MOVING) == 16 and not moving & {*RIGID, *IRISES}, "nothing that only pose or gaze moves"


def test_size_place_and_tilt_of_the_face_do_not_count() -> None:
    near, far = face_signals(face()), face_signals(face(size=0.4, tilt=0.5, shift=0.3))
    for name, values in near.items():
        np.testing.assert_allclose(far[name], values, atol=1e-9, err_msg=name)


def test_a_mirrored_gaze_looks_the_other_way() -> None:
    found, mirrored = (face_signals(face(gaze_T2=GAZE * side))["gaze_T2"] for side in ((1, 1), (-1, 1)))
    assert mirrored[:, 0] == pytest.approx(-found[:, 0]) and mirrored[:, 1] == pytest.approx(found[:, 1])
    wanted = np.mean(2 * np.abs(GAZE[:, 0]))
    assert expression.gaze_distance(mirrored, found).value == pytest.approx(wanted), "both eyes' errors add up"
    assert expression.gaze_amplitude(mirrored, found).value == pytest.approx(1)


def test_a_static_face_neither_follows_nor_moves() -> None:
    true, still = face_signals(face()), face_signals(face(BROW[:1].repeat(FRAMES), GAZE[:1].repeat(FRAMES, axis=0)))
    assert sync.correlation(still["brow_T"], true["brow_T"]).value == 0, "it is not left out"
    assert sync.amplitude(still["brow_T"], true["brow_T"]).value == pytest.approx(0, abs=1e-9)
    assert expression.gaze_amplitude(still["gaze_T2"], true["gaze_T2"]).value == pytest.approx(0, abs=1e-9)
    assert np.abs(still["expression_TK2"]).max() < 1e-9
    distance = expression.keypoint_distance(still["expression_TK2"], true["expression_TK2"]).value
    moved = np.linalg.norm(true["expression_TK2"] - np.median(true["expression_TK2"], axis=0), axis=-1).mean()
    assert distance == pytest.approx(moved) and distance > 0
    assert expression.keypoint_distance(true["expression_TK2"], true["expression_TK2"]).value == 0
    held = true["expression_TK2"][:1].repeat(FRAMES, axis=0)  # as the suite makes the row of a still image
    assert expression.keypoint_distance(held, true["expression_TK2"]).value == pytest.approx(distance)


def test_a_video_that_was_read_at_another_length_is_no_other_face() -> None:
    rising = np.linspace(0.0, 0.05, FRAMES)
    whole, begun = face_signals(face(rising)), face_signals(face(rising).first(FRAMES // 2))
    part = whole["expression_TK2"][: FRAMES // 2]
    assert np.abs(part - begun["expression_TK2"]).max() > 1e-3, "the neutral faces differ"
    assert expression.keypoint_distance(begun["expression_TK2"], part).value == pytest.approx(0, abs=1e-4)


def test_closed_eyes_have_no_gaze_and_missing_faces_nothing() -> None:
    landmarks = face()
    landmarks.blendshapes[5, BLENDSHAPES.index("eyeBlinkLeft")] = 0.7  # a wink hides one iris
    for values in (landmarks.points, landmarks.rotation, landmarks.blendshapes):
        values[9] = np.nan
    landmarks.detected[9] = False
    found = face_signals(landmarks)
    assert np.flatnonzero(np.isnan(found["gaze_T2"]).any(axis=1)).tolist() == [5, 9]
    assert np.flatnonzero(np.isnan(found["brow_T"])).tolist() == [9]
    assert np.flatnonzero(np.isnan(found["expression_TK2"]).any(axis=(1, 2))).tolist() == [9]
    true = face_signals(face())
    assert expression.gaze_distance(found["gaze_T2"], true["gaze_T2"]).value == pytest.approx(0, abs=1e-9)
    nobody = Landmarks(*(np.full_like(v, np.nan) for v in (landmarks.points, landmarks.rotation, landmarks.depth,
                         landmarks.blendshapes)), np.zeros(FRAMES, bool), BLENDSHAPES)  # fmt: skip
    nothing = face_signals(nobody)
    for name, measure in (
        ("gaze_T2", expression.gaze_distance),
        ("gaze_T2", expression.gaze_amplitude),
        ("expression_TK2", expression.keypoint_distance),
        ("brow_T", sync.correlation),
    ):
        pair = measure(nothing[name], true[name])
        assert not pair.defined and pair.note
