import logging
import os
from pathlib import Path

import numpy as np
import pytest

from df_infer.portrait import portrait_from
from df_models.encoders.face import face_detectors
from df_models.encoders.face.yunet import Face
from df_models.errors import UserError
from df_models.media import read_image


def test_takes_the_centre_square() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert portrait_from(image, 16, "none")[1:-1, 1:-1].min() >= 199


def test_keeps_an_image_of_the_right_size() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(portrait_from(image, 64, "none"), image)


def test_an_image_of_few_pixels_is_told(caplog: pytest.LogCaptureFixture) -> None:
    portrait_from(np.zeros((1, 1, 3), np.uint8), 64, "none")
    assert "only 1 of the 64 pixels" in caplog.text
    caplog.clear()
    portrait_from(np.zeros((40, 50, 3), np.uint8), 64, "none")
    assert not caplog.text


def test_a_face_crop_needs_its_detector() -> None:
    with pytest.raises(UserError, match="--face-detector"):
        portrait_from(np.zeros((64, 64, 3), np.uint8), 64, "yunet:1.5:-0.03")


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(UserError, match="'retina'"):
        portrait_from(np.zeros((64, 64, 3), np.uint8), 64, "retina:1.5:0", "x.onnx")


def test_the_detector_is_the_rules_own() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(UserError, match=r"cropped by yunet.* retinaface's; give --face-detector yunet:FILE"):
        portrait_from(image, 64, "yunet:1.5:0", "retinaface:x.pth")
    with pytest.raises(UserError, match=r"gone\.pth; get mobilenet0\.25_Final"):
        portrait_from(image, 64, "retinaface:1.5:0", "gone.pth")


class Told:
    """A detector that finds square faces of the given sizes, side by side."""

    def __init__(self, *sizes: float) -> None:
        starts = np.cumsum([0, *sizes]) + 10.0
        self.faces = [Face(np.array([x, 40, x + s, 40 + s]), np.zeros((5, 2)), 0.9) for x, s in zip(starts, sizes)]

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.faces


def crop(monkeypatch: pytest.MonkeyPatch, sizes: tuple[float, ...], rule: str = "yunet:1:0") -> np.ndarray:
    """The portrait of an image whose red is the column and whose green is the row."""
    monkeypatch.setattr(face_detectors, "load_face_detector", lambda spec: Told(*sizes))
    rows, columns = np.mgrid[:200, :250]
    image = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)
    return portrait_from(image, 64, rule, "x.onnx")


def test_the_largest_face_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = crop(monkeypatch, (40, 100, 50))
    assert abs(int(found[..., 0].min()) - 50) <= 1 and abs(int(found[..., 0].max()) - 149) <= 1


def test_of_faces_of_like_size_none_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"2 faces of like size \(100, 80 px\); cut it to the one that is meant"):
        crop(monkeypatch, (80, 30, 100))


def test_a_crop_far_over_the_edge_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        crop(monkeypatch, (100,))
        assert not caplog.records
        crop(monkeypatch, (100,), "yunet:2:0")  # a square of 200 from (-40, -10): 160 x 190 of it are there
    assert [record.getMessage().partition(" of")[0] for record in caplog.records] == ["only 76 %"]


def test_refuses_what_is_no_rgb_image() -> None:
    with pytest.raises(UserError, match="uint8 RGB"):
        portrait_from(np.zeros((64, 64), np.uint8), 64, "none")


def test_an_image_without_a_face_is_an_error() -> None:
    beside = Path(__file__).parents[4] / "shared" / "weights"
    found = sorted(Path(os.environ.get("DF_TEST_WEIGHTS", beside)).glob("*yunet*.onnx"))
    if not found:
        pytest.skip("DF_TEST_WEIGHTS names no directory with YuNet")
    with pytest.raises(UserError, match="no face found"):
        portrait_from(np.full((200, 200, 3), 90, np.uint8), 64, "yunet:1.5:-0.03", found[0])


class OnlyHere:
    """A detector that finds a face whose pixels are red, if it is 16 pixels or more, surer of it the right way up."""

    def __init__(self) -> None:
        self.looks = 0

    def detect(self, image: np.ndarray) -> list[Face]:
        self.looks += 1
        rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 2] < 100))
        if not len(rows) or np.ptp(rows) < 15 or np.ptp(columns) < 15:
            return []
        x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
        top = image[y0 : (y0 + y1) // 2, x0:x1, 1].mean() > image[(y0 + y1) // 2 : y1, x0:x1, 1].mean() + 50
        upright = np.array([[x0, y0], [x1, y0], [x0, y0], [x0, y1], [x1, y1]], np.float64)
        return [Face(np.array([x0, y0, x1, y1], np.float64), upright, 0.94 if top else 0.9)]


def photo(side: int, at: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """A grey image with a red square whose upper half is yellow."""
    image = np.full((*shape, 3), 120, np.uint8)
    y, x = at
    image[y : y + side, x : x + side] = (220, 20, 20)
    image[y : y + side // 2, x : x + side] = (220, 200, 20)
    return image


@pytest.mark.parametrize("quarter", range(4))
def test_a_small_face_in_a_large_photo_is_found_and_stands_upright(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, quarter: int
) -> None:
    detector = OnlyHere()
    monkeypatch.setattr(face_detectors, "load_face_detector", lambda spec: detector)
    image = np.rot90(photo(100, (1400, 2300), (3000, 4000)), quarter)
    with caplog.at_level(logging.WARNING):
        found = portrait_from(np.ascontiguousarray(image), 64, "yunet:1:0", "x.onnx")
    assert found[:28, :, 1].min() > 190 and found[36:, :, 1].max() < 40
    assert ("was turned" in caplog.text) == (quarter > 0)
    assert "blurred" not in caplog.text and detector.looks < 400


def test_a_face_with_few_pixels_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(face_detectors, "load_face_detector", lambda spec: OnlyHere())
    with caplog.at_level(logging.WARNING):
        portrait_from(photo(60, (40, 50), (200, 200)), 256, "yunet:1:0", "x.onnx")
    assert "only 60 of the 256 pixels" in caplog.text


@pytest.mark.parametrize("quarter", range(4))
def test_a_real_face_stands_upright_however_it_was_given(quarter: int) -> None:
    from df_models.encoders.face.face_search import find_faces
    from df_models.encoders.face.yunet import YuNet

    beside = Path(__file__).parents[4] / "shared"
    weights = sorted(Path(os.environ.get("DF_TEST_WEIGHTS", beside / "weights")).glob("*yunet*.onnx"))
    faces = sorted((Path(os.environ.get("DF_TEST_DATA", beside / "data")) / "faces").glob("*.jpg"))
    if not weights or not faces:
        pytest.skip("DF_TEST_WEIGHTS and DF_TEST_DATA name no YuNet and no faces")
    for path in faces:
        found = find_faces(np.rot90(read_image(path), quarter), YuNet(weights[0]))
        assert found.turn == -90 * quarter % 360 and len(found.faces) == 1, path.name
