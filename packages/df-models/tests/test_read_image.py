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


@pytest.mark.parametrize("packed", [True, False])
def test_long_texts_in_a_png_are_no_reason_to_refuse_it(tmp_path: Path, pixels: np.ndarray, packed: bool) -> None:
    """Editors and image generators keep whole documents in them; beyond 1 MB Pillow refuses the file."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_itxt("prompt", "word " * 400_000, zip=packed)
    texts.add_text("document", "word " * 400_000, zip=packed)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = Image.fromarray(np.ascontiguousarray(pixels[::-1, ::-1]))
    assert np.array_equal(stored(tmp_path, turned, "t.png", pnginfo=texts, exif=exif), pixels)


def test_a_large_photo_comes_smaller_and_a_larger_one_is_told(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small limits in place of 50, 179 and 300 megapixels."""
    big = Image.fromarray(pixels).resize((640, 480))
    for name, options in (("a.jpg", {"quality": 95}), ("a.png", {}), ("p.png", {})):
        (big.convert("P") if name == "p.png" else big).save(tmp_path / name, **options)
    monkeypatch.setattr("df_models.media.images.REDUCED_PIXELS", 320 * 240)
    for name in ("a.jpg", "a.png", "p.png"):
        found = read_image(tmp_path / name)
        assert found.shape == (240, 320, 3)
        assert distance(found, np.asarray(big.resize((320, 240), Image.Resampling.BOX))) < 12
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    assert read_image(tmp_path / "a.jpg").shape == (240, 320, 3)
    with pytest.raises(UserError, match=r"a\.png has more than 0 megapixels, .*a JPEG may have more"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr("df_models.media.images.MOST_JPEG_PIXELS", 300_000)
    with pytest.raises(UserError, match=r"a\.jpg has more than 0 megapixels"):
        read_image(tmp_path / "a.jpg")


def test_a_photo_of_200_megapixels_is_read(tmp_path: Path) -> None:
    Image.new("L", (16_320, 12_240), 90).save(tmp_path / "phone.jpg")
    found = read_image(tmp_path / "phone.jpg")
    assert found.shape == (6120, 8160, 3) and abs(int(found[0, 0, 0]) - 90) <= 1


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_damage_is_one_line(tmp_path: Path, cut: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff"):
        path = tmp_path / name
        Image.fromarray(noise).save(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * cut)])
        with pytest.raises(UserError, match=r"a\.[a-z]+ is (a damaged|not an) image") as told:
            read_image(path)
        assert "\n" not in str(told.value)
