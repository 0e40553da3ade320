"""Decode a video once: upright RGB frames at exactly 25 fps and the 16 kHz mono sound that belongs to them.

Both streams are placed on one clock by their time stamps. Time 0 of the clip is the first video frame; sound that
began earlier is cut, sound that began later is preceded by silence.

Shape legend: T frames at 25 fps, H height, W width, N samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from df_data.stages.rejection import Rejected
from df_models.errors import UserError
from df_models.time import FPS, SAMPLE_RATE, samples_for

GAP_S = 0.03
"""Sound frames further than this from where the last one ended leave silence, or overwrite, by their time stamp."""
LATEST_START_S = 600.0
"""Streams that begin further apart than this have damaged time stamps."""


@dataclass(frozen=True)
class DecodedClip:
    """A video as the later stages see it.

    Attributes:
        frames: uint8 RGB [T, H, W, 3] at 25 fps, upright.
        wave: float32 [640 T] mono at 16 kHz, sample 0 at the time of frame 0.
        source_fps: mean frame rate of the file.
        sound_offset_s: when the sound began after the first frame (negative: before it).
        sound_share: share of the clip's length that the file's sound covers.
        rotation: degrees that the frames were turned counter-clockwise to stand upright.
    """

    frames: np.ndarray
    wave: np.ndarray
    source_fps: float
    sound_offset_s: float
    sound_share: float
    rotation: int


def decode_clip(path: Path, *, min_seconds: float = 2.0, max_seconds: float = 10.0) -> DecodedClip:
    """Decode the first ``max_seconds`` of a video file.

    Raises:
        Rejected: ``no_video_track``, ``no_sound_track``, ``too_short``, ``broken_time_stamps``.
        UserError: no such file, or one that cannot be decoded.
    """
    import av

    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise Rejected("no_video_track", "the file has no video track")
            if not container.streams.audio:
                raise Rejected("no_sound_track", "the file has no sound track")
            return _decode(container, min_seconds, max_seconds)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path.name} cannot be decoded ({reason})") from error


def _decode(container: Any, min_seconds: float, max_seconds: float) -> DecodedClip:
    video, sound = container.streams.video[0], container.streams.audio[0]
    video.thread_type = "SLICE"
    pictures, chunks = _demux(container, video, sound, max_seconds)
    if not pictures:
        raise Rejected("no_video_track", "the video track holds no picture")
    if not chunks:
        raise Rejected("no_sound_track", "the sound track holds no sound")
    times = np.array([picture.time for picture in pictures])
    indices = resample_indices(times, _last_duration(times, video), FPS)[: int(max_seconds * FPS)]
    if len(indices) < min_seconds * FPS:
        seconds = len(indices) / FPS
        raise Rejected("too_short", f"{seconds:.2f} s of video, {min_seconds:g} s wanted", {"seconds": seconds})
    offset = chunks[0][0] - times[0]
    if abs(offset) > LATEST_START_S:
        raise Rejected("broken_time_stamps", f"sound begins {offset:.0f} s from the video", {"sound_offset_s": offset})
    wave, covered = place_sound(chunks, sound.codec_context.sample_rate, float(times[0]), samples_for(len(indices)))
    frames = _to_rgb(pictures, indices)
    span = times[-1] - times[0]
    return DecodedClip(
        frames=frames,
        wave=wave,
        source_fps=float((len(times) - 1) / span) if span > 0 else float(FPS),
        sound_offset_s=float(offset),
        sound_share=covered,
        rotation=upright_rotation(pictures[0]),
    )


def _demux(container: Any, video: Any, sound: Any, max_seconds: float) -> tuple[list[Any], list[tuple[float, Any]]]:
    """Video frames (undecoded to RGB, so half the memory) and (time, mono float samples) up to ``max_seconds``."""
    pictures: list[Any] = []
    chunks: list[tuple[float, Any]] = []
    enough = {video.index: False, sound.index: False}
    for packet in container.demux(video, sound):
        if enough[packet.stream.index]:
            if all(enough.values()):
                break
            continue
        for frame in packet.decode():
            if frame.time is None:
                continue
            if packet.stream.index == video.index:
                if pictures and frame.time <= pictures[-1].time:
                    continue
                pictures.append(frame)
            else:
                chunks.append((float(frame.time), _mono(frame)))
            start = pictures[0].time if pictures else None
            enough[packet.stream.index] = start is not None and frame.time > start + max_seconds + 1.0
    return pictures, chunks


def _mono(frame: Any) -> np.ndarray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind in "iu":
        offset = 128 if samples.dtype == np.uint8 else 0
        samples = (samples.astype(np.float32) - offset) / (128.0 if offset else float(np.iinfo(samples.dtype).max))
    return samples.astype(np.float32).mean(axis=0)


def _last_duration(times: np.ndarray, video: Any) -> float:
    if len(times) > 1:
        return float(np.median(np.diff(times)))
    return float(1 / video.average_rate) if video.average_rate else 1.0 / FPS


def resample_indices(times: np.ndarray, last_duration: float, fps: float) -> np.ndarray:
    """Return for each tick ``k / fps`` after the first time stamp the frame whose time stamp is nearest.

    The clip lasts from the first time stamp to the end of the last frame; the number of ticks is that length in
    whole frames. Nearest, rather than the frame on display, because its error has no sign: half a source frame at
    most, 0 on average, so sound and lips stay together. A tie takes the earlier frame.

    Args:
        times: rising time stamps in seconds, ``[F]``.
        last_duration: how long the last frame is shown, in seconds.

    Returns:
        int64 ``[T]`` indices into ``times``.
    """
    length = times[-1] - times[0] + last_duration
    ticks = times[0] + np.arange(int(np.floor(length * fps + 1e-3))) / fps
    middles = (times[1:] + times[:-1]) / 2
    return np.searchsorted(middles, ticks - 1e-6, side="left")


def place_sound(
    chunks: list[tuple[float, np.ndarray]], rate: int, start: float, num_samples: int
) -> tuple[np.ndarray, float]:
    """Lay sound on the clip's clock and resample it to 16 kHz.

    Args:
        chunks: (time stamp in seconds, mono float32 samples), in file order.
        rate: their sample rate.
        start: the clip's time 0 on the same clock.
        num_samples: length of the result.

    Returns:
        float32 ``[num_samples]`` and the share of it that sound covers; the rest is silence.
    """
    line = np.zeros(int(np.ceil(num_samples * rate / SAMPLE_RATE)), dtype=np.float32)
    covered = np.zeros(len(line), dtype=bool)
    expected: float | None = None
    for time, samples in chunks:
        stamped = (time - start) * rate
        position = stamped if expected is None or abs(stamped - expected) > GAP_S * rate else expected
        first = round(position)
        low, high = max(0, first), min(len(line), first + len(samples))
        if low < high:
            line[low:high] = samples[low - first : high - first]
            covered[low:high] = True
        expected = position + len(samples)
    wave = resample_sound(line, rate)[:num_samples]
    return np.pad(wave, (0, num_samples - len(wave))), float(covered.mean())


def resample_sound(wave: np.ndarray, rate: int) -> np.ndarray:
    """Resample mono float32 sound from ``rate`` to 16 kHz, without delay."""
    import av

    if rate == SAMPLE_RATE:
        return wave
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    pieces = [out.to_ndarray()[0] for given in (frame, None) for out in resampler.resample(given)]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)


def upright_rotation(picture: Any) -> int:
    """Return the multiple of 90 degrees, counter-clockwise, that the container asks a player to turn a frame by."""
    return round(getattr(picture, "rotation", 0) / 90.0) * 90 % 360


def turn_upright(frame_HWC: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a frame counter-clockwise by ``rotation`` degrees (a multiple of 90)."""
    return np.rot90(frame_HWC, rotation // 90) if rotation else frame_HWC


def _to_rgb(pictures: list[Any], indices: np.ndarray) -> np.ndarray:
    rotation = upright_rotation(pictures[0])
    width, height = pictures[0].width, pictures[0].height
    frames: np.ndarray | None = None
    for position, picture in enumerate(_release(pictures, indices)):
        rgb = turn_upright(picture.to_ndarray(format="rgb24", width=width, height=height), rotation)
        if frames is None:
            frames = np.empty((len(indices), *rgb.shape), dtype=np.uint8)
        frames[position] = rgb
    assert frames is not None
    return frames


def _release(pictures: list[Any], indices: np.ndarray) -> Iterator[Any]:
    """Yield ``pictures[indices]`` and let go of each picture once no later index wants it."""
    for position, index in enumerate(indices):
        yield pictures[index]
        if position + 1 < len(indices):
            for old in range(index, indices[position + 1]):
                pictures[old] = None
