"""Small videos of every container and of every oddity that an encoder can be brought to write.

Shape legend: T frames, H height, W width, N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES, SIDE = 60, 96
CLOCK = 90_000
"""Ticks per second in which images are stamped."""


@dataclass(frozen=True)
class Recipe:
    """A video; ``times`` are the images' time stamps in seconds, ``tone`` is float32 ``[N]``, None for no track."""

    format: str = "mp4"
    video: str | None = "libx264"
    audio: str | None = "aac"
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (SIDE, SIDE)
    times: Sequence[float] = tuple(np.arange(FRAMES) / 25)
    rate: int = 48_000
    layout: str = "mono"
    tone: np.ndarray | None = None
    audio_start: float = 0.0
    rotation: int = 0
    options: dict[str, str] = field(default_factory=dict)
    clock: int = CLOCK

    def seconds(self) -> float:
        return len(self.times) / 25


FAST = {
    "libx264": {"preset": "ultrafast", "crf": "30", "bf": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
CONTAINERS = {
    "mp4": Recipe(),
    "fast.mp4": Recipe(options={"movflags": "faststart"}),
    "mpg": Recipe(format="mpeg", video="mpeg1video", audio="mp2", rate=44_100),
    "webm": Recipe(format="webm", video="libvpx-vp9", audio="libopus"),
    "mkv": Recipe(format="matroska", audio="flac", rate=44_100),
    "mov": Recipe(format="mov", audio="pcm_s16le", rate=16_000, rotation=90),
    "avi": Recipe(format="avi", video="mjpeg", pix_fmt="yuvj420p", audio="pcm_s16le"),
    "ts": Recipe(format="mpegts"),
}
"""Intact videos by the end of their names."""


def speech(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Noise in syllables, float32 ``[N]``."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    return (0.2 * rng.standard_normal(len(time)) * np.sin(8 * time) ** 2).clip(-1, 1).astype(np.float32)


def drawn_image(index: int, width: int, height: int) -> np.ndarray:
    """A textured image that changes a little from frame to frame, uint8 RGB ``[H, W, 3]``."""
    y, x = np.mgrid[:height, :width]
    wave = 128 + 60 * np.sin((x + index / 3) / 5) + 40 * np.cos(y / 7)
    return np.stack([wave, wave[::-1], 255 - wave], axis=-1).clip(0, 255).astype(np.uint8)


def render(path: Path, recipe: Recipe) -> None:
    """Write a video."""
    with av.open(str(path), "w", format=recipe.format, options=recipe.options) as out:
        video = audio = None
        if recipe.video:
            video = out.add_stream(recipe.video, rate=Fraction(25), options=FAST.get(recipe.video, {}))
            video.width, video.height = recipe.size
            video.pix_fmt = recipe.pix_fmt
            ticks = 25 if recipe.format in ("mpeg", "avi") else recipe.clock
            video.time_base = video.codec_context.time_base = base = Fraction(1, ticks)
            if recipe.rotation:
                video.set_display_rotation(recipe.rotation)
        if recipe.audio:
            audio = out.add_stream(recipe.audio, rate=recipe.rate, layout=recipe.layout)
        if video is not None:
            for index, time in enumerate(recipe.times):
                frame = av.VideoFrame.from_ndarray(drawn_image(index, *recipe.size), format="rgb24")
                frame.pts, frame.time_base = round(time / base), base
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
        if audio is not None:
            _write_audio(out, audio, recipe)


def _write_audio(out: av.container.OutputContainer, audio: av.AudioStream, recipe: Recipe) -> None:
    tone = speech(recipe.seconds(), recipe.rate) if recipe.tone is None else recipe.tone
    if len(tone):
        channels = audio.codec_context.layout.nb_channels
        format = "flt" if channels > 1 else "fltp"  # arrays of many planes cannot be given to PyAV
        values = np.repeat(tone, channels)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=format, layout=recipe.layout)
        frame.sample_rate, frame.time_base = recipe.rate, Fraction(1, recipe.rate)
        frame.pts = round(recipe.audio_start * recipe.rate)
        length = audio.codec_context.frame_size or 1024
        convert = av.AudioResampler(audio.format.name, recipe.layout, recipe.rate, frame_size=length)
        for piece in [*convert.resample(frame), *convert.resample(None)]:
            out.mux(audio.encode(piece))
    out.mux(audio.encode(None))


def restamp(source: Path, target: Path, format: str, times: Sequence[int | None]) -> None:
    """Copy a video's packets into another container, its images with these presentation stamps in 1/1000 s."""
    as_they_are = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as inside, av.open(str(target), "w", format=format, options=as_they_are) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in inside.streams if s.type in ("video", "audio")}
        stamps = iter(times)
        for number, packet in enumerate((p for p in inside.demux() if p.size and p.dts is not None), -(10**6)):
            is_video = packet.stream.type == "video"
            packet.stream = streams[packet.stream.index]
            if is_video:
                packet.time_base = Fraction(1, 1000)
                packet.pts, packet.dts = next(stamps), number  # the order of decoding is not stored
            out.mux(packet)


def with_packets(source: Path, target: Path, format: str, kind: str, change: bytes) -> None:
    """Copy a video, its packets of one kind (``audio``, ``video``) filled with bytes in turn."""
    with av.open(str(source)) as inside, av.open(str(target), "w", format=format) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in inside.streams}
        for packet in inside.demux():
            if not packet.size or packet.dts is None:
                continue
            stream = streams[packet.stream.index]
            if packet.stream.type == kind:
                data = (change * (packet.size // len(change) + 1))[: packet.size]
                new = av.Packet(data)
                new.pts, new.dts, new.time_base, new.duration = (
                    packet.pts, packet.dts, packet.time_base, packet.duration,
                )  # fmt: skip
                packet = new
            packet.stream = stream
            out.mux(packet)
