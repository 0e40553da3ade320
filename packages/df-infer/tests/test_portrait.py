import os
from pathlib import Path

import numpy as np
import pytest

from df_infer.portrait import portrait_from
from df_models.errors import UserError


def test_takes_the_centre_square() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    assert portrait_from(image, 16, "none")[1:-1, 1:-1].min() >= 199


def test_keeps_a_picture_of_the_right_size() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(portrait_from(image, 64, "none"), image)


def test_a_face_crop_needs_its_detector() -> None:
    with pytest.raises(UserError, match="--face-detector"):
        portrait_from(np.zeros((64, 64, 3), np.uint8), 64, "yunet:1.5:-0.03")


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(UserError, match="'retina'"):
        portrait_from(np.zeros((64, 64, 3), np.uint8), 64, "retina:1.5:0", "x.onnx")


def test_refuses_what_is_no_rgb_picture() -> None:
    with pytest.raises(UserError, match="uint8 RGB"):
        portrait_from(np.zeros((64, 64), np.uint8), 64, "none")


def test_a_picture_without_a_face_is_an_error() -> None:
    beside = Path(__file__).parents[4] / "shared" / "weights"
    found = sorted(Path(os.environ.get("DF_TEST_WEIGHTS", beside)).glob("*yunet*.onnx"))
    if not found:
        pytest.skip("DF_TEST_WEIGHTS names no directory with YuNet")
    with pytest.raises(UserError, match="no face found"):
        portrait_from(np.full((200, 200, 3), 90, np.uint8), 64, "yunet:1.5:-0.03", found[0])
