"""The mp4 of a sample: its facts without its pixels, or its pixels and audio.

Shape legend: P pixel frames, H, W pixels, N samples of 16 kHz audio.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from df_models.errors import UserError
from df_models.media import Scaler
from df_models.media.audio import join_blocks
from df_models.media.decoding import audio_blocks, decoded_frames
from df_models.time import SAMPLE_RATE


@dataclass(frozen=True)
class VideoFacts:
    """What an mp4 holds.

    Attributes:
        times: presentation time of each image in seconds.
        pixel_format: such as ``yuv420p``, which browsers play, or ``gbrp``, which they do not.
        audio_start: time of the first sample of audio, None if there is no audio.
        audio_seconds: how long the audio is.
    """

    times: tuple[float, ...]
    height: int
    width: int
    pixel_format: str
    audio_start: float | None
    audio_seconds: float


def probe_video(video: bytes) -> VideoFacts:
    """Decode an mp4 and tell what it holds, one image in memory at a time.

    Raises:
        UserError: the bytes are no video that can be decoded.
    """
    with _opened(video) as container:
        stream = container.streams.video[0]
        times = tuple(float(frame.time or 0.0) for frame in container.decode(stream))
        height, width, pixel_format = stream.height, stream.width, stream.codec_context.pix_fmt
    with _opened(video) as container:
        pieces = [(float(f.time or 0.0), f.samples / f.sample_rate) for f in _audio_frames(container)]
    return VideoFacts(
        times=times,
        height=height,
        width=width,
        pixel_format=pixel_format,
        audio_start=pieces[0][0] if pieces else None,
        audio_seconds=sum(seconds for _, seconds in pieces),
    )


def read_frames(video: bytes, most: int | None = None) -> np.ndarray:
    """Return the images of an mp4's bytes, uint8 RGB ``[P, H, W, 3]``; errors as in :func:`probe_video`.

    Args:
        most: no more than the first so many, and nothing behind them is decoded; None: all.
    """
    scaler = Scaler()
    with _opened(video) as container:
        frames = [scaler.rgb(frame) for frame in itertools.islice(container.decode(video=0), most)]
    if not frames:
        raise UserError("its mp4 holds no images")
    return np.stack(frames)


def read_audio(video: bytes) -> np.ndarray:
    """Return the audio of an mp4's bytes as mono 16 kHz, float32 ``[N]``, empty if there is none."""
    with _opened(video) as container:
        blocks = list(audio_blocks(_audio_frames(container), SAMPLE_RATE, by_stamps=False))
    return join_blocks(blocks)[0] if blocks else np.zeros(0, dtype=np.float32)


def _audio_frames(container: Any) -> Iterator[Any]:
    if container.streams.audio:
        yield from decoded_frames(container, container.streams.audio[0])


@contextlib.contextmanager
def _opened(video: bytes) -> Iterator[Any]:
    import av

    try:
        with av.open(io.BytesIO(video), format="mp4") as container:
            if not container.streams.video:
                raise UserError("its mp4 has no video track")
            yield container
    except UserError:
        raise
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"its mp4 cannot be decoded ({reason})") from error
