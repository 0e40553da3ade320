"""Decode a video once, front to back: upright RGB frames of square pixels at exactly 25 fps, and 16 kHz mono audio.

Both streams are placed on one clock by their time stamps; audio that is missing is silence. The video comes in segments
of a bounded length, so memory does not grow with the file, however images and audio lie in it: each stream is
read by a demuxer of its own.

Shape legend: T frames at 25 fps, H height, W width, N samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from df_data.common.timing import timed
from df_data.stages.aspect import square_size
from df_data.stages.clock import Tick, steady_ticks
from df_data.stages.colour import Colours, colours_of, refuse_dolby_vision, rgb_of
from df_data.stages.interlace import deinterlaced
from df_data.stages.rejection import Rejected
from df_data.stages.turn import Turn, turned, upright_turn
from df_models.containers import (
    MOST_PIXELS,
    FileCutOff,
    default_stream,
    gives_what_it_promises,
    limit_images,
    open_media,
)
from df_models.errors import UserError
from df_models.media import Scaler
from df_models.media.decoding import LATEST_S, BrokenAudio, BrokenTimeStamps, Heard, audio_blocks, decoded_frames
from df_models.media.track import AudioTrack
from df_models.time import FPS, SAMPLE_RATE, samples_for
from df_models.truncation import is_cut_off

LATEST_START_S = 600.0
"""Streams that begin further apart than this have damaged time stamps."""
MAX_GAP_S = 1.0
"""Images whose time stamps are further apart than this do not belong to one stretch of video."""
MAX_SIDE = 1920
"""Larger images are decoded to this longer side: a segment of them would not fit into a worker's memory."""


@dataclass(frozen=True)
class DecodedClip:
    """A stretch of a video as the later stages see it.

    Attributes:
        frames: uint8 RGB [T, H, W, 3] at 25 fps, upright, of square pixels.
        wave: float32 [640 T] mono at 16 kHz, sample 0 at the time of frame 0.
        start_s: time of frame 0 after the file's first image.
        source_fps: mean frame rate of the stretch in the file.
        sound_offset_s: when the file's audio begins after its first image (negative: before it).
        sound_share: share of the stretch that the file's audio covers.
        rotation: degrees that the frames were turned counter-clockwise to stand upright.
        damaged_frames: how many of the frames the decoder could only guess.
        mirrored: whether left and right were exchanged after the turn, as the file asks.
        antiphase: whether the audio's channels cancel each other when they are mixed, as far as the file was heard.
    """

    frames: np.ndarray
    wave: np.ndarray
    start_s: float
    source_fps: float
    sound_offset_s: float
    sound_share: float
    rotation: int
    damaged_frames: int = 0
    mirrored: bool = False
    antiphase: bool = False


def decode_clip(path: Path, *, min_seconds: float = 2.0, max_seconds: float = 10.0) -> DecodedClip:
    """Decode the first stretch of a video file, at most ``max_seconds``; errors as in :func:`iter_segments`."""
    with contextlib.closing(iter_segments(path, min_seconds=min_seconds, segment_seconds=max_seconds)) as segments:
        return next(segments)


@timed("decode")
def iter_segments(
    path: Path,
    *,
    min_seconds: float = 2.0,
    segment_seconds: float = 10.0,
    max_seconds: float | None = None,
    needs_audio: bool = True,
) -> Generator[DecodedClip, None, None]:
    """Yield a video file's stretches of at most ``segment_seconds``, one after the other, at least one.

    A gap in the time stamps ends a stretch, and so does another size of the images. What is left at an end and
    shorter than ``min_seconds`` is passed over.

    Args:
        max_seconds: use no more than the file's first so many seconds; None: all.
        needs_audio: False leaves audio unread, if there is any: the wave is silence.

    Raises:
        Rejected: ``no_video_track``, ``no_sound_track``, ``too_short``, ``broken_time_stamps``, ``broken_sound``,
            ``picture_too_large``, ``colours_not_read``.
        UserError: no such file, one that cannot be decoded, or, when all that there is was yielded, it is truncated.
    """
    import av

    if not path.is_file():
        raise UserError(f"no such file: {path.name}" if not path.exists() else f"{path.name} is not a plain file")
    try:
        with open_media(path) as images, open_media(path) as audio:
            video = video_stream(images)
            if needs_audio and not audio.streams.audio:
                raise Rejected("no_sound_track", "the file has no audio track")
            heard = Heard()
            track = _audio_track(audio, heard) if needs_audio else None
            wanted = yield from _segments(images, video, track, heard, min_seconds, segment_seconds, max_seconds)
        if wanted and is_cut_off(path) and not gives_what_it_promises(path):  # not every demuxer minds
            raise FileCutOff(path)
    except BrokenTimeStamps as error:
        raise Rejected("broken_time_stamps", str(error)) from error
    except BrokenAudio as error:
        raise Rejected("broken_sound", str(error)) from error
    except (av.FFmpegError, OSError, Rejected) as error:
        if is_cut_off(path):
            raise FileCutOff(path) from error
        if isinstance(error, Rejected):
            raise
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path.name} cannot be decoded ({reason})") from error


def video_stream(container: Any) -> Any:
    """Return the stream of moving images: the default one of those that are not a cover beside the audio.

    Raises:
        Rejected: ``no_video_track``, ``picture_too_large``, ``colours_not_read``.
    """
    from av.stream import Disposition

    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise Rejected("no_video_track", "the file has no video track")
    stream = default_stream(moving)
    if stream.codec_context is None:
        raise UserError("its video cannot be decoded (no decoder for it); convert it to H.264")
    if stream.width * stream.height > MOST_PIXELS:
        raise Rejected("picture_too_large", f"images of {stream.width}x{stream.height}, larger than 8K")
    refuse_dolby_vision(stream.codec_context)
    limit_images(stream)
    return stream


def _segments(
    images: Any,
    video: Any,
    track: AudioTrack | None,
    heard: Heard,
    min_seconds: float,
    segment_seconds: float,
    max_seconds: float | None,
) -> Generator[DecodedClip, None, bool]:
    """Yield a file's stretches; return whether it was read to its end."""
    longest, beginning, whole = int(segment_seconds * FPS), None, True
    found, length = 0, 0.0
    for stretch in _stretches(_ticks(images, video), longest):
        beginning = stretch.start_s if beginning is None else beginning
        start_s, length = stretch.start_s - beginning, len(stretch.frames) / FPS
        if max_seconds is not None and start_s >= max_seconds:
            whole = False
            break
        sound_offset = 0.0 if track is None else _sound_offset(track, beginning)
        if length < min_seconds:
            continue
        found += 1
        samples = samples_for(len(stretch.frames))
        silence = np.zeros((1, samples), np.float32), 0.0
        wave_1N, covered = silence if track is None else track.read(stretch.start_s, samples)
        yield DecodedClip(
            frames=_joined(stretch.frames),
            wave=wave_1N[0],
            start_s=start_s,
            source_fps=1 / stretch.interval,
            sound_offset_s=sound_offset,
            sound_share=covered,
            rotation=stretch.turn.rotation,
            damaged_frames=stretch.damaged,
            mirrored=stretch.turn.mirrored,
            antiphase=heard.antiphase,
        )
    if beginning is None:
        raise Rejected("no_video_track", "the video track holds no image")
    if not found:
        raise Rejected("too_short", f"{length:.2f} s of video, {min_seconds:g} s wanted", {"seconds": length})
    return whole


def _joined(frames: list[np.ndarray]) -> np.ndarray:
    """Return ``[T, H, W, 3]``, letting go of each frame as it is copied."""
    joined = np.empty((len(frames), *frames[0].shape), dtype=np.uint8)
    for index in range(len(frames)):
        joined[index], frames[index] = frames[index], frames[index][:0]
    return joined


def _audio_track(container: Any, heard: Heard) -> AudioTrack:
    """Return a file's default audio track, 16 kHz mono on the file's clock."""
    stream = default_stream(container.streams.audio)
    if stream.codec_context is None:
        raise UserError("its audio cannot be decoded (no decoder for it); convert it to AAC")
    frames = decoded_frames(container, stream, heard)
    return AudioTrack(audio_blocks(frames, SAMPLE_RATE, by_stamps=True, heard=heard), SAMPLE_RATE)


def _sound_offset(track: AudioTrack, beginning: float) -> float:
    first = track.first()
    if first is None:
        raise Rejected("no_sound_track", "the audio track holds no audio")
    offset = first - beginning
    if abs(offset) > LATEST_START_S:
        raise Rejected("broken_time_stamps", f"audio begins {offset:.0f} s from the video", {"sound_offset_s": offset})
    return float(offset)


@dataclass
class _Stretch:
    """Frames of one run of time stamps, the first at ``start_s`` on the file's clock."""

    start_s: float
    interval: float
    turn: Turn
    frames: list[np.ndarray]
    damaged: int = 0


class _Image:
    """A decoded image, turned into pixels when a tick first wants it."""

    def __init__(self, frame: Any, aspect: Fraction | None, scaler: Scaler) -> None:
        self.turn, self.damaged = upright_turn(frame), bool(frame.is_corrupt)
        self._colours = colours_of(frame)
        self._frame: Any = frame
        self._aspect, self._scaler = aspect, scaler
        self._pixels: np.ndarray | None = None

    def rgb(self) -> np.ndarray:
        """Return uint8 RGB ``[H, W, 3]``, upright, as BT.709 codes it."""
        if self._pixels is None:
            turned_HWC = _to_rgb(self._frame, self._aspect, self.turn, self._colours, self._scaler)
            self._pixels, self._frame = turned_HWC, None
        return self._pixels


def _ticks(container: Any, video: Any) -> Iterator[Tick[_Image]]:
    video.thread_type = "SLICE"
    shown = float(1 / video.average_rate) if video.average_rate else 0.0
    duration = min(max(shown, 1.0 / FPS), MAX_GAP_S)
    images = _stamped(deinterlaced(_decoded(container, video)), video.sample_aspect_ratio)
    return steady_ticks(images, FPS, MAX_GAP_S, duration)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield a stream's frames.

    Raises:
        UserError: another stream begins in the middle of the file, of which PyAV knows nothing (its
            ``InputContainer.demux`` looks for it among those found at the beginning: IndexError).
    """
    try:
        yield from container.decode(stream)
    except IndexError as error:
        raise UserError("a stream begins in the middle of the file; copy it with ffmpeg to an mp4 or mkv") from error


def _stamped(frames: Iterator[Any], aspect: Fraction | None) -> Iterator[tuple[float, _Image]]:
    """Yield the images that have a time stamp.

    Raises:
        Rejected: ``broken_time_stamps``, none has.
    """
    stamped, unstamped, scaler = 0, 0, Scaler()
    for frame in frames:
        if frame.time is None:
            unstamped += 1
            continue
        stamped += 1
        yield _time(frame), _Image(frame, aspect, scaler)
    if unstamped and not stamped:
        raise Rejected("broken_time_stamps", f"none of {unstamped} images has a time stamp")


def _time(frame: Any) -> float:
    """Return a frame's time stamp in seconds.

    Raises:
        Rejected: ``broken_time_stamps``, it is no time of this world.
    """
    if abs(time := float(frame.time)) > LATEST_S:
        raise Rejected("broken_time_stamps", f"a time stamp of {time:.2g} s")
    return time


def _stretches(ticks: Iterator[Tick[_Image]], longest: int) -> Iterator[_Stretch]:
    """Gather ticks to stretches of one run and one size, at most ``longest`` frames each."""
    stretch: _Stretch | None = None
    run = -1
    for tick in ticks:
        pixels = tick.image.rgb()
        if stretch is not None and (
            tick.run != run or len(stretch.frames) == longest or stretch.frames[0].shape != pixels.shape
        ):
            yield stretch
            stretch = None
        if stretch is None:
            stretch = _Stretch(tick.start + tick.index / FPS, tick.interval, tick.image.turn, [])
        run, stretch.interval = tick.run, tick.interval
        stretch.frames.append(pixels)
        stretch.damaged += tick.image.damaged
    if stretch is not None:
        yield stretch


def _to_rgb(image: Any, aspect: Fraction | None, turn: Turn, colours: Colours, scaler: Scaler) -> np.ndarray:
    square = square_size(image.width, image.height, aspect)
    scale = min(1.0, MAX_SIDE / max(square))
    width, height = (max(2, round(side * scale)) for side in square)
    return turned(rgb_of(image, width, height, colours, scaler), turn)
