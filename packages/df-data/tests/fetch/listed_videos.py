"""Small videos whose images carry their own number, and what a clip of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from df_data.sources.catalogue import CatalogueClip, ListedCrop

RATE = 44_100
BITS = 10
WIDTH, HEIGHT = 160, 96


def drawn_image(number: int) -> np.ndarray:
    """uint8 [96, 160, 3]: ten black or white stripes spell the number; below, the left is red and the right is blue."""
    frame = np.full((HEIGHT, WIDTH, 3), (200, 40, 40), dtype=np.uint8)
    frame[:, WIDTH // 2 :] = (40, 40, 200)
    for bit in range(BITS):
        frame[: HEIGHT // 2, 16 * bit : 16 * (bit + 1)] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that an uncropped image spells."""
    height, width = frame.shape[:2]
    middle = frame[height // 4, [round((bit + 0.5) * width / BITS) for bit in range(BITS)]].mean(axis=-1)
    return sum(1 << bit for bit in range(BITS) if middle[bit] > 128)


def tone(seconds: float, channels: int = 1) -> np.ndarray:
    """int16 [N, C] in which no two places are alike."""
    generator = np.random.default_rng(5)
    return generator.integers(-9000, 9000, (round(seconds * RATE), channels), dtype=np.int16)


def write_video(
    path: Path,
    times: np.ndarray,
    *,
    wave: np.ndarray | None = None,
    wave_start: float = 0.0,
    images: bool = True,
    rotation: int = 0,
    mirrored: bool = False,
    codec: str = "flac",
    ticks: int = 90_000,
) -> Path:
    """Write images 0, 1, ... at these times (x264 with B-frames, a key frame every 48) and audio."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25) if images else None
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"crf": "12", "g": "48", "bf": "2"}
            stream.codec_context.time_base = Fraction(1, ticks)
            if rotation or mirrored:
                stream.set_display_rotation(rotation, hflip=mirrored)
        track: Any = None
        if wave is not None:
            track = out.add_stream(codec, rate=RATE, layout="mono" if wave.shape[1] == 1 else "stereo", format="s16")
        for index, time in enumerate(times if images else ()):
            frame = av.VideoFrame.from_ndarray(drawn_image(index), format="rgb24")
            frame.pts, frame.time_base = round(float(time) * ticks), Fraction(1, ticks)
            out.mux(stream.encode(frame))
        if stream is not None:
            out.mux(stream.encode(None))
        if wave is not None:
            for begin in range(0, len(wave), 4096):
                piece = np.ascontiguousarray(wave[begin : begin + 4096]).reshape(1, -1)
                layout = "mono" if wave.shape[1] == 1 else "stereo"
                sounding = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
                sounding.sample_rate, sounding.time_base = RATE, Fraction(1, RATE)
                sounding.pts = begin + round(wave_start * RATE)
                out.mux(track.encode(sounding))
            out.mux(track.encode(None))
    return path


def with_aspect(path: Path, aspect: str, rotation: int, frames: int) -> Path:
    """Write a video whose pixels have this width over their height, as in "2/1", to be shown turned.

    By way of a transport stream, whose H.264 says its pixels' shape in the stream itself, where a filter can change it.
    """
    plain = write_video(path.with_suffix(".plain.ts"), np.arange(frames) / 25, wave=tone(frames / 25), codec="mp2")
    marked = _copied(plain, path.with_suffix(".ts"), marker=f"h264_metadata=sample_aspect_ratio={aspect}")
    return _copied(marked, path, rotation=rotation)


def _copied(source: Path, out: Path, *, marker: str = "null", rotation: int = 0) -> Path:
    with av.open(str(source)) as container, av.open(str(out), "w") as copy:
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in container.streams}
        if rotation:
            streams[container.streams.video[0].index].set_display_rotation(rotation)
        filtered = BitStreamFilterContext(marker, container.streams.video[0])
        for packet in container.demux():
            index, video = packet.stream.index, packet.stream.type == "video"
            for piece in filtered.filter(packet) if video else [packet]:
                if piece.dts is not None:
                    piece.stream = streams[index]
                    copy.mux(piece)
    return out


@dataclass
class Read:
    """A clip's contents: numbers and times of its images, int16 audio [N, C] and where it begins."""

    numbers: list[int]
    times: list[float]
    frames: list[np.ndarray]
    wave: np.ndarray
    wave_start: float | None


def read_clip(path: Path) -> Read:
    """Decode all of a clip."""
    with av.open(str(path)) as container:
        frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    pieces, start = [], None
    with av.open(str(path)) as container:
        for stream in container.streams.audio:
            for piece in container.decode(stream):
                start = float(piece.time) if start is None else start
                samples = piece.to_ndarray()
                planar = piece.format.is_planar
                pieces.append(samples.T if planar else samples.reshape(-1, stream.codec_context.channels))
    wave = np.concatenate(pieces) if pieces else np.zeros((0, 1), dtype=np.int16)
    times, images = [time for time, _ in frames], [image for _, image in frames]
    numbers = [number_of(image) for image in images]
    return Read(numbers, times, images, wave, start)


def make_clip(
    start: float = 0.0,
    end: float | None = None,
    box: ListedCrop | None = None,
    *,
    name: str = "c",
    url: str = "http://127.0.0.1/v.mp4",
    person: str | None = None,
) -> CatalogueClip:
    """A clip of a listed video."""
    return CatalogueClip(
        clip=name, dataset="test", url=url, start_s=start, end_s=end, crop=box, person=person, licence="CC0-1.0"
    )
