"""What DECA and L2CS-Net give real faces: where they look, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_real_reader import SHAPE, Landmarker, landmarks_of

from df_data.stages.face_vectors import BROWS
from df_eval.clips import EvalClip
from df_eval.config import ReadersConfig
from df_eval.metrics import SPECS
from df_eval.metrics import face_networks as measures
from df_eval.metrics.network_specs import NETWORK_METRICS
from df_eval.reading import face_crops, real
from df_eval.reading.face_crops import DECA_SCALE, face_boxes
from df_eval.reading.real import RealFaceReader
from df_models.encoders import weights
from df_models.encoders.face.deca import DECA_236, ParameterEncoder
from df_models.encoders.face.gaze import GazeTowers
from df_models.errors import UserError
from df_models.settings import Location
from df_models.structure import FLAME_MOTION_59


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReadersConfig:
    """Weights of the true layouts, at random."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save({"E_flame": ParameterEncoder(DECA_236.dim).state_dict()}, folder / "deca_model.tar")
    torch.save(GazeTowers().state_dict(), folder / "L2CSNet_gaze360.pkl")
    return ReadersConfig(deca=Location(folder / "deca_model.tar"), gaze=Location(folder / "L2CSNet_gaze360.pkl"))


def test_networks_whose_files_are_given_read_every_frame_with_a_face(
    files: ReadersConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "_landmarker", lambda _: Landmarker())
    reader = RealFaceReader(files, "liveportrait", None)
    assert "deca (" in reader.id and "l2cs_gaze360 (" in reader.id
    frames = np.random.default_rng(0).integers(1, 256, size=(3, 64, 64, 3), dtype=np.uint8)
    frames[1] = 0
    read, true = reader.read_true(EvalClip("c", "who", frames, np.zeros(640 * 3, np.float32), {}), 2)
    assert read is not None and read.flame_TD is not None and read.look_T2 is not None and true.flame_TD is not None
    assert read.flame_TD.shape == (2, 59) and true.flame_TD.shape == (3, 59) and read.look_T2.shape == (2, 2)
    np.testing.assert_array_equal(read.flame_TD, true.flame_TD[:2])
    assert np.isnan(true.flame_TD[1]).all() and np.isfinite(true.flame_TD[[0, 2]]).all()
    assert true.look_T2 is not None and np.isfinite(true.look_T2[[0, 2]]).all()
    assert not {spec.name for spec in NETWORK_METRICS} & {*reader.unavailable}


def test_without_their_files_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_landmarker", lambda _: Landmarker())
    reader = RealFaceReader(ReadersConfig(), "liveportrait", None)
    assert reader.unavailable["flame_jaw_corr"] == "no file is given for it (readers.deca=PATH)"
    assert reader.unavailable["gaze_error"] == "no file is given for it (readers.gaze=PATH)"
    assert {"flame", "look"} <= {need for spec in NETWORK_METRICS for need in spec.needs} and "gaze_speed" in SPECS
    with pytest.raises(UserError, match="'smirk' is none of deca, emoca"):
        face_crops.FlameReader("smirk:/x.tar")


@pytest.mark.parametrize(
    ("reader", "given", "said"),
    [
        (face_crops.GazeReader, "weights/gaze.pkl", "readers.gaze: no such file: weights/gaze.pkl"),
        (face_crops.FlameReader, "weights/deca.tar", "readers.deca: no such file: weights/deca.tar"),
        (face_crops.FlameReader, "emoca:weights/emoca.ckpt", "readers.deca: no such file: weights/emoca.ckpt"),
    ],
)
def test_a_wrong_path_is_not_looked_for_on_the_hub(
    reader: Callable[[str], object], given: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_download", lambda *asked: pytest.fail(f"looked for {asked}"))
    with pytest.raises(UserError, match=said):
        reader(given)


def test_the_squares_are_those_of_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.full((2, 64, 64, 3), 9, np.uint8)
    landmarks = landmarks_of(frames)
    whole, lower = (face_boxes(landmarks, from_brows=part) for part in (False, True))
    top = SHAPE[list(BROWS), 1].min()
    assert lower[0, 0, 1] == pytest.approx(top) and whole[0, 0, 1] == pytest.approx(landmarks.points[0, :, 1].min())
    squares = []
    monkeypatch.setattr(
        face_crops, "crop_resize", lambda f, box, size: squares.append(box) or np.zeros((1, size, size, 3), np.uint8)
    )
    boxes = [(box, DECA_SCALE * float(np.mean(box[1] - box[0]))) for box in lower]
    face_crops._read(frames, landmarks, boxes, 4, lambda faces: np.zeros((len(faces), 1)), 1)
    low, high = lower[0] * 32 + 32
    assert squares[0].side == pytest.approx(1.375 * (high - low).mean())
    assert (squares[0].x + squares[0].side / 2, squares[0].y + squares[0].side / 2) == pytest.approx((low + high) / 2)


def flame(rotation: np.ndarray, expression: float, jaw: float) -> np.ndarray:
    vectors = np.zeros((len(rotation), FLAME_MOTION_59.dim))
    vectors[:, FLAME_MOTION_59.slice("rotation")] = rotation
    vectors[:, FLAME_MOTION_59.slice("expression")] = expression
    vectors[:, FLAME_MOTION_59.slice("jaw").start] = jaw
    return vectors


def test_flame_is_measured_in_degrees_and_coefficients() -> None:
    turned = Rotation.from_euler("xyz", [[40, 10, -20]] * 12, degrees=True)
    further = turned * Rotation.from_rotvec(np.radians([[0, 7.0, 0]] * 12))
    read, true = flame(further.as_rotvec(), 0.5, 0.1), flame(turned.as_rotvec(), 0.2, 0.0)
    read[3] = np.nan
    assert measures.flame_pose_distance(read, true).value == pytest.approx(7.0)
    assert measures.flame_expression_distance(read, true).value == pytest.approx(0.3)
    assert measures.jaw_degrees(read)[0] == pytest.approx(np.degrees(0.1))
    assert not measures.flame_pose_distance(read * np.nan, true).defined


def test_gaze_is_measured_as_angles_between_directions() -> None:
    true = np.stack([np.linspace(-10, 10, 21), np.zeros(21)], axis=1)
    assert measures.gaze_error(true + np.array([0.0, 5.0]), true).value == pytest.approx(5.0, abs=0.1)
    assert measures.gaze_error(true, true).value == 0.0
    assert measures.gaze_speed(true).value == pytest.approx(25.0), "a degree per frame"
    assert measures.gaze_spread(true).value == pytest.approx(np.abs(np.linspace(-10, 10, 21)).mean(), rel=1e-3)
    assert measures.gaze_spread(np.zeros((21, 2))).value == 0.0, "a stare"
    gone = true.copy()
    gone[::2] = np.nan
    assert not measures.gaze_speed(gone).defined and measures.gaze_error(gone, true).value == 0.0
