"""Turning a face upright, on cases whose answer is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from df_data.stages.identity import NETWORKS, TEMPLATE, FaceIdentity, fit_similarity, upright_face
from df_models.errors import UserError


def turn(degrees: float, scale: float) -> np.ndarray:
    angle = np.radians(degrees)
    return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_a_similarity_comes_out_as_it_went_in() -> None:
    matrix, shift = turn(25, 1.7), np.array([4.0, -9.0])
    found, moved = fit_similarity(TEMPLATE, TEMPLATE @ matrix.T + shift)
    assert np.allclose(found, matrix) and np.allclose(moved, shift)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    found, _ = fit_similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(found) > 0


def test_a_turned_and_enlarged_face_comes_out_upright() -> None:
    """A smooth image seen through a turn: the upright face shows at each pixel what the image has there."""
    matrix, shift = turn(-20, 2.0), np.array([60.0, 100.0])
    rows, columns = np.mgrid[:400, :400].astype(float)
    back = (np.stack([columns, rows], axis=-1) - shift) @ np.linalg.inv(matrix).T
    image = np.clip(np.stack([2 * back[..., 0], 2 * back[..., 1], 0 * rows + 90], axis=-1), 0, 255).astype(np.uint8)
    face = upright_face(image, TEMPLATE @ matrix.T + shift).astype(int)
    expected = 2 * np.arange(112)
    assert np.abs(face[60, 20:90, 0] - expected[20:90]).max() <= 2
    assert np.abs(face[20:90, 60, 1] - expected[20:90]).max() <= 2


def test_a_missing_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.onnx.*MobileFaceNet"):
        FaceIdentity(tmp_path / "gone.onnx")


class Session:
    """Stands in for onnxruntime's: keeps the image it was given."""

    shape: ClassVar[list[object]] = ["N", 3, 112, 112]
    seen: ClassVar[list[np.ndarray]] = []

    def __init__(self, *args: object, **options: object) -> None: ...

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="image", shape=self.shape)]

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.seen.append(given["image"])
        return [np.array([[3.0, 4.0]])]


def test_every_family_of_networks_gets_its_own_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("onnxruntime"), "InferenceSession", Session)
    (tmp_path / "net.onnx").write_bytes(b"")
    face = np.zeros((112, 112, 3), np.uint8)
    face[0, 0] = 255
    networks = [FaceIdentity(tmp_path / "net.onnx", NETWORKS[name]) for name in ("arcface", "mobilefacenet")]
    Session.seen.clear()
    for network in networks:
        assert network.embed(face).tolist() == [0.6, 0.8] and network.width == 2
    arcface, mobile = Session.seen
    assert arcface.shape == (1, 3, 112, 112) and arcface.dtype == np.float32
    assert arcface[0, :, 0, 0].tolist() == [1, 1, 1] and arcface[0, :, 5, 5].tolist() == [-1, -1, -1]
    assert mobile[0, 0, 0, 0] == pytest.approx((1 - 0.485) / 0.229)
    monkeypatch.setattr(Session, "shape", [8, 3, 112, 112])
    with pytest.raises(UserError, match=r"reads \[8, 3, 112, 112\].*ArcFace"):
        FaceIdentity(tmp_path / "net.onnx", NETWORKS["arcface"])


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no network at all")
    with pytest.raises(UserError, match=r"bad\.onnx is no ONNX model that can be read") as error:
        FaceIdentity(bad)
    assert "\n" not in str(error.value)
