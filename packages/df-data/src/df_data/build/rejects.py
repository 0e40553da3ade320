"""Images of rejected inputs: a small strip of frames per input, stored beside the ledger for `df-data inspect`.

Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from df_data.stages.colour import rgb_of, shown_colours
from df_data.stages.turn import turned, upright_turn
from df_models.containers import MOST_PIXELS, default_stream, limit_images, open_media
from df_models.errors import UserError
from df_models.files import atomic_write

FOLDER = "rejects"
HEIGHT = 120
"""Height of a strip in pixels."""
MOMENTS = (0.1, 0.5, 0.9)
"""Shares of the video's length at which its frames are taken."""
MICROSECONDS = 1_000_000
"""FFmpeg's unit of a container's times, per second."""
SHORTEST_S = 0.2
"""Of a shorter video, such as a still image, only the first frame is taken."""
MOST_FRAMES = 60
"""Frames that are decoded at most after a seek, to come from the key frame to the moment wanted."""
WIDEST = 4.0
"""Images wider (or taller) than so many times their other side are squeezed to it."""


def image_path(root: Path, name: str) -> Path:
    """Return where an input's image lies, by a hash of its name in the ledger: no name from outside is a path."""
    return root / FOLDER / f"{hashlib.sha256(name.encode('utf-8')).hexdigest()[:24]}.jpg"


def store_image(root: Path, name: str, image: bytes | None) -> None:
    """Store a rejected input's image; None (an input that shows nothing) leaves none."""
    if image is None:
        return
    path = image_path(root, name)
    path.parent.mkdir(exist_ok=True)
    atomic_write(path, image)


def read_image(root: Path, name: str) -> bytes | None:
    """Return an input's image, or None if it has none."""
    path = image_path(root, name)
    return path.read_bytes() if path.is_file() else None


def strip_of(frames: Sequence[np.ndarray]) -> bytes:
    """Return frames uint8 RGB ``[H, W, 3]`` side by side, as the bytes of a small JPEG.

    Raises:
        UserError: there are none.
    """
    from PIL import Image

    if not frames:
        raise UserError("no frames to make an image of")
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    images = [image.resize((_width(*image.size), HEIGHT)) for image in images]
    strip = Image.new("RGB", (sum(image.width for image in images), HEIGHT))
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width
    data = io.BytesIO()
    strip.save(data, format="JPEG", quality=80)
    return data.getvalue()


def file_image(path: Path) -> bytes | None:
    """Return a strip of three frames of a video file (one of a still image), or None if it shows nothing.

    Each frame is sought and decoded alone, at the strip's size, so the length of the file does not matter.
    """
    import av

    if not path.is_file():
        return None
    try:
        with open_media(path) as container:
            if not container.streams.video:
                return None
            frames = list(_frames(container, default_stream(container.streams.video)))
    except (av.FFmpegError, OSError, ValueError, OverflowError, IndexError):  # of a stream that begins late
        return None
    return strip_of(frames) if frames else None


def _frames(container: Any, stream: Any) -> Iterator[np.ndarray]:
    if stream.codec_context is None or stream.width * stream.height > MOST_PIXELS:
        return
    limit_images(stream)
    seconds = float(container.duration or 0) / MICROSECONDS
    moments = [moment * seconds for moment in MOMENTS] if seconds > SHORTEST_S else [0.0]
    begin = float(container.start_time or 0) / MICROSECONDS
    for moment in moments:
        if moment > 0:
            container.seek(int((begin + moment) * MICROSECONDS))
        frame = _frame_at(container.decode(stream), begin + moment)
        if frame is not None:
            yield _shown(frame)


def _shown(frame: Any) -> np.ndarray:
    """Return a frame as a player shows it, upright and in BT.709, at the strip's height."""
    turn = upright_turn(frame)
    if turn.rotation % 180:
        width, height = HEIGHT, _width(frame.height, frame.width)
    else:
        width, height = _width(frame.width, frame.height), HEIGHT
    return turned(rgb_of(frame, width, height, shown_colours(frame)), turn)


def _frame_at(frames: Iterator[Any], time: float) -> Any:
    """Return the first frame at or after a time, or the last of those looked at (a seek lands on a key frame)."""
    found = None
    for found in itertools.islice(frames, MOST_FRAMES):
        if (found.time or 0.0) >= time:
            break
    return found


def _width(width: int, height: int) -> int:
    """Return the width of an image at the strip's height, even (a scaler's demand), within bounds."""
    shape = min(max(width / max(height, 1), 1 / WIDEST), WIDEST)
    return max(2, 2 * round(HEIGHT * shape / 2))
