"""Images: reproducible, in true perspective, with a mouth that can be read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from df_data.synth.head import camera
from df_data.synth.head.face_state import FaceTracks, random_tracks
from df_data.synth.head.identity import IDENTITY_DIM, Identity, identity_vector
from df_data.synth.head.render import render
from df_models.errors import UserError

HASH = """
import hashlib, numpy as np
from df_data.synth.head.identity import Identity
from df_data.synth.head.face_state import random_tracks
from df_data.synth.head.render import render
shown = render(Identity.sample(5), random_tracks(np.random.default_rng(2), 3), 64)
print(hashlib.sha256(shown.frames.tobytes() + shown.keypoints.tobytes()).hexdigest())
"""


def test_same_bytes_in_another_process() -> None:
    import hashlib

    shown = render(Identity.sample(5), random_tracks(np.random.default_rng(2), 3), 64)
    here = hashlib.sha256(shown.frames.tobytes() + shown.keypoints.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", HASH], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_a_frame_does_not_depend_on_its_neighbours() -> None:
    tracks = random_tracks(np.random.default_rng(4), 4)
    alone = FaceTracks(*(column[2:3] for column in tracks.as_array().T))
    person = Identity.sample(3)
    np.testing.assert_array_equal(render(person, tracks).frames[2:3], render(person, alone).frames)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_shapes_and_boxes(size: int) -> None:
    shown = render(Identity.sample(1), FaceTracks.neutral(2, jaw=0.8), size)
    assert shown.frames.shape == (2, size, size, 3) and shown.frames.dtype == np.uint8
    assert shown.keypoints.shape == (2, 21, 3) and shown.landmarks2d.shape == (2, 21, 2)
    x0, y0, x1, y1 = shown.mouth_boxes[0]
    lips = shown.landmarks2d[0, [6, 12, 14, 17, 19, 20]]
    assert x0 < lips[:, 0].min() and x1 > lips[:, 0].max() and y0 < lips[:, 1].min() and y1 > lips[:, 1].max()


def test_same_image_at_every_size() -> None:
    small = render(Identity.sample(8), FaceTracks.neutral(1, jaw=0.5), 64).frames[0].astype(float)
    large = render(Identity.sample(8), FaceTracks.neutral(1, jaw=0.5), 256).frames[0].astype(float)
    pooled = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(pooled - small).mean() < 3.0


def test_turning_the_head_shows_parallax() -> None:
    person = Identity.sample(2)
    ahead = render(person, FaceTracks.neutral(1)).landmarks2d[0]
    turned = render(person, FaceTracks.neutral(1, yaw=25.0)).landmarks2d[0]
    nose, left, right = 0, 7, 8
    assert turned[nose, 0] < ahead[nose, 0] - 5
    assert (ahead - turned)[nose, 0] > 1.3 * (ahead - turned)[[left, right], 0].mean()
    near, far = turned[right, 0] - turned[nose, 0], turned[nose, 0] - turned[left, 0]
    assert far < 0.7 * near


def test_perspective_is_true() -> None:
    nearer = np.array([[0.5, 0.0, -1.0], [0.5, 0.0, 1.0]])
    seen = camera.project(nearer, 64)[:, 0] - 32
    assert seen[0] / seen[1] == pytest.approx((camera.DISTANCE + 1) / (camera.DISTANCE - 1))


def test_the_mouth_can_be_read_at_64_pixels() -> None:
    for number in range(6):
        shown = render(Identity.sample(number), FaceTracks.neutral(2, jaw=np.array([0.0, 1.0])), 64)
        points = shown.landmarks2d
        assert 15 < points[0, 17, 0] - points[0, 14, 0] < 24
        assert 8 < points[1, 19, 1] - points[1, 6, 1] < 12
        box = shown.mouth_boxes[1].round().astype(int)
        closed, opened = (f[box[1] : box[3], box[0] : box[2]].astype(float) for f in shown.frames)
        assert np.abs(closed - opened).mean() > 15


def test_closing_the_eyes_hides_the_whites() -> None:
    shown = render(Identity.sample(1), FaceTracks.neutral(2, blink=np.array([0.0, 1.0])), 128)
    frames = shown.frames.astype(float)
    x, y = shown.landmarks2d[0, 11].round().astype(int)
    eyeball = np.abs(frames[0] - frames[1])[y - 2 : y + 3, x - 8 : x + 9]
    skin = frames[1, y - 12 : y - 8, x - 4 : x + 5].mean(axis=(0, 1))
    assert eyeball.mean() > 25
    whites = frames[:, y - 3 : y + 2, x - 10 : x + 11].reshape(2, -1, 3)
    unlike_skin = np.abs(whites / whites.sum(axis=2, keepdims=True) - skin / skin.sum()).sum(axis=2).mean(axis=1)
    assert unlike_skin[1] < 0.7 * unlike_skin[0]


def test_light_comes_from_its_side() -> None:
    tracks = FaceTracks.neutral(2, light_azimuth=np.array([-70.0, 70.0]), light_elevation=10.0)
    frames = render(Identity.sample(1), tracks, 64).frames.astype(float)
    left, right = frames[:, 25:45, 18:28].mean(axis=(1, 2, 3)), frames[:, 25:45, 36:46].mean(axis=(1, 2, 3))
    assert left[0] > right[0] and right[1] > left[1]


def test_identities_are_stable_and_spread() -> None:
    assert Identity.sample(17) == Identity.sample(17)
    assert Identity.sample(17).head_width == pytest.approx(0.9582180100510549, abs=1e-12)
    vectors = np.stack([identity_vector(Identity.sample(i)) for i in range(400)])
    assert vectors.shape == (400, IDENTITY_DIM) and vectors.dtype == np.float32
    assert np.abs(vectors.mean(axis=0)).max() < 0.2 and np.abs(vectors.std(axis=0) - 1).max() < 0.15


def test_images_of_people_differ() -> None:
    frames = [render(Identity.sample(i), FaceTracks.neutral(1)).frames[0].astype(float) for i in range(6)]
    apart = [np.abs(a - b).mean() for i, a in enumerate(frames) for b in frames[:i]]
    assert min(apart) > 8


def test_too_small_a_frame_is_refused() -> None:
    with pytest.raises(UserError, match="at least 16"):
        render(Identity.sample(0), FaceTracks.neutral(1), 8)
