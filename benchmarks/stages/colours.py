"""HDR, wide gamuts and interlaced files: images of known levels put into them, against what is decoded.

Shape legend: T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.stages.tables import Section, table
from df_data.stages.colour import (
    BRIGHTEST,
    BT2020,
    HLG,
    PQ,
    Colours,
    gamut_matrix,
    pq_signal,
    standard_light,
)
from df_data.stages.decode import iter_segments

FRAMES = 5
"""Of each clip, spread over it."""
KNEE = 180
"""Level of standard range from which on HDR's highlights are compressed (`df_data.stages.colour`)."""
A, B, C = 0.17883277, 1 - 4 * 0.17883277, 0.5 - 0.17883277 * np.log(4 * 0.17883277)
"""BT.2100, table 5."""


def hlg_signal(light: np.ndarray) -> np.ndarray:
    """Light of a display of 1000 cd/m2, ``[..., 3]`` of BT.2020, as HLG's signal (BT.2100, the OOTF inverted)."""
    luminance = np.maximum(light @ np.array([0.2627, 0.6780, 0.0593]), 1e-9) / BRIGHTEST
    scene = light / BRIGHTEST * luminance[..., None] ** (1 / 1.2 - 1)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), A * np.log(np.maximum(12 * scene - B, 1e-9)) + C)


KINDS: dict[str, tuple[Colours, Callable[[np.ndarray], np.ndarray]]] = {
    "HLG": (Colours(HLG, BT2020), hlg_signal),
    "PQ": (Colours(PQ, BT2020), pq_signal),
    "BT.2020, standard range": (Colours(1, BT2020), lambda light: (light / standard_light(np.array(1.0))) ** (1 / 2.4)),
}


def write(
    path: Path, frames: Sequence[av.VideoFrame], codec: str, pixels: str, colours: Colours, **options: str
) -> None:
    """Write frames at 25 a second."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixels
        context = stream.codec_context
        context.color_trc, context.color_primaries = colours
        context.colorspace = 9 if colours.primaries == BT2020 else 1
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def ten_bits(rgb_HWC: np.ndarray) -> av.VideoFrame:
    """R'G'B' in [0, 1] as yuv420p10 by BT.2020's matrix."""
    frame = av.VideoFrame.from_ndarray(np.rint(65535 * rgb_HWC).astype(np.uint16), format="rgb48le")
    return frame.reformat(format="yuv420p10le", dst_colorspace=9)


def decoded(path: Path) -> np.ndarray:
    """Return a file's frames as the stages see them."""
    return np.concatenate([clip.frames for clip in iter_segments(path, min_seconds=0.04, needs_audio=False)])


def untouched(path: Path) -> np.ndarray:
    """Return a file's frames without a look at their colours and fields."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def hdr_errors(clips: Sequence[np.ndarray], kind: str, folder: Path) -> dict[str, float]:
    """Mean distance in levels (of 255) from the clips as they were, up to the knee and above it."""
    colours, signal = KINDS[kind]
    to_2020 = np.linalg.inv(gamut_matrix("BT.2020")).T
    off: dict[str, list[np.ndarray]] = {"taken as it is": [], "decoded": [], "above": []}
    for frames in clips:
        path = folder / "hdr.mp4"
        light = standard_light(frames / 255) @ to_2020
        write(path, [ten_bits(np.clip(signal(f), 0, 1)) for f in light], "libx265", "yuv420p10le", colours,
              crf="4", **{"x265-params": "log-level=none:pools=none:frame-threads=1"})  # fmt: skip
        found, raw = decoded(path)[: len(frames)].astype(float), untouched(path).astype(float)
        low = frames.max(axis=-1) <= KNEE
        off["taken as it is"].append(np.abs(raw - frames)[low])
        off["decoded"].append(np.abs(found - frames)[low])
        off["above"].append(np.abs(found - frames)[~low])
    return {name: float(np.concatenate([part.ravel() for part in parts]).mean()) for name, parts in off.items()}


def field_psnr(clips: Sequence[np.ndarray], folder: Path) -> dict[str, float]:
    """Median PSNR of woven pairs of frames against the frame whose field is kept, as they are and as decoded."""
    found: dict[str, list[float]] = {"as they are": [], "decoded": []}
    for frames in clips:
        woven = frames[:-1].copy()
        woven[:, 1::2] = frames[1:, 1::2]
        path = folder / "fields.mp4"
        rgb = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in woven]
        images = [frame.reformat(format="yuv420p", dst_colorspace=1) for frame in rgb]
        write(path, images, "libx264", "yuv420p", Colours(1, 1), crf="4", **{"x264-params": "tff=1:threads=1"})
        for name, seen in (("as they are", untouched(path)), ("decoded", decoded(path)[: len(woven)])):
            found[name].append(max(_psnr(seen, frames[:-1]), _psnr(seen, frames[1:])))
    return {name: float(np.median(values)) for name, values in found.items()}


def _psnr(found: np.ndarray, meant: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(found / 255.0 - meant / 255.0).mean() + 1e-12))


def measure(corpora: Mapping[str, Sequence[np.ndarray]], folder: Path) -> Section:
    """Return the section.

    Args:
        corpora: by name, clips uint8 ``[T, H, W, 3]`` of 25 frames a second, of even sides.
    """
    rows, fields, figures = [], [], {}
    for name, clips in corpora.items():
        some = [clip[np.linspace(0, len(clip) - 1, FRAMES).round().astype(int)] for clip in clips]
        for kind in KINDS:
            found = figures[f"{name}, {kind}"] = hdr_errors(some, kind, folder)
            rows.append((kind, name, len(clips), *(f"{value:.1f}" for value in found.values())))
        psnr = figures[f"{name}, fields"] = field_psnr([clip[:25] for clip in clips], folder)
        fields.append((name, len(clips), *(f"{value:.1f} dB" for value in psnr.values())))
    head = ("file", "clips of", "clips", "taken as it is: levels off", "decoded: levels off", f"above level {KNEE}")
    text = (
        "Clips put into 10 bit files by Report ITU-R BT.2408 (white of standard range at 203 cd/m2) and decoded; mean "
        f"distance from what they were, in levels of 255, of pixels up to level {KNEE}. Brighter ones are compressed "
        "on purpose in HLG and PQ (`df_data.stages.colour`).\n\n"
        + table(head, rows)
        + "\n\nInterlaced files, woven of each frame and the next: PSNR against the nearer of the two.\n\n"
        + table(("clips of", "clips", "as they are", "decoded"), fields)
    )
    return Section("Colours and fields", text, figures)
