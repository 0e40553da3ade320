from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stages.mirror import NAMED_KEYPOINTS, keypoint_partners, mirror_structure
from df_data.stages.readings import KEYPOINTS, RIGID, structure_vectors
from df_data.synth.head import camera
from df_data.synth.head.keypoints import KEYPOINTS as SYNTH_KEYPOINTS
from df_data.synth.head.structure import keypoints_from_structure
from df_models.errors import UserError
from df_models.structure import LIVEPORTRAIT_70

MIRROR = np.diag([-1.0, 1.0, 1.0])
RIGID_PARTNERS = {109: 338, 33: 263, 133: 362, 127: 356, 234: 454}


def random_structure(rng: np.random.Generator, frames: int) -> np.ndarray:
    vectors = rng.normal(0, 0.1, (frames, LIVEPORTRAIT_70.dim))
    for name in ("pitch", "yaw", "roll"):
        vectors[:, LIVEPORTRAIT_70.slice(name)] = rng.uniform(-70, 70, (frames, 1))
    vectors[:, LIVEPORTRAIT_70.slice("scale")] = rng.uniform(0.5, 2.0, (frames, 1))
    return vectors


def test_both_sources_number_their_keypoints_alike() -> None:
    for name, anchors in zip(NAMED_KEYPOINTS, SYNTH_KEYPOINTS):
        assert anchors == (name,) or (name == "lower_lids" and anchors == ("lower_lid_left", "lower_lid_right"))
    partners = keypoint_partners(NAMED_KEYPOINTS)
    assert [partners[p] for p in partners] == list(range(21))
    moved = {(NAMED_KEYPOINTS[i], NAMED_KEYPOINTS[p]) for i, p in enumerate(partners) if i < p}
    assert moved == {(f"{w}_left", f"{w}_right") for w in ("brow", "jaw", "cheek", "iris", "upper_lid", "mouth")}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_keypoints_of_the_mirrored_vector_are_the_mirrored_keypoints(seed: int) -> None:
    rng = np.random.default_rng(seed)
    structure, canonical = random_structure(rng, 3), rng.normal(0, 1, (21, 3))
    partners = keypoint_partners(NAMED_KEYPOINTS)
    mirrored = mirror_structure(torch.from_numpy(structure)).numpy()
    found = keypoints_from_structure(mirrored, (canonical @ MIRROR)[partners])
    wanted = (keypoints_from_structure(structure, canonical) @ MIRROR)[:, partners]
    assert np.abs(found - wanted).max() < 1e-9
    assert np.array_equal(mirror_structure(torch.from_numpy(mirrored)).numpy(), structure)


class FakeLandmarks:
    """MediaPipe's 478 points and pose of a face that only has the points which readings look at."""

    def __init__(self, points: np.ndarray, rotation: np.ndarray) -> None:
        self.points, self.rotation = points, rotation
        self.depth, self.detected = np.full(len(points), 50.0), np.ones(len(points), dtype=bool)


def mediapipe_partners() -> np.ndarray:
    partners = np.arange(478)
    names = list(KEYPOINTS)
    pairs = dict(RIGID_PARTNERS) | {145: 374}
    for name, other in zip(names, keypoint_partners(names)):
        if len(KEYPOINTS[name]) == 1:
            pairs[KEYPOINTS[name][0]] = KEYPOINTS[names[other]][0]
    for a, b in pairs.items():
        partners[a], partners[b] = b, a
    return partners


def test_vectors_read_from_mirrored_landmarks_are_the_mirrored_vectors() -> None:
    rng = np.random.default_rng(5)
    partners = mediapipe_partners()
    assert {int(partners[i]) for i in RIGID} == set(RIGID)
    face = rng.normal(0, 1, (478, 3))
    moving = face + rng.normal(0, 0.02, (12, 478, 3))
    moving[:, list(RIGID)] = face[list(RIGID)]
    angles = rng.uniform(-40, 40, (3, 12))
    rotation = np.swapaxes(camera.rotation_matrix(*angles), -1, -2)
    points = 0.3 * moving @ np.swapaxes(rotation, 1, 2) + rng.normal(0, 0.1, (12, 1, 3))
    plain = structure_vectors(FakeLandmarks(points, rotation))  # pyright: ignore[reportArgumentType]
    seen = FakeLandmarks((points @ MIRROR)[:, partners], MIRROR @ rotation @ MIRROR)
    mirrored = structure_vectors(seen)  # pyright: ignore[reportArgumentType]
    assert np.abs(plain).max() > 1
    assert np.abs(mirror_structure(torch.from_numpy(plain)).numpy() - mirrored).max() < 1e-4


def test_what_cannot_be_mirrored_is_refused() -> None:
    with pytest.raises(UserError, match="not 10 fields"):
        mirror_structure(torch.zeros(2, 10))
    with pytest.raises(UserError, match="with 3"):
        mirror_structure(torch.zeros(2, 70), names=["a", "b", "c"])
    with pytest.raises(UserError, match="no partner ear_right"):
        keypoint_partners(["chin", "ear_left"])
