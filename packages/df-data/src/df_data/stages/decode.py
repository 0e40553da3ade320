"""Decode a video once, front to back: upright RGB frames at exactly 25 fps, and the 16 kHz mono sound with them.

Both streams are placed on one clock by their time stamps; sound that is missing is silence. The video comes in segments
of a bounded length, so memory does not grow with the file, however pictures and sound lie in it: each stream is
read by a demuxer of its own.

Shape legend: T frames at 25 fps, H height, W width, N samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from df_data.stages.clock import Tick, steady_ticks
from df_data.stages.rejection import Rejected
from df_data.stages.sound import Chunk, SoundTrack
from df_data.timing import timed
from df_models.errors import UserError
from df_models.time import FPS, samples_for

LATEST_START_S = 600.0
"""Streams that begin further apart than this have damaged time stamps."""
MAX_GAP_S = 1.0
"""Pictures whose time stamps are further apart than this do not belong to one stretch of video."""
MAX_SIDE = 1920
"""Larger pictures are decoded to this longer side: a segment of them would not fit into a worker's memory."""


@dataclass(frozen=True)
class DecodedClip:
    """A stretch of a video as the later stages see it.

    Attributes:
        frames: uint8 RGB [T, H, W, 3] at 25 fps, upright.
        wave: float32 [640 T] mono at 16 kHz, sample 0 at the time of frame 0.
        start_s: time of frame 0 after the file's first picture.
        source_fps: mean frame rate of the stretch in the file.
        sound_offset_s: when the file's sound begins after its first picture (negative: before it).
        sound_share: share of the stretch that the file's sound covers.
        rotation: degrees that the frames were turned counter-clockwise to stand upright.
    """

    frames: np.ndarray
    wave: np.ndarray
    start_s: float
    source_fps: float
    sound_offset_s: float
    sound_share: float
    rotation: int


def decode_clip(path: Path, *, min_seconds: float = 2.0, max_seconds: float = 10.0) -> DecodedClip:
    """Decode the first stretch of a video file, at most ``max_seconds``; errors as in :func:`iter_segments`."""
    with contextlib.closing(iter_segments(path, min_seconds=min_seconds, segment_seconds=max_seconds)) as segments:
        return next(segments)


@timed("decode")
def iter_segments(
    path: Path, *, min_seconds: float = 2.0, segment_seconds: float = 10.0, max_seconds: float | None = None
) -> Generator[DecodedClip, None, None]:
    """Yield a video file's stretches of at most ``segment_seconds``, one after the other, at least one.

    A gap in the time stamps ends a stretch. What is left at an end and shorter than ``min_seconds`` is passed over.

    Args:
        max_seconds: use no more than the file's first so many seconds; None: all.

    Raises:
        Rejected: ``no_video_track``, ``no_sound_track``, ``too_short``, ``broken_time_stamps``.
        UserError: no such file, or one that cannot be decoded.
    """
    import av

    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with av.open(str(path)) as pictures, av.open(str(path)) as sounds:
            if not pictures.streams.video:
                raise Rejected("no_video_track", "the file has no video track")
            if not pictures.streams.audio:
                raise Rejected("no_sound_track", "the file has no sound track")
            yield from _segments(pictures, sounds, min_seconds, segment_seconds, max_seconds)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path.name} cannot be decoded ({reason})") from error


def _segments(
    pictures: Any, sounds: Any, min_seconds: float, segment_seconds: float, max_seconds: float | None
) -> Iterator[DecodedClip]:
    video, audio = pictures.streams.video[0], sounds.streams.audio[0]
    track = SoundTrack(_chunks(sounds, audio), audio.codec_context.sample_rate)
    longest, beginning, found, length = int(segment_seconds * FPS), None, 0, 0.0
    for stretch in _stretches(_ticks(pictures, video), longest):
        beginning = stretch.start_s if beginning is None else beginning
        start_s, length = stretch.start_s - beginning, len(stretch.frames) / FPS
        if max_seconds is not None and start_s >= max_seconds:
            break
        sound_offset = _sound_offset(track, beginning)
        if length < min_seconds:
            continue
        found += 1
        wave, covered = track.read(stretch.start_s, samples_for(len(stretch.frames)))
        yield DecodedClip(
            frames=_joined(stretch.frames),
            wave=wave,
            start_s=start_s,
            source_fps=1 / stretch.interval,
            sound_offset_s=sound_offset,
            sound_share=covered,
            rotation=stretch.rotation,
        )
    if beginning is None:
        raise Rejected("no_video_track", "the video track holds no picture")
    if not found:
        raise Rejected("too_short", f"{length:.2f} s of video, {min_seconds:g} s wanted", {"seconds": length})


def _joined(frames: list[np.ndarray]) -> np.ndarray:
    """Return ``[T, H, W, 3]``, letting go of each frame as it is copied."""
    joined = np.empty((len(frames), *frames[0].shape), dtype=np.uint8)
    for index in range(len(frames)):
        joined[index], frames[index] = frames[index], frames[index][:0]
    return joined


def _sound_offset(track: SoundTrack, beginning: float) -> float:
    first = track.first()
    if first is None:
        raise Rejected("no_sound_track", "the sound track holds no sound")
    offset = first - beginning
    if abs(offset) > LATEST_START_S:
        raise Rejected("broken_time_stamps", f"sound begins {offset:.0f} s from the video", {"sound_offset_s": offset})
    return float(offset)


@dataclass
class _Stretch:
    """Frames of one run of time stamps, the first at ``start_s`` on the file's clock."""

    start_s: float
    interval: float
    rotation: int
    frames: list[np.ndarray]


class _Picture:
    """A decoded picture, turned into pixels when a tick first wants it."""

    def __init__(self, frame: Any) -> None:
        self.rotation = upright_rotation(frame)
        self._frame: Any = frame
        self._pixels: np.ndarray | None = None

    def rgb(self) -> np.ndarray:
        """Return uint8 RGB ``[H, W, 3]``, upright."""
        if self._pixels is None:
            self._pixels, self._frame = _to_rgb(self._frame, self.rotation), None
        return self._pixels


def _ticks(container: Any, video: Any) -> Iterator[Tick[_Picture]]:
    video.thread_type = "SLICE"
    duration = float(1 / video.average_rate) if video.average_rate else 1.0 / FPS
    stamped = ((float(frame.time), _Picture(frame)) for frame in container.decode(video) if frame.time is not None)
    return steady_ticks(stamped, FPS, MAX_GAP_S, duration)


def _stretches(ticks: Iterator[Tick[_Picture]], longest: int) -> Iterator[_Stretch]:
    """Gather ticks to stretches of one run, at most ``longest`` frames each."""
    stretch: _Stretch | None = None
    run = -1
    for tick in ticks:
        if stretch is not None and (tick.run != run or len(stretch.frames) == longest):
            yield stretch
            stretch = None
        if stretch is None:
            stretch = _Stretch(tick.start + tick.index / FPS, tick.interval, tick.picture.rotation, [])
        run, stretch.interval = tick.run, tick.interval
        stretch.frames.append(tick.picture.rgb())
    if stretch is not None:
        yield stretch


def _chunks(container: Any, audio: Any) -> Iterator[Chunk]:
    for frame in container.decode(audio):
        if frame.time is not None:
            yield float(frame.time), _mono(frame)


def _mono(frame: Any) -> np.ndarray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind in "iu":
        offset = 128 if samples.dtype == np.uint8 else 0
        samples = (samples.astype(np.float32) - offset) / (128.0 if offset else float(np.iinfo(samples.dtype).max))
    return samples.astype(np.float32).mean(axis=0)


def upright_rotation(picture: Any) -> int:
    """Return the multiple of 90 degrees, counter-clockwise, that the container asks a player to turn a frame by."""
    return round(getattr(picture, "rotation", 0) / 90.0) * 90 % 360


def _to_rgb(picture: Any, rotation: int) -> np.ndarray:
    scale = min(1.0, MAX_SIDE / max(picture.width, picture.height))
    width, height = (max(2, round(side * scale)) for side in (picture.width, picture.height))
    rgb_HWC = picture.to_ndarray(format="rgb24", width=width, height=height)
    return np.rot90(rgb_HWC, rotation // 90) if rotation else rgb_HWC
