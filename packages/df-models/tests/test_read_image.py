"""Images of every kind that people have come out as uint8 RGB, upright, in the right colours."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from df_models.errors import UserError
from df_models.media import read_image

Image = pytest.importorskip("PIL.Image")
ImageCms = pytest.importorskip("PIL.ImageCms")


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth image [24, 32, 3] whose corners differ."""
    rows, columns = np.mgrid[:24, :32]
    return np.stack([8 * columns, 10 * rows, 0 * rows + 60], axis=-1).astype(np.uint8)


def stored(tmp_path: Path, image: Any, name: str, **options: Any) -> np.ndarray:
    image.save(tmp_path / name, **options)
    found = read_image(tmp_path / name)
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def test_plain_grey_and_palette(tmp_path: Path, pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    assert np.array_equal(stored(tmp_path, image, "a.png"), pixels)
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(stored(tmp_path, image.convert("L"), "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    assert distance(stored(tmp_path, image.convert("P", palette=1), "p.png"), pixels) < 12
    assert set(np.unique(stored(tmp_path, image.convert("1"), "one.png"))) <= {0, 255}


def test_a_jpeg_for_print_is_not_a_negative(tmp_path: Path, pixels: np.ndarray) -> None:
    assert distance(stored(tmp_path, Image.fromarray(pixels).convert("CMYK"), "c.jpg", quality=95), pixels) < 3


@pytest.mark.parametrize("tag", range(1, 9))
def test_every_exif_turn_comes_out_upright(tmp_path: Path, pixels: np.ndarray, tag: int) -> None:
    """The tags of EXIF 2.3: what has to be done to the stored image, undone here."""
    done = [
        lambda p: p, lambda p: p[:, ::-1], lambda p: p[::-1, ::-1], lambda p: p[::-1],
        lambda p: p.transpose(1, 0, 2), lambda p: np.rot90(p, 1), lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        lambda p: np.rot90(p, -1),
    ]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = tag
    kept = np.ascontiguousarray(done[tag - 1](pixels))
    assert np.array_equal(stored(tmp_path, Image.fromarray(kept), "t.png", exif=exif), pixels)


def test_transparent_lies_on_white_whatever_colour_hides_there(tmp_path: Path, pixels: np.ndarray) -> None:
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    alpha[:, 16:] = 255
    alpha[:, 8:16] = 128
    cut = Image.fromarray(np.concatenate([pixels, alpha[..., None]], axis=2))
    for found in (stored(tmp_path, cut, "a.png"), stored(tmp_path, cut, "a.webp", lossless=True)):
        assert (found[:, :8] == 255).all() and np.array_equal(found[:, 16:], pixels[:, 16:])
        assert distance(found[:, 8:16], (pixels[:, 8:16].astype(int) + 255) / 2) < 1.5
    grey = Image.merge("LA", (Image.fromarray(pixels[..., 0].copy()), Image.fromarray(alpha)))
    assert (stored(tmp_path, grey, "la.png")[:, :8] == 255).all()


def test_sixteen_bits_become_eight(tmp_path: Path, pixels: np.ndarray) -> None:
    levels = pixels[..., 0].astype(np.uint16) * 257
    for name in ("g.png", "g.tiff"):
        assert np.array_equal(stored(tmp_path, Image.fromarray(levels), name)[..., 1], pixels[..., 0])
    (tmp_path / "rgb.png").write_bytes(rgb_png_of_16_bits(pixels.astype(np.uint16) * 257))
    assert np.array_equal(read_image(tmp_path / "rgb.png"), pixels)


def rgb_png_of_16_bits(levels_HWC: np.ndarray) -> bytes:
    """Pillow writes none: PNG specification, chapters 5 and 11."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels_HWC.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels_HWC)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_numbers_without_a_known_white_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    for number, dtype in enumerate((np.float32, np.int32)):
        path = tmp_path / f"{number}.tiff"
        Image.fromarray(pixels[..., 0].astype(dtype)).save(path)
        with pytest.raises(UserError, match="32 bits"):
            read_image(path)


def test_a_colour_profile_is_followed_and_a_damaged_one_is_not(tmp_path: Path, pixels: np.ndarray) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(pixels)
    assert distance(stored(tmp_path, image, "s.png", icc_profile=srgb), pixels) < 0.5
    swapped = srgb.replace(b"rXYZ", b"----").replace(b"bXYZ", b"rXYZ").replace(b"----", b"bXYZ")  # red and blue
    assert distance(stored(tmp_path, image, "x.png", icc_profile=swapped), pixels[..., ::-1]) < 1
    assert np.array_equal(stored(tmp_path, image, "d.png", icc_profile=b"no profile"), pixels)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path / "gone.png")
