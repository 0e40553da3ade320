"""Side-by-side videos and contact sheets of the report.

Shape suffixes: T pixel frames, H W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from df_models.files import atomic_path
from df_models.media import write_video

SIDE = 256
HEADER = 24
INK, PAPER = (31, 41, 55), (249, 250, 251)


def upscale(frame_HWC: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Enlarge a uint8 frame to at least ``side`` pixels of height by a whole factor (bicubic)."""
    factor = max(1, -(-side // frame_HWC.shape[0]))
    if factor == 1:
        return frame_HWC
    height, width = frame_HWC.shape[:2]
    return np.asarray(Image.fromarray(frame_HWC).resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def header(labels: Sequence[str], width: int) -> np.ndarray:
    """A strip of text, one label centred over each column of ``width`` pixels: uint8 [HEADER, width * n, 3]."""
    strip = Image.new("RGB", (width * len(labels), HEADER), PAPER)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(size=14)
    for index, label in enumerate(labels):
        draw.text((width * (index + 0.5), HEADER / 2), label, fill=INK, font=font, anchor="mm")
    return np.asarray(strip)


def write_side_by_side(path: Path, columns: dict[str, np.ndarray], wave_N: np.ndarray) -> None:
    """Write the videos [T, H, W, 3] next to each other, enlarged, with audio; H.264 yuv420p plays in every browser."""
    videos = list(columns.values())
    width = upscale(videos[0][0]).shape[1]
    strip = header(list(columns), width)

    def frame(index: int) -> np.ndarray:
        joined = np.concatenate([strip, np.concatenate([upscale(v[index]) for v in videos], axis=1)], axis=0)
        return joined[: joined.shape[0] // 2 * 2, : joined.shape[1] // 2 * 2]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (frame(index) for index in range(len(videos[0]))), audio=wave_N)


def write_contact_sheet(path: Path, clips: Sequence[dict[str, np.ndarray]], columns: int = 11, side: int = 64) -> None:
    """Write a JPEG: for each clip one line of images per row (truth, generated ...), evenly spread over its time."""
    factor = max(1, side // clips[0][next(iter(clips[0]))].shape[1])
    lines: list[np.ndarray] = []
    for clip in clips:
        for video in clip.values():
            picks = np.linspace(0, len(video) - 1, columns).round().astype(int)
            lines.append(np.concatenate([upscale(video[p], video.shape[1] * factor) for p in picks], axis=1))
        lines.append(np.full((8, lines[-1].shape[1], 3), PAPER, np.uint8))
    sheet = Image.fromarray(np.concatenate(lines[:-1], axis=0))
    labelled = Image.new("RGB", (sheet.width + 84, sheet.height), PAPER)
    labelled.paste(sheet, (84, 0))
    draw = ImageDraw.Draw(labelled)
    font = ImageFont.load_default(size=13)
    top = 0
    for clip in clips:
        for label, video in clip.items():
            height = video.shape[1] * factor
            draw.text((78, top + height / 2), label, fill=INK, font=font, anchor="rm")
            top += height
        top += 8
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        labelled.save(temporary, format="JPEG", quality=90)
