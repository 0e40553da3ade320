"""The crop rule and the resampling, on images made here."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from df_models.crop import CropBox, CropRule, crop_resize, resample_matrix, square_crop
from df_models.encoders.face.yunet import Face, box_iou, suppress_overlaps
from df_models.errors import UserError


def noise_image(height: int = 90, width: int = 120, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 6, width // 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("side", "size"), [(80.0, 32), (48.0, 96), (64.0, 64)])
def test_crop_equals_pillow_inside_the_image(side: float, size: int) -> None:
    image = noise_image()
    box = CropBox(5.25, 3.5, side)
    ours = crop_resize(image, box, size).astype(int)
    theirs = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, box=(box.x, box.y, box.x + side, box.y + side)
    )
    inner = slice(3, -3)  # Pillow stops the filter at the box, ours sees the image around it
    assert np.abs(ours - np.asarray(theirs).astype(int))[inner, inner].max() <= 2


def test_whole_image_at_its_own_size_is_unchanged() -> None:
    image = noise_image(64, 64)
    assert np.array_equal(crop_resize(image, CropBox(0, 0, 64), 64), image)


def test_crop_over_the_edge_goes_on_with_the_edge() -> None:
    image = np.full((20, 20, 3), 77, dtype=np.uint8)
    assert np.unique(crop_resize(image, CropBox(-30, -30, 60), 16)).tolist() == [77]
    assert CropBox(-10, 0, 20).inside(20, 20) == pytest.approx(0.5)


def test_shrinking_a_fine_checkerboard_gives_grey_not_aliases() -> None:
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = crop_resize(np.repeat(board[..., None], 3, axis=2), CropBox(0, 0, 128), 32)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() <= 3


def test_rows_of_the_resampling_sum_to_one() -> None:
    for start, stop, size in ((0, 50, 7), (-13.2, 70.9, 64), (10.1, 12.7, 40)):
        assert np.allclose(resample_matrix(50, start, stop, size).sum(axis=1), 1, atol=1e-5)


def test_points_follow_the_crop() -> None:
    box = CropBox(10, 20, 40)
    assert box.to_crop(np.array([[30.0, 40.0], [10.0, 60.0]]), 64).tolist() == [[32, 32], [0, 64]]


def test_the_square_is_the_median_and_ignores_one_wild_box() -> None:
    boxes = np.array([[10, 20, 50, 80]] * 5 + [[300, 300, 400, 400]], dtype=float)
    box = square_crop(boxes, CropRule(scale=1.5, vertical_offset=-0.1))
    assert (box.x, box.y, box.side) == pytest.approx((30 - 45, 50 - 9 - 45, 90))


def test_rule_is_one_word_and_back() -> None:
    rule = CropRule("yunet", 1.45, -0.05)
    assert CropRule.parse(str(rule)) == rule
    with pytest.raises(UserError, match="no crop rule"):
        CropRule.parse("tight")


def test_overlapping_faces_are_one() -> None:
    def face(x: float, score: float) -> Face:
        return Face(np.array([x, 0, x + 10, 10.0]), np.zeros((5, 2)), score)

    kept = suppress_overlaps([face(0, 0.9), face(2, 0.8), face(30, 0.7)], 0.3)
    assert [f.score for f in kept] == [0.9, 0.7]
    assert box_iou(kept[0].box, kept[0].box) == 1 and box_iou(kept[0].box, kept[1].box) == 0
