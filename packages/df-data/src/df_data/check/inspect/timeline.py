"""A clip over time as one drawing: frames with mouth box and keypoints, below them audio, mouth and words, one axis.

An image's tile stands over its share of the time axis and shows the frame of the tile's middle, which a line marks in
the audio below; so lips and audio can be compared by eye.

Shape legend: P pixel frames, N samples of 16 kHz audio, F = 2P features of 50 Hz, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.check.inspect.images import ClipImages, data_uri, jpeg_strip
from df_data.check.inspect.keypoints import Keypoints
from df_data.check.inspect.svg import element, escape, polygon, polyline
from df_data.format.measures import mouth_opening
from df_data.format.sample import Sample
from df_models.encoders.audio.logmel import LogMel
from df_models.time import AUDIO_RATE, FPS, SAMPLE_RATE

WIDTH, TILES = 1120, 8
TILE = WIDTH // TILES
AUDIO = 76
"""Height of the audio's part."""
WORDS = 16
BINS = 560
"""Columns of the waveform."""


@dataclass(frozen=True)
class Timeline:
    """The drawing as SVG, and in words what is drawn and what could not be."""

    drawing: str
    notes: tuple[str, ...]


def timeline(sample: Sample, images: ClipImages, keypoints: Keypoints) -> Timeline:
    """Draw a clip."""
    shown = tile_frames(sample.meta.num_frames)
    notes = [images.source, f"keypoints: {keypoints.source}"]
    head, height = "", 0
    if images.frames is not None:
        height = round(TILE * sample.meta.height / sample.meta.width)
        head = _tiles(sample, images.frames, keypoints, shown, height)
    audio, note = _audio(sample, images.wave)
    mouth, mouth_note = _mouth(sample)
    notes += [note, mouth_note]
    below = element("g", _marks(sample, shown) + audio + mouth + _words(sample), transform=f"translate(0 {height})")
    box = f"0 0 {WIDTH} {height + AUDIO + 2 * WORDS}"
    return Timeline(element("svg", head + below, viewBox=box, class_="timeline"), tuple(filter(None, notes)))


def tile_frames(num_frames: int) -> list[int]:
    """Return the pixel frame in the middle of each of the eight tiles."""
    return [int((tile + 0.5) * num_frames / TILES) for tile in range(TILES)]


def _x(seconds: float | np.ndarray, num_frames: int) -> np.ndarray:
    return np.asarray(seconds) * FPS / num_frames * WIDTH


def _tiles(sample: Sample, frames: np.ndarray, keypoints: Keypoints, shown: list[int], height: int) -> str:
    strip = element("image", href=data_uri(jpeg_strip(frames, shown), "image/jpeg"), width=WIDTH, height=height)
    return strip + "".join(_overlay(sample, keypoints, frame, tile) for tile, frame in enumerate(shown))


def _overlay(sample: Sample, keypoints: Keypoints, frame: int, tile: int) -> str:
    """Mouth box, keypoints and number of one tile, cut off at its edges (a nested svg does that)."""
    meta = sample.meta
    x0, y0, x1, y1 = sample.tensors["mouth_boxes"][frame].tolist()
    box = {"x": f"{x0:.2f}", "y": f"{y0:.2f}", "width": f"{x1 - x0:.2f}", "height": f"{y1 - y0:.2f}"}
    drawn = element("rect", **box, class_="mouthbox")
    if keypoints.points is not None:
        radius = f"{meta.width / 90:.2f}"
        dots = (element("circle", cx=f"{x:.2f}", cy=f"{y:.2f}", r=radius) for x, y in keypoints.points[frame])
        drawn += element("g", "".join(dots), class_="keypoints")
    view = f"0 0 {meta.width} {meta.height}"
    height = round(TILE * meta.height / meta.width)
    inner = element("svg", drawn, x=tile * TILE, y=0, width=TILE, height=height, viewBox=view)
    return inner + element("text", str(frame), x=tile * TILE + 5, y=13, class_="frame")


def _marks(sample: Sample, shown: list[int]) -> str:
    """Lines at the shown frames' moments, and the axis with its seconds."""
    num_frames = sample.meta.num_frames
    drawn = [element("rect", x=0, y=0, width=WIDTH, height=AUDIO, class_="field")]
    for frame in shown:
        x = f"{_x(frame / FPS, num_frames):.1f}"
        drawn.append(element("line", x1=x, y1=0, x2=x, y2=AUDIO, class_="moment"))
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600) if num_frames / FPS / s <= 16 or s == 600)
    for tick in range(int(num_frames / FPS / step) + 1):
        x = float(_x(tick * step, num_frames))
        drawn.append(element("line", x1=f"{x:.1f}", y1=AUDIO, x2=f"{x:.1f}", y2=AUDIO + 4, class_="axis"))
        anchor = "start" if tick == 0 else "end" if x > WIDTH - 30 else "middle"
        drawn.append(element("text", f"{tick * step:.4g} s", x=f"{x:.1f}", y=AUDIO + WORDS - 2, text_anchor=anchor))
    return "".join(drawn)


def _audio(sample: Sample, wave_N: np.ndarray | None) -> tuple[str, str]:
    num_frames = sample.meta.num_frames
    if wave_N is not None and len(wave_N):
        columns = np.linspace(0, num_frames / FPS, BINS + 1)
        edges = np.minimum((columns * SAMPLE_RATE).astype(int), len(wave_N) - 1)
        low, high = np.minimum.reduceat(wave_N, edges[:-1]), np.maximum.reduceat(wave_N, edges[:-1])
        peak = max(float(np.abs(wave_N).max()), 1e-6)
        return _band(_x(columns[:-1], num_frames), low / peak, high / peak), "audio: the mp4's, scaled to its peak"
    audio = sample.meta.encoders.get("audio")
    if audio is not None and audio.id == LogMel.id:
        loud = sample.tensors["audio"].float().mean(dim=1).numpy()
        loud = (loud - loud.min()) / max(float(np.ptp(loud)), 1e-6)
        times = (np.arange(len(loud)) + 0.5) / AUDIO_RATE
        return _band(
            _x(times, num_frames), -loud, loud
        ), "audio: loudness of the log-mel features (the clip has no mp4)"
    return "", "audio: not drawn (the clip has no mp4, and its audio features are no spectrum)"


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    middle, reach = AUDIO / 2, 0.94 * AUDIO / 2
    across = np.concatenate([x, x[::-1]])
    return polygon(across, middle - reach * np.concatenate([high, low[::-1]]), class_="wave")


def _mouth(sample: Sample) -> tuple[str, str]:
    opening = mouth_opening(sample.meta, sample.tensors)
    if opening is None:
        return "", "mouth opening: not stored"
    values = opening.numpy()
    low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-6)
    y = AUDIO - 3 - (AUDIO - 6) * (values - low) / (high - low)
    x = _x(np.arange(len(values)) / FPS, sample.meta.num_frames)
    measured = "measured by the landmarker" if "structure" in sample.meta.encoders else "exact"
    note = f"orange: mouth opening ({measured}), {low:.3g} to {high:.3g} of the face's height"
    return polyline(x, y, class_="mouth"), note


def _words(sample: Sample) -> str:
    """Words or phonemes under the axis, each over the time it is spoken."""
    meta = sample.meta
    drawn, seconds = [], meta.num_frames / FPS
    for word, start, end in spoken(sample):
        begin, stop = max(start, 0.0), min(end, seconds)
        if begin < stop:
            x0, x1 = (float(_x(t, meta.num_frames)) for t in (begin, stop))
            place = {"x": f"{x0:.1f}", "y": AUDIO + WORDS, "width": f"{max(x1 - x0 - 1, 0.5):.1f}", "height": WORDS - 3}
            drawn.append(element("rect", **place, class_="word"))
            if x1 - x0 > 6 * len(word):
                middle = f"{(x0 + x1) / 2:.1f}"
                drawn.append(element("text", escape(word), x=middle, y=AUDIO + 2 * WORDS - 6, text_anchor="middle"))
    return "".join(drawn)


def spoken(sample: Sample) -> list[tuple[str, float, float]]:
    """Return (symbol, start, end) in seconds of a clip's phonemes, else of its words, else nothing."""
    meta = sample.meta
    if meta.phonemes:
        return list(meta.phonemes)
    starts, ends = meta.provenance.get("word_starts"), meta.provenance.get("word_ends")
    words = (meta.text or "").split()
    if isinstance(starts, list) and isinstance(ends, list) and len(words) == len(starts) == len(ends):
        return list(zip(words, starts, ends))
    return []
