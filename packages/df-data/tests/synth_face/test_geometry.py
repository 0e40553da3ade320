"""Structure, FLAME-like vector and truths against the rendered geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.fft import dct
from scipy.spatial.transform import Rotation

from df_data.synth.head import camera, flame
from df_data.synth.head.deform import JAW_DEGREES, ROUND_JAW_SHARE
from df_data.synth.head.face_state import FaceTracks, random_tracks
from df_data.synth.head.identity import Identity, all_parameters
from df_data.synth.head.keypoints import BROW_POINTS, EYE_POINTS, MOUTH_POINTS
from df_data.synth.head.render import geometry, render
from df_data.synth.head.structure import (
    TRUTH_NAMES,
    canonical_expression,
    keypoints_from_structure,
    neutral_keypoints,
    structure_vectors,
    truths,
)
from df_models.blinks import closing_eyelids
from df_models.errors import UserError
from df_models.structure import FLAME_159, LIVEPORTRAIT_70, SYNTHETIC_70, StructureLayout

PERSON = Identity.sample(11)


def moving_points(**tracks: float) -> set[int]:
    """Keypoints that a track moves, in the head's own axes."""
    vectors = structure_vectors(PERSON, FaceTracks.neutral(1, yaw=15.0, pitch=-6.0, **tracks))
    return set(np.flatnonzero(np.abs(canonical_expression(vectors)[0]).max(axis=1) > 1e-4).tolist())


def test_liveportrait_equation_gives_the_rendered_keypoints() -> None:
    tracks = random_tracks(np.random.default_rng(0), 20)
    shown = render(PERSON, tracks, 64)
    rebuilt = keypoints_from_structure(structure_vectors(PERSON, tracks), neutral_keypoints(PERSON))
    np.testing.assert_allclose(rebuilt, shown.keypoints, atol=2e-6)
    np.testing.assert_allclose(camera.project(rebuilt, 64), shown.landmarks2d, atol=1e-4)


def test_pose_fields_are_the_tracks() -> None:
    tracks = random_tracks(np.random.default_rng(1), 5)
    vectors = structure_vectors(PERSON, tracks)
    for name in ("yaw", "pitch", "roll"):
        np.testing.assert_array_equal(vectors[:, LIVEPORTRAIT_70.slice(name)][:, 0], getattr(tracks, name))
    right, down, away = vectors[:, LIVEPORTRAIT_70.slice("translation")].T
    meant = np.stack([tracks.tx, tracks.ty]) / camera.PIXELS_PER_UNIT
    np.testing.assert_allclose([right, down], meant, atol=1e-6)
    np.testing.assert_allclose(away, -tracks.tz * camera.DISTANCE, atol=1e-6)
    np.testing.assert_allclose(vectors[:, LIVEPORTRAIT_70.slice("scale")], PERSON.size, rtol=1e-6)


def test_each_articulator_moves_its_own_keypoints() -> None:
    assert moving_points() == set()
    jaw = moving_points(jaw=0.7)
    assert {4, 6, 19, 20} <= jaw and not jaw & {*EYE_POINTS, *BROW_POINTS, 0, 9, 10}
    assert moving_points(blink=1.0) == set(EYE_POINTS) - {11, 15}
    assert moving_points(gaze_x=0.8) == {11, 15}
    assert set(BROW_POINTS) <= moving_points(brow=1.0) and not moving_points(brow=1.0) & set(MOUTH_POINTS)
    assert {14, 17} <= moving_points(lip_width=1.0) <= {*MOUTH_POINTS, 3, 4, 5, 7, 8, 0}


def test_opening_the_jaw_lowers_the_chin_and_the_lower_lip() -> None:
    vectors = structure_vectors(PERSON, FaceTracks.neutral(2, jaw=np.array([0.0, 1.0])))
    moved = canonical_expression(vectors)[1]
    assert moved[4, 1] > 0.15 and moved[19, 1] > 0.2 and moved[6, 1] < 0
    assert abs(moved[14, 1] - moved[17, 1]) < 1e-6


def test_mouth_opening_is_the_gap_after_all_articulators() -> None:
    jaw = np.array([0.0, 0.25, 0.5, 1.0, 1.0])
    lip_round = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    truth = truths(PERSON, FaceTracks.neutral(5, jaw=jaw, lip_round=lip_round))
    assert tuple(truth) == TRUTH_NAMES
    gap = truth["mouth_open"]
    assert gap[0] == pytest.approx(0.0, abs=1e-6)
    assert np.all(np.diff(gap[:4]) > 0.03) and gap[4] < gap[3]
    assert truth["lip_width"][4] < 0.8 * truth["lip_width"][3]
    shown = geometry(PERSON, FaceTracks.neutral(1, jaw=1.0)).mouth[0]
    assert shown[1, 1] - shown[0, 1] == pytest.approx(gap[3] * (_height()), rel=1e-5)


def _height() -> float:
    neutral = neutral_keypoints(PERSON)
    return float(neutral[4, 1] - neutral[9, 1])


def test_flame_vector_holds_person_and_motion() -> None:
    """Each part undone by scipy: the orthonormal cosine columns, the rotation vector, the weak perspective."""
    tracks = random_tracks(np.random.default_rng(3), 12)
    vectors = flame.flame_vectors(PERSON, tracks).astype(np.float64)
    part = {name: vectors[:, FLAME_159.slice(name)] for name in ("shape", "expression", "pose", "camera")}
    parameters = all_parameters(PERSON)
    np.testing.assert_allclose(dct(part["shape"][0], norm="ortho")[1 : len(parameters) + 1], parameters, atol=1e-5)
    articulators = dct(part["expression"], norm="ortho")[:, 1 : len(flame.ARTICULATORS) + 1]
    for name, values in zip(flame.ARTICULATORS, articulators.T):
        np.testing.assert_allclose(values, getattr(tracks, name), atol=2e-4, err_msg=name)
    angles = Rotation.from_rotvec(part["pose"][:, :3]).as_euler("ZYX", degrees=True)
    np.testing.assert_allclose(angles, np.stack([tracks.roll, tracks.yaw, tracks.pitch], axis=1), atol=2e-4)
    jaw = np.deg2rad(JAW_DEGREES) * tracks.jaw * (1 - ROUND_JAW_SHARE * tracks.lip_round)
    np.testing.assert_allclose(part["pose"][:, 3], jaw, atol=1e-6)
    shift = camera.translation(tracks.tx, tracks.ty, tracks.tz)
    scale = 2 * camera.FOCAL * PERSON.size / (camera.DISTANCE + shift[:, 2])
    np.testing.assert_allclose(part["camera"], np.column_stack([scale, shift[:, :2] / PERSON.size]), rtol=1e-5)


def test_axis_angle_is_a_rotation_vector_and_zero_for_the_still_head() -> None:
    vector = np.array([[0.0, 0.0, 0.0], [0.3, -0.2, 0.1], [1e-9, 0.0, 0.0], [0.0, 2.5, 0.0]])
    np.testing.assert_allclose(flame.axis_angle(Rotation.from_rotvec(vector).as_matrix()), vector, atol=1e-12)


def test_jaw_of_flame_pose_is_axis_angle_about_x() -> None:
    vectors = flame.flame_vectors(PERSON, FaceTracks.neutral(1, jaw=1.0))
    np.testing.assert_allclose(vectors[0, 153:156], [np.deg2rad(19.0), 0.0, 0.0], atol=1e-6)


def test_misshapen_vectors_and_tracks_are_named() -> None:
    with pytest.raises(UserError, match="70 entries"):
        canonical_expression(np.zeros((2, 69)))
    with pytest.raises(UserError, match="jawline"):
        FaceTracks.neutral(2, jawline=1.0)
    with pytest.raises(UserError, match="same shape"):
        replace(FaceTracks.neutral(2), jaw=np.zeros(3))


def test_closing_eyelids_is_what_a_blink_does_to_the_structure() -> None:
    """Of 16 people within what they differ by; the entries that are no lids do not move."""
    tracks = replace(FaceTracks.neutral(2), blink=np.array([0.0, 1.0], np.float32))
    moved = [np.diff(structure_vectors(Identity.sample(person), tracks), axis=0)[0] for person in range(16)]
    known = closing_eyelids(StructureLayout.of(SYNTHETIC_70, "synthetic"))
    assert known is not None
    np.testing.assert_allclose(np.mean(moved, axis=0), known, atol=0.005)
    assert not np.mean(moved, axis=0)[known == 0].any()
