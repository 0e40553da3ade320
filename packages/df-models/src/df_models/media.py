"""Reading and writing audio, images and video (needs the packages ``av`` and ``pillow``, imported when used).

Shape legend: T frames, H height, W width, N samples. Images are uint8 RGB. Audio is float32 mono at 16 kHz in
[-1, 1]. Every writer is atomic: a file stands under its final name only when it is whole.
"""

from __future__ import annotations

import contextlib
import io
import wave as wave_module
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from df_models.containers import open_media
from df_models.errors import UserError
from df_models.files import atomic_path
from df_models.time import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    import av.container


def read_audio(path: str | Path) -> np.ndarray:
    """Return the first audio track of any audio or video file as float32 mono at 16 kHz, ``[N]``.

    Raises:
        UserError: no such file, no audio in it, or audio that cannot be decoded.
    """
    import av

    with _open_media(path, "audio") as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no audio track; give a file with speech, such as a WAV, FLAC or MP4")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        pieces: list[np.ndarray] = []
        try:
            for frame in container.decode(audio=0):
                pieces.extend(out.to_ndarray()[0] for out in resampler.resample(frame))
            pieces.extend(out.to_ndarray()[0] for out in resampler.resample(None))
        except (av.FFmpegError, IndexError) as error:  # IndexError: PyAV knows no stream that begins late
            raise UserError(f"the audio in {path} cannot be decoded ({_reason(error)})") from error
    if not pieces or not sum(len(piece) for piece in pieces):
        raise UserError(f"{path} holds no audio")
    return np.concatenate(pieces).astype(np.float32)


def write_wav(path: str | Path, wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write mono audio ``[N]`` in [-1, 1] as 16-bit PCM."""
    pcm = (np.clip(np.asarray(wave, dtype=np.float64), -1.0, 1.0) * 32767.0).round().astype("<i2")
    with atomic_path(path) as temporary, wave_module.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())


def read_image(path: str | Path) -> np.ndarray:
    """Return an image as uint8 RGB ``[H, W, 3]``, turned upright by its EXIF tag, in the colours of sRGB.

    An embedded colour profile is followed (a damaged one is passed over, as viewers do); what is transparent lies on
    white; 16 bits become 8; of an animation the first image is taken.

    Raises:
        UserError: no such file, not an image, or one whose numbers have no known white (32 bits, floating point).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    _require_file(path)
    try:
        with Image.open(path) as image:
            upright: Any = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "F"):
                raise UserError(f"{path} has pixels of 32 bits; save it as a PNG or JPEG of 8 or 16 bits")
            return np.asarray(_in_srgb(_opaque(upright), image.info.get("icc_profile")))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image that can be read; give a PNG or JPEG") from error


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


def write_gif(path: str | Path, frames_THWC: Iterable[np.ndarray], fps: float = FPS) -> None:
    """Write frames as an endlessly repeating GIF."""
    from PIL import Image

    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames_THWC]
    if not images:
        raise UserError(f"no frames to write to {path}")
    with atomic_path(path) as temporary:
        images[0].save(temporary, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Return all frames of a short video as uint8 ``[T, H, W, 3]`` and its frame rate.

    Raises:
        UserError: no such file, no video in it, or video that cannot be decoded.
    """
    import av

    with _open_media(path, "video") as container:
        if not container.streams.video:
            raise UserError(f"{path} has no video track")
        rate = container.streams.video[0].average_rate
        try:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        except av.FFmpegError as error:
            raise UserError(f"the video in {path} cannot be decoded ({_reason(error)})") from error
    if not frames:
        raise UserError(f"{path} holds no video frames")
    return np.stack(frames), float(rate or FPS)


def write_video(
    path: str | Path,
    frames_THWC: Iterable[np.ndarray],
    *,
    fps: int = FPS,
    audio: np.ndarray | None = None,
    sample_rate: int = SAMPLE_RATE,
    lossless: bool = False,
    crf: int = 16,
) -> int:
    """Write an MP4 (H.264, AAC audio) from frames as they come, in constant memory; return the number of frames.

    Args:
        frames_THWC: uint8 RGB frames, all of one even size.
        audio: audio ``[N]`` in [-1, 1], or none. It is cut to the length of the video.
        lossless: RGB without loss (for data, not for browsers) instead of yuv420p at quality ``crf``.
    """
    import av

    iterator = iter(frames_THWC)
    first = next(iterator, None)
    if first is None:
        raise UserError(f"no frames to write to {path}")
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = _add_video_stream(container, first.shape, fps, lossless, crf)
        audio_stream = container.add_stream("aac", rate=sample_rate, layout="mono") if audio is not None else None
        count = 0
        for frame in _chain(first, iterator):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            image.pts = count
            container.mux(video.encode(image))
            count += 1
        container.mux(video.encode(None))
        if audio_stream is not None and audio is not None:
            _mux_audio(container, audio_stream, audio[: round(count * sample_rate / fps)], sample_rate)
    return count


def _add_video_stream(container: Any, shape: tuple[int, ...], fps: int, lossless: bool, crf: int) -> Any:
    height, width = shape[:2]
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=Fraction(fps))
    stream.height, stream.width = height, width
    stream.pix_fmt = "rgb24" if lossless else "yuv420p"
    stream.options = {"qp": "0", "preset": "veryfast"} if lossless else {"crf": str(crf), "preset": "medium"}
    return stream


def _mux_audio(container: Any, stream: Any, wave: np.ndarray, sample_rate: int) -> None:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave, dtype=np.float32)[None], format="flt", layout="mono")
    frame.sample_rate = sample_rate
    frame.pts = 0
    frame.time_base = Fraction(1, sample_rate)
    fifo = av.AudioFifo()
    fifo.write(frame)
    while (piece := fifo.read(1024, partial=True)) is not None:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _open_media(path: str | Path, what: str) -> av.container.InputContainer:
    import av

    _require_file(path)
    try:
        return open_media(path)
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} is no {what} that can be read ({_reason(error)})") from error


def _require_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise UserError(f"no such file: {path}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
