"""Cut a clip out of a downloaded video: images by their time stamps, a part of each, and the audio to the sample.

The images keep their time stamps (a variable frame rate stays one) and are encoded by x264 at a high quality; the
audio keeps its rate and is stored without loss, as FLAC. The clip's clock begins with its first image.

Shape legend: N samples, C channels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from df_data.fetch.cut_audio import write_audio
from df_data.fetch.download import raise_if_disk_full
from df_data.sources.catalogue.clip import CatalogueClip
from df_data.stages.aspect import square_size
from df_data.stages.turn import Turn, upright_turn
from df_models.containers import FileCutOff, FormatNotRead, limit_images, open_media
from df_models.errors import UserError
from df_models.files import atomic_path
from df_models.media.decoding import decoded_frames

SEEK_MARGIN_S = 2.0
"""Decoding begins so long before the clip, so that what a decoder needs of the frames before is there."""
LEAST_SHARE = 0.5
"""A clip of which the video holds less than this share was listed for another video."""
THREADS = 4
"""Of the encoder. Fixed, because x264's output depends on it."""
KEPT_FORMATS = ("yuv420p", "yuv422p", "yuv444p")


class CutRefused(Exception):
    """The clip cannot be cut from this video, however often it is downloaded."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BrokenVideo(Exception):
    """The downloaded video cannot be decoded."""


@dataclass(frozen=True)
class Cut:
    """What was cut.

    Attributes:
        start_s, end_s: the first image's time and the end of the last, on the video's clock.
        crop: x, y, width, height in pixels of the upright source, None for all of it.
        width, height: size of the upright source.
        frames: images.
        sound_rate: samples a second, None where the source has no audio.
    """

    start_s: float
    end_s: float
    crop: tuple[int, int, int, int] | None
    width: int
    height: int
    frames: int
    sound_rate: int | None


def cut_clip(
    video: Path, audio: Path | None, clip: CatalogueClip, target: Path, *, crf: int = 12, expand: float = 1.0
) -> Cut:
    """Write the clip to ``target`` (mp4), whole or not at all.

    Args:
        video: file with the images; with the audio too if ``audio`` is None.
        audio: file with the audio.
        crf: x264's quality.
        expand: factor by which the crop is enlarged.

    Raises:
        CutRefused: ``no_video_track``, ``outside_video``, ``video_too_short``, ``crop_outside``, ``size_changes``.
        BrokenVideo: a file cannot be decoded.
        OSError: the disk is full.
    """
    import av

    try:
        with contextlib.ExitStack() as stack:
            video_file = stack.enter_context(_opened(video))
            audio_file = stack.enter_context(_opened(audio or video))
            if not video_file.streams.video:
                raise CutRefused("no_video_track", "the video has no images")
            zero = _zero(video_file, audio_file)
            temporary = stack.enter_context(atomic_path(target))
            out = stack.enter_context(av.open(str(temporary), "w", format="mp4"))
            return _write(out, video_file, audio_file, zero, clip, crf, expand)
    except UserError:
        raise
    except (av.FFmpegError, ValueError, IndexError) as error:  # IndexError: of a stream that begins late
        raise_if_disk_full(error)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokenVideo(f"{video.name} cannot be decoded ({reason})") from error


def _opened(path: Path) -> Any:
    try:
        return open_media(path)
    except (FileCutOff, FormatNotRead) as error:
        raise BrokenVideo(str(error)) from error


def _zero(*containers: Any) -> float:
    """Time stamp of the video's beginning: where the earliest of its streams begins, as players count."""
    starts = [container.start_time / 1_000_000 for container in containers if container.start_time is not None]
    return min(starts, default=0.0)


def _write(
    out: Any, video_file: Any, audio_file: Any, zero: float, clip: CatalogueClip, crf: int, expand: float
) -> Cut:
    stream = video_file.streams.video[0]
    limit_images(stream)
    inside = _frames_between(video_file, stream, zero, clip.start_s, clip.end_s or math.inf)
    start, first = next(inside, (0.0, None))
    if first is None:
        raise CutRefused("outside_video", f"the video has no image between {clip.start_s} and {clip.end_s} s")
    turn = upright_turn(first)
    square = square_size(first.width, first.height, stream.sample_aspect_ratio)
    width, height = square[::-1] if turn.rotation % 180 else square
    crop = _crop(clip, width, height, expand)
    writer = _ImageWriter(out, stream, first, _filters(first, square, turn, crop), crf)
    audio = audio_file.streams.audio[0] if audio_file.streams.audio else None
    encoder = _audio_stream(out, audio) if audio is not None else None
    writer.write(first)
    times = [start]
    for time, frame in inside:
        writer.write(frame)
        times = [times[-1], time]
    writer.finish()
    shown = times[-1] - times[0] if len(times) > 1 else float(1 / (stream.average_rate or 25))
    end = times[-1] + shown
    if clip.end_s is not None and end - start < LEAST_SHARE * (clip.end_s - clip.start_s):
        raise CutRefused("video_too_short", f"the video ends {end:.2f} s in, the clip at {clip.end_s:.2f} s")
    if audio is not None:
        _write_audio(out, encoder, (audio_file, audio), zero, start, end)
    return Cut(round(start, 6), round(end, 6), crop, width, height, writer.count, audio.rate if audio else None)


def _write_audio(out: Any, encoder: Any, source: tuple[Any, Any], zero: float, start: float, end: float) -> None:
    try:
        frames = (frame for _, frame in _decoded(*source, zero, start))
        write_audio(out, encoder, frames, start + zero, end + zero)
    except UserError as error:
        raise BrokenVideo(f"its audio cannot be decoded: {error}") from error


def _crop(clip: CatalogueClip, width: int, height: int, expand: float) -> tuple[int, int, int, int] | None:
    if clip.crop is None:
        return None
    try:
        return clip.crop.pixels(width, height, expand)
    except ValueError as error:
        raise CutRefused("crop_outside", str(error)) from error


def _frames_between(container: Any, stream: Any, zero: float, start: float, end: float) -> Iterator[tuple[float, Any]]:
    """Frames whose rising time stamps lie in [start, end); half a tick of the stream's clock counts as rounding."""
    tolerance = 0.51 * float(stream.time_base)
    last = -math.inf
    for time, frame in _decoded(container, stream, zero, start):
        if time >= end - tolerance:
            return
        if time >= start - tolerance and time > last:
            last = time
            yield time, frame


def _decoded(container: Any, stream: Any, zero: float, start: float) -> Iterator[tuple[float, Any]]:
    """Decode from some time before ``start``, as (time on the video's clock, frame)."""
    stream.thread_type = "AUTO"
    if start > SEEK_MARGIN_S:
        _seek(container, stream, start - SEEK_MARGIN_S + zero)
        first = next(_stamped(container, stream, zero), None)
        landed = first is not None and first[0] <= start
        _seek(container, stream, start - SEEK_MARGIN_S + zero if landed else -math.inf)
    yield from _stamped(container, stream, zero)


def _seek(container: Any, stream: Any, time: float) -> None:
    """Go to the last point before a time from which a decoder can begin; before all time is the file's beginning."""
    first = stream.start_time or 0
    container.seek(first if time == -math.inf else max(first, int(time / stream.time_base)), stream=stream)


def _stamped(container: Any, stream: Any, zero: float) -> Iterator[tuple[float, Any]]:
    frames = decoded_frames(container, stream) if stream.type == "audio" else container.decode(stream)
    for frame in frames:
        if frame.time is not None:
            yield float(frame.time) - zero, frame


def _filters(
    first: Any, square: tuple[int, int], turn: Turn, crop: tuple[int, int, int, int] | None
) -> list[tuple[str, str]]:
    """The filters, with their arguments, that make a frame's pixels square, turn it upright, crop it and give it a
    format that x264 takes."""
    stored = (first.width, first.height)
    squared = [] if square == stored else [("scale", f"{square[0]}:{square[1]}"), ("setsar", "1")]
    quarters = {90: [("transpose", "cclock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "clock")]}
    filters = squared + quarters.get(turn.rotation, []) + ([("hflip", "")] if turn.mirrored else [])
    width, height = square[::-1] if turn.rotation % 180 else square
    x, y, w, h = crop or (0, 0, width // 2 * 2, height // 2 * 2)
    if (w, h) != (width, height):
        filters.append(("crop", f"{w}:{h}:{x}:{y}"))
    if first.format.name not in KEPT_FORMATS:
        filters.append(("format", "yuv420p"))
    return filters


class _ImageWriter:
    """Filters and encodes images; their time stamps count from the first."""

    def __init__(self, out: Any, source: Any, first: Any, filters: list[tuple[str, str]], crf: int) -> None:
        self.count = 0
        self._out, self._source, self._first_pts = out, source, first.pts
        self._kind = (first.width, first.height, first.format.name)
        self._graph = _graph(source, filters)
        self._crf = crf
        self._stream: Any = out.add_stream("libx264", rate=source.average_rate or 25)
        self._began = False

    def write(self, frame: Any) -> None:
        """Add one image of the source."""
        if (frame.width, frame.height, frame.format.name) != self._kind:
            raise CutRefused("size_changes", f"the images change to {frame.width}x{frame.height} within the clip")
        frame.pts -= self._first_pts
        self._graph.push(frame)
        image = self._graph.pull()
        if not self._began:
            self._begin(image)
        image.pict_type = 0
        self._out.mux(self._stream.encode(image))
        self.count += 1

    def finish(self) -> None:
        """Write what the encoder holds back."""
        self._out.mux(self._stream.encode(None))

    def _begin(self, image: Any) -> None:
        """Set up the encoder for images like the first."""
        encoder, decoder = self._stream.codec_context, self._source.codec_context
        self._stream.width, self._stream.height = image.width, image.height
        self._stream.pix_fmt = image.format.name
        self._stream.options = {"crf": str(self._crf), "preset": "veryfast", "threads": str(THREADS)}
        encoder.time_base = self._source.time_base
        for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(encoder, name, getattr(decoder, name))
        self._began = True


def _graph(source: Any, filters: list[tuple[str, str]]) -> Any:
    import av.filter

    graph = av.filter.Graph()
    last = graph.add_buffer(template=source)
    for name, arguments in filters:
        following = graph.add(name, arguments or None)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _audio_stream(out: Any, source: Any) -> Any:
    layout = "mono" if source.codec_context.channels == 1 else "stereo"
    stream = out.add_stream("flac", rate=source.rate, layout=layout, format="s16")
    stream.codec_context.time_base = Fraction(1, source.rate)
    return stream
