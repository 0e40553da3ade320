"""FSA-Net's angles as rotations, what it is given to see, and wrong files. On faces: df-data's tests/real."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from df_models.encoders.face import head_pose
from df_models.encoders.face.head_pose import HeadPose, angle_between, rotation_of
from df_models.errors import UserError


def test_the_rotation_is_about_x_then_y_then_z_of_the_head():
    angles = np.random.default_rng(0).uniform(-80, 80, (20, 3))
    turned = angles[:, [1, 0, 2]] * [-1, 1, 1]
    expected = Rotation.from_euler("XYZ", turned, degrees=True).as_matrix()
    np.testing.assert_allclose(rotation_of(angles), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("angles", "nose"),
    [((30, 0, 0), (-0.5, 0, -np.sqrt(0.75))), ((0, 30, 0), (0, -0.5, -np.sqrt(0.75))), ((0, 0, 30), (0, 0, -1))],
)
def test_where_the_nose_goes(angles, nose):
    """Yaw > 0: to the left of the image; FSA-Net's pitch > 0: up; roll > 0 lowers the head's right in the image."""
    rotation = rotation_of(np.array([angles], dtype=float))[0]
    np.testing.assert_allclose(rotation @ [0, 0, -1], nose, atol=1e-12)
    assert (rotation @ [1, 0, 0])[1] == pytest.approx(0.5 if angles[2] else 0, abs=1e-12)


def test_the_angle_between_rotations_is_scipys():
    a, b = (Rotation.random(50, rng=seed) for seed in (1, 2))
    expected = np.degrees((a.inv() * b).magnitude())
    np.testing.assert_allclose(angle_between(a.as_matrix(), b.as_matrix()), expected, rtol=1e-6)
    assert angle_between(a.as_matrix(), a.as_matrix()).max() < 1e-5


class Session:
    """Gives the mean of each colour plus a number as its three angles, and keeps what it was given."""

    def __init__(self, plus: float, shape: tuple[int, ...] = (1, 3, 64, 64)) -> None:
        self.plus, self.shape, self.seen = plus, shape, []

    def get_inputs(self):
        return [SimpleNamespace(name="input", shape=list(self.shape))]

    def get_outputs(self):
        return [SimpleNamespace(name="output", shape=[1, 3])]

    def run(self, names, given):
        self.seen.append(given["input"])
        return [given["input"].mean(axis=(2, 3)) + self.plus]


@pytest.fixture
def sessions(tmp_path, monkeypatch):
    """(two files, the sessions that opening them gives)"""
    made = {name: Session(plus) for name, plus in (("a.onnx", 1.0), ("b.onnx", 3.0))}
    for name in made:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(head_pose, "open_onnx", lambda path, what, how: made[path.name])
    return [tmp_path / name for name in made], made


def test_the_networks_see_blue_first_and_are_averaged(sessions):
    paths, made = sessions
    face = np.zeros((64, 64, 3), np.uint8)
    face[..., 0], face[..., 2] = 255, 127
    angles = HeadPose(paths).angles(face)
    colours = np.array([127 - 127.5, -127.5, 127.5]) / 128
    np.testing.assert_allclose(angles, colours + 2, rtol=1e-6)
    assert made["a.onnx"].seen[0].dtype == np.float32 and made["a.onnx"].seen[0].flags.c_contiguous


def test_faces_are_squares_of_1_4_times_the_box(sessions):
    paths, made = sessions
    frame = np.zeros((400, 400, 3), np.uint8)
    frame[130:270, 80:220] = 255  # 1.4 times 100 around (150, 200)
    found = HeadPose(paths).rotations([frame, frame], np.array([[110.0, 150, 190, 250], [210, 150, 290, 250]]))
    first, second = (batch[0, 0] for batch in made["a.onnx"].seen)
    assert found.shape == (2, 3, 3) and first[2:-2, 2:-2].min() > 0.99
    assert second[2:-2, :16].min() > 0.9 and second[:, 24:].max() < -0.9


def test_the_hash_does_not_depend_on_the_order_and_wrong_files_are_told(sessions, tmp_path, monkeypatch):
    paths, made = sessions
    assert HeadPose(paths).sha256 == HeadPose(paths[::-1]).sha256
    with pytest.raises(UserError, match="two files, not 1"):
        HeadPose([paths[0], paths[0]])
    made["b.onnx"].shape = (1, 3, 112, 112)
    with pytest.raises(UserError, match=r"b.onnx is not FSA-Net: it has \[\[1, 3, 112, 112\], \[1, 3\]\]"):
        HeadPose(paths)
    monkeypatch.undo()
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=r"the head pose network is missing: no file .*gone.onnx; take fsanet"):
        HeadPose([paths[0].with_name("gone.onnx"), paths[1].with_name("lost.onnx")])
    with pytest.raises(UserError, match=r"a.onnx is no ONNX model that can be read"):
        HeadPose(paths)
