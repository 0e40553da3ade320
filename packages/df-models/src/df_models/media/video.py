"""Reading and writing video (needs the package ``av``, imported when used).

Shape legend: T frames, H height, W width, C channels, N samples. Frames are uint8 RGB.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from df_models.errors import UserError
from df_models.files import atomic_path
from df_models.media.audio import AudioSource, Waveform, open_file, reason_of
from df_models.time import FPS, SAMPLE_RATE

AAC_BIT_RATE = 96_000
"""Bits a second and channel: speech is transparent in AAC-LC from about 64 000 on, music from about 96 000."""
AAC_FRAME = 1024
MACROBLOCK = 16
"""Pixels a side of H.264's macroblocks."""
SAFE_ROW = 16
"""Macroblocks of a row that AVX-512 code takes at once. In x264's macroblock tree it takes more than there are where a
row is no multiple of them, and so what chances to lie in memory: 20 encodings of 320 px made 20 files, 40 of 256 px one
(blocks of noise; PyAV 18.1 on a Zen 5)."""


class Scaler:
    """Makes RGB of one video's decoded frames, all with one scaler, on one thread.

    PyAV's ``to_ndarray`` makes a scaler for each frame, with a pool of threads, which takes longer than to decode a
    small frame; the pixels are the same.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()

    def rgb(self, frame: Any, kind: str = "rgb24", width: int | None = None, height: int | None = None) -> np.ndarray:
        """Return a PyAV frame as ``[H, W, 3]``, at a size if one is given; ``kind``: rgb24 (uint8), rgb48 (uint16)."""
        return self._scaler.reformat(frame, width, height, kind, threads=1).to_ndarray()


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Return all frames of a short video as uint8 ``[T, H, W, 3]`` and its frame rate.

    Raises:
        UserError: no such file, no video in it, or video that cannot be decoded.
    """
    import av

    with open_file(path, "video") as container:
        if not container.streams.video:
            raise UserError(f"{path} has no video track")
        rate = container.streams.video[0].average_rate
        try:
            scaler = Scaler()
            frames = [scaler.rgb(frame) for frame in container.decode(video=0)]
        except av.FFmpegError as error:
            raise UserError(f"the video in {path} cannot be decoded ({reason_of(error)})") from error
    if not frames:
        raise UserError(f"{path} holds no video frames")
    return np.stack(frames), float(rate or FPS)


def write_video(
    path: str | Path,
    frames_THWC: Iterable[np.ndarray],
    *,
    fps: int = FPS,
    audio: np.ndarray | AudioSource | None = None,
    sample_rate: int = SAMPLE_RATE,
    lossless: bool = False,
    crf: int = 16,
    finished: Callable[[Path], None] | None = None,
) -> int:
    """Write an MP4 (H.264, AAC) from frames as they come, in constant memory; return the number of frames.

    The same frames make the same file. For that x264 goes without its macroblock tree (``mbtree``) where a row is no
    multiple of :data:`SAFE_ROW` macroblocks, as it is at 256 and 512 px; at 64 px files of faces are a third to three
    quarters larger for it, and about 1 dB closer.

    Audio is read as the video grows, so the two lie interleaved in the file and are of one length: it is cut to the
    video, or goes on in silence.

    Args:
        frames_THWC: uint8 RGB frames, all of one even size.
        audio: mono ``[N]`` in [-1, 1] at ``sample_rate``, a source of its own rate and channels, or none.
        lossless: RGB without loss (for data, not for browsers) instead of yuv420p at quality ``crf``.
        finished: given the whole file, which it may change, before the file has its name.
    """
    iterator = iter(frames_THWC)
    first = next(iterator, None)
    if first is None:
        raise UserError(f"no frames to write to {path}")
    source = Waveform(audio, sample_rate) if isinstance(audio, np.ndarray) else audio
    options: dict[str, Any] = {"fps": fps, "audio": source, "lossless": lossless, "crf": crf, "finished": finished}
    with VideoWriter(path, first.shape, **options) as writer:
        for frame in _chain(first, iterator):
            writer.add(frame)
    return writer.count


class VideoWriter:
    """An MP4 that is written frame by frame, as :func:`write_video` does; a context manager.

    The file is there when the block ends, and not if it ends in an error.

    Attributes:
        count: frames so far.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, ...],
        *,
        fps: int = FPS,
        audio: AudioSource | None = None,
        lossless: bool = False,
        crf: int = 16,
        finished: Callable[[Path], None] | None = None,
    ) -> None:
        self.count = 0
        self._path, self._shape, self._fps, self._audio = path, shape, fps, audio
        self._finished = finished
        self._options = (lossless, crf)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        import av

        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            stack.push(lambda kind, *_: self._finished(temporary) if kind is None and self._finished else None)
            self._container = stack.enter_context(av.open(str(temporary), "w", format="mp4"))
            self._video = _add_video_stream(self._container, self._shape, self._fps, *self._options)
            self._track = None if self._audio is None else _AudioWriter(self._container, self._audio)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.push(self._finish_unless_broken)
        self._stack.__exit__(*error)

    def add(self, frame_HWC: np.ndarray) -> None:
        """Write the next frame, and the audio that belongs to it."""
        import av

        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        image.pts = self.count
        self._container.mux(self._video.encode(image))
        self.count += 1
        if self._track is not None:
            self._track.extend(Fraction(self.count, self._fps))

    def _finish_unless_broken(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self._container.mux(self._video.encode(None))
            if self._track is not None:
                self._track.finish()


def _add_video_stream(container: Any, shape: tuple[int, ...], fps: int, lossless: bool, crf: int) -> Any:
    height, width = shape[:2]
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=Fraction(fps))
    stream.height, stream.width = height, width
    stream.pix_fmt = "rgb24" if lossless else "yuv420p"
    if lossless:
        stream.options = {"qp": "0", "preset": "veryfast"}
    else:
        whole_rows = -(-width // MACROBLOCK) % SAFE_ROW == 0
        stream.options = {"crf": str(crf), "preset": "medium", "x264-params": f"mbtree={int(whole_rows)}"}
    return stream


class _AudioWriter:
    """Encodes a source in step with the video; the muxer orders the packets of both by time."""

    def __init__(self, container: Any, source: AudioSource) -> None:
        self._container, self._source = container, source
        self._stream = container.add_stream("aac", rate=source.rate, layout=source.layout)
        self._stream.bit_rate = AAC_BIT_RATE * self._stream.layout.nb_channels
        self._read = self._encoded = 0
        self._waiting: list[np.ndarray] = []

    def extend(self, seconds: Fraction) -> None:
        """Go on to a moment of the video."""
        wanted = round(seconds * self._source.rate)
        self._waiting.append(self._source.read(wanted - self._read))
        self._read = wanted
        if self._read - self._encoded >= AAC_FRAME:
            self._encode(whole=True)

    def finish(self) -> None:
        """Write what is held back."""
        self._encode(whole=False)
        self._container.mux(self._stream.encode(None))

    def _encode(self, *, whole: bool) -> None:
        """Encode what waits, in frames of AAC's length; of the last one the part that is there unless ``whole``."""
        import av

        samples_CN = np.clip(np.concatenate(self._waiting, axis=1), -1.0, 1.0)
        rate, count = self._source.rate, samples_CN.shape[1]
        end = count // AAC_FRAME * AAC_FRAME if whole else count
        for start in range(0, end, AAC_FRAME):
            piece_CN = np.ascontiguousarray(samples_CN[:, start : min(start + AAC_FRAME, end)])
            frame = av.AudioFrame.from_ndarray(piece_CN, format="fltp", layout=self._source.layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), self._encoded
            self._container.mux(self._stream.encode(frame))
            self._encoded += piece_CN.shape[1]
        self._waiting = [samples_CN[:, end:]]


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
