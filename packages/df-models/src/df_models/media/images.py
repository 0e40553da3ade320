"""Reading and writing images (needs the package ``pillow``, imported when used).

Shape legend: H height, W width. Images are uint8 RGB.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from df_models.errors import UserError
from df_models.files import atomic_path, require_file

REDUCED_PIXELS = 50_000_000
"""Larger images are read at a half, a quarter or an eighth of their size: 150 MB of pixels, and more than any model
looks at."""
MOST_JPEG_PIXELS = 300_000_000
"""A JPEG is decoded at the smaller size right away; phones make photos of 200 megapixels. (A progressive one is held in
memory whole, 6 bytes a pixel.)"""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")


def read_image(path: str | Path, *, most_pixels: int | None = None) -> np.ndarray:
    """Return an image as uint8 RGB ``[H, W, 3]``, turned upright by its EXIF tag, in the colours of sRGB.

    An embedded colour profile is followed (a damaged one is passed over, as viewers do); what is transparent lies on
    white; 16 bits become 8; of an animation the first image is taken. Beyond :data:`REDUCED_PIXELS` it comes smaller.

    Args:
        most_pixels: an image of more is refused before it is decoded: a limit for files that strangers send, below the
            reader's own.

    Raises:
        UserError: no such file, not an image, a damaged or too large one, or one whose numbers have no known white (32
            bits, floating point).
    """
    require_file(path)
    try:
        return _read(path, Path(path), most_pixels)
    except _TextTooLong:
        return _read(path, io.BytesIO(without_text(Path(path).read_bytes())), most_pixels)


def _read(path: str | Path, source: Path | io.BytesIO, most_pixels: int | None) -> np.ndarray:
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with _opened(path, source) as image:
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise UserError(_too_large(path, most_pixels))
            _draft(image)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I", "F"):
                raise UserError(f"{path} has pixels of 32 bits; save it as a PNG or JPEG of 8 or 16 bits")
            profile = image.info.get("icc_profile")
            return np.asarray(_in_srgb(_reduced(_opaque(image)), profile))
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read; give a PNG or JPEG") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory; make it smaller") from error
    except Exception as error:  # what Pillow's decoders raise has no common class
        if isinstance(error, ValueError) and isinstance(source, Path) and _is_png(source):
            raise _TextTooLong from error
        raise UserError(f"{path} is a damaged image ({_first_line(error)}); save it again") from error


class _TextTooLong(Exception):
    """A PNG whose texts are beyond Pillow's limits."""


def _opened(path: str | Path, source: Path | io.BytesIO) -> Any:
    """Open an image by Pillow's limit on pixels, a JPEG by our own.

    Raises:
        UserError: it is larger.
    """
    from PIL import Image, JpegImagePlugin

    try:
        with warnings.catch_warnings():  # Pillow warns at half its limit
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(source)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        try:
            image = JpegImagePlugin.JpegImageFile(source)  # Image.open would refuse it before it can be reduced
        except SyntaxError:
            raise UserError(_too_large(path, limit, " (a JPEG may have more)")) from error
        if image.width * image.height <= MOST_JPEG_PIXELS:
            return image
        image.close()
        raise UserError(_too_large(path, MOST_JPEG_PIXELS)) from error


def _too_large(path: str | Path, limit: int, more: str = "") -> str:
    return f"{path} has more than {limit / 1e6:.0f} megapixels, the most that are read{more}; save it smaller"


def _factor(image: Any) -> int:
    """Return by how much an image is to be reduced: 1, 2, 4 or 8."""
    return next(f for f in (1, 2, 4, 8) if image.width * image.height <= REDUCED_PIXELS * f * f or f == 8)


def _draft(image: Any) -> None:
    """Have a JPEG's decoder reduce it (it skips frequencies); other formats know no such thing."""
    if (factor := _factor(image)) > 1:
        image.draft(None, (image.width // factor, image.height // factor))


def _reduced(image: Any) -> Any:
    return image.reduce(factor) if (factor := _factor(image)) > 1 else image


def _is_png(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE


def without_text(png: bytes) -> bytes:
    """Return a PNG without its texts: Pillow refuses the file for long ones, which no viewer minds.

    Layout: PNG specification, chapter 5 (length, type, data, CRC).
    """
    kept, at = [png[: len(PNG_SIGNATURE)]], len(PNG_SIGNATURE)
    while at + 8 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        if png[at + 4 : at + 8] not in PNG_TEXT:
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _opaque(image: Any) -> Any:
    """Return a Pillow image as RGB, L or CMYK of 8 bits, what is transparent on white."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _in_srgb(image: Any, profile: bytes | None) -> Any:
    """Return a Pillow image as RGB, by its colour profile if it has one."""
    from PIL import ImageCms

    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            image = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")


def write_image(path: str | Path, image_HWC: np.ndarray) -> None:
    """Write a uint8 RGB image; the format follows from the suffix."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(image_HWC)).save(temporary)
