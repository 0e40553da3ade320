"""Crops for the face encoders: whose rule, on which box, in batches, black beyond the edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from df_data.stages.face_vectors import (
    BROWS,
    EYES,
    LIP_CORNERS,
    FaceEncoders,
    black_outside,
    face_square,
    face_vectors,
    head_down,
    landmark_boxes,
    mean_boxes,
)
from df_models.crop import CropBox
from df_models.encoders.face.deca import FlameEncoder
from df_models.encoders.face.liveportrait import LivePortrait
from df_models.structure import FLAME_159, LIVEPORTRAIT_70, VectorLayout


class Seer:
    """Tells what it saw: mean and corner pixels of each crop, and how many came at once."""

    id, sha256, licence = "seer", "0", "none"

    def __init__(self, layout: VectorLayout, size: int, scale: float, offset: float) -> None:
        self.layout, self.size, self.crop_scale, self.crop_offset_y = layout, size, scale, offset
        self.batches: list[int] = []

    def encode(self, faces_BCHW: Tensor) -> Tensor:
        assert faces_BCHW.shape[1:] == (3, self.size, self.size) and float(faces_BCHW.max()) <= 1
        self.batches.append(len(faces_BCHW))
        out = torch.zeros(len(faces_BCHW), self.layout.dim)
        out[:, 0] = faces_BCHW.mean(dim=(1, 2, 3))
        out[:, 1], out[:, 2] = faces_BCHW[:, 0, 0, 0], faces_BCHW[:, 0, self.size // 2, self.size // 2]
        return out

    def to(self, device: object = None, dtype: object = None) -> Seer:
        return self


def landmarks(centre: tuple[float, float], half: float, tilt: float) -> np.ndarray:
    """Return [478, 2] of a head tilted by degrees clockwise: brows 1 above the lips, chin, and a forehead above."""
    points = np.zeros((478, 2))
    points[:, 1] = 0.2
    points[list(EYES)] = [0, -0.6]
    points[list(LIP_CORNERS)] = [[-0.3, 0.5], [0.3, 0.5]]
    points[list(BROWS)] = [0, -1.0]
    points[152], points[234], points[454] = [0, 1.0], [-0.8, 0], [0.8, 0]
    points[10] = [0, -1.7]  # the forehead, which does not count
    a = np.deg2rad(tilt)
    return points @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) * half + centre


@pytest.mark.parametrize("tilt", [0.0, 25.0, -40.0])
def test_liveportraits_box_has_no_forehead_and_turns_with_the_head(tilt: float) -> None:
    boxes = landmark_boxes(np.stack([landmarks((100, 80), 30, tilt), landmarks((100, 80), 20, tilt)]))
    assert boxes == pytest.approx(np.array([[70, 50, 130, 110], [80, 60, 120, 100]]), abs=1e-6)


def test_each_encoder_gets_the_box_that_its_rule_is_laid_on() -> None:
    """LivePortrait: 2.2 times the landmarks' square, up by 0.1. DECA: 1.25 times the sides' mean, down by 0.12."""
    points = np.repeat(landmarks((100, 80), 30, 0)[None], 5, axis=0)
    lively = face_square(landmark_boxes(points), LivePortrait)  # type: ignore[arg-type]
    assert (lively.side, lively.x + lively.side / 2) == pytest.approx((132, 100))
    assert lively.y + lively.side / 2 == pytest.approx(80 - 13.2)
    flame = face_square(mean_boxes(np.array([[60.0, 20, 120, 120]])), FlameEncoder)  # type: ignore[arg-type]
    assert (flame.side, flame.x + flame.side / 2) == pytest.approx((100, 90))
    assert flame.y + flame.side / 2 == pytest.approx(70 + 0.12 * 80)


def _published_centre(points: np.ndarray, scale: float, ratio: float) -> np.ndarray:
    """LivePortrait's rule written out (``parse_rect_from_landmark``); its landmarks have no forehead (point 10)."""
    eyes, lips = points[list(EYES)].mean(axis=0), points[list(LIP_CORNERS)].mean(axis=0)
    across_y = (lips - eyes) / np.linalg.norm(lips - eyes)
    across_x = np.array([across_y[1], -across_y[0]])
    faces = np.delete(points, 10, axis=0)
    middle = faces.mean(axis=0)
    turned = (faces - middle) @ np.stack([across_x, across_y]).T
    low, high = turned.min(axis=0), turned.max(axis=0)
    x, y = (low + high) / 2
    size = scale * (high - low).max()
    return middle + x * across_x + y * across_y + ratio * size * across_y


@pytest.mark.parametrize(("tilt", "apart"), [(0.0, 0.0), (10.0, 4.5), (-20.0, 8.9), (30.0, 13.3)])
def test_liveportraits_square_moves_along_the_heads_own_axis(tilt: float, apart: float) -> None:
    """``apart``: pixels of the 256 of the crop between that and a shift straight down."""
    points = np.repeat(landmarks((100, 80), 30, tilt)[None], 3, axis=0)
    boxes = landmark_boxes(points)
    square = face_square(boxes, LivePortrait, head_down(points))  # type: ignore[arg-type]
    found = np.array([square.x, square.y]) + square.side / 2
    assert found == pytest.approx(_published_centre(points[0], 2.2, -0.1), abs=1e-6)
    upright = face_square(boxes, LivePortrait)  # type: ignore[arg-type]
    shift = np.hypot(square.x - upright.x, square.y - upright.y) * 256 / square.side
    assert shift == pytest.approx(apart, abs=0.1)


def test_a_clips_vectors_come_in_batches_and_do_not_depend_on_them() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 60, 80, 3), dtype=np.uint8)
    square, found = CropBox(10.0, 5.0, 40.0), []
    for batch in (1, 3, 16):
        seer = Seer(FLAME_159, 32, 1.25, 0.1)
        found.append(face_vectors(frames, square, seer, batch))
        assert seer.batches == {1: [1] * 7, 3: [3, 3, 1], 16: [7]}[batch]
    assert found[0].shape == (7, 159) and found[0].dtype == np.float32
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert len(np.unique(found[0][:, 0])) == 7, "each frame has its own"


def test_both_encoders_read_the_images_as_they_were_decoded() -> None:
    frames = np.zeros((3, 200, 200, 3), dtype=np.uint8)
    frames[:, 60:140, 60:140] = 255  # the landmarks' square is about (100, 100), half 40; the detector's is the same
    points = np.repeat(landmarks((100, 100), 40, 0)[None], 3, axis=0)
    boxes = np.repeat([[60.0, 60, 140, 140]], 2, axis=0)
    motion, flame = Seer(LIVEPORTRAIT_70, 64, 2.0, 0.0), Seer(FLAME_159, 32, 1.0, 0.0)
    read = FaceEncoders(motion, flame, batch=2).read(frames, boxes, points)
    assert read.motion is not None and read.flame is not None
    assert read.motion[:, 0] == pytest.approx(0.25, abs=0.01) and read.flame[:, 0] == pytest.approx(1.0, abs=0.01)
    alone = FaceEncoders(flame=flame).read(frames, boxes, points)
    assert alone.motion is None and np.array_equal(alone.flame, read.flame)
    assert FaceEncoders().read(frames, boxes, points).motion is None


def test_beyond_the_image_is_black() -> None:
    white = np.full((2, 8, 8, 3), 255, dtype=np.uint8)
    crops = black_outside(white, CropBox(-25.0, 50.0, 100.0), (100, 60))  # 12.5 px a pixel
    inside = crops[0, :, :, 0] == 255
    assert inside.any(axis=1).tolist() == [True] * 4 + [False] * 4, "rows: the image ends at 100, the crop at 150"
    assert inside.any(axis=0).tolist() == [False] * 2 + [True] * 5 + [False], "columns: from 0 to 60 of -25 to 75"
