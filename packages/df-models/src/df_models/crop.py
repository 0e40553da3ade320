"""One stable square crop of a face: the same rule for training clips and for a portrait at inference.

Coordinates are in pixels with the origin at the top left corner of the top left pixel, so an image spans
``[0, W] x [0, H]`` and the centre of its first pixel is (0.5, 0.5).

Shape legend: T frames, H height, W width, S side of the crop in its own pixels, N boxes, K keypoints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from df_models.errors import UserError

_RULE = re.compile(r"^(?P<detector>[a-z0-9_]+):(?P<scale>[0-9.]+):(?P<offset>-?[0-9.]+)$")


@dataclass(frozen=True)
class CropRule:
    """How a crop follows from a face box: ``side = scale * max(width, height)``.

    The centre is moved by ``vertical_offset * side`` (negative: up, to keep the forehead). Such a rule is
    LivePortrait's (``src/utils/crop.py``: scale 2.3, vertical offset -0.125, there on landmarks and along the head's
    own axis); a tighter scale suits small crops.

    Attributes:
        detector: which detector the box comes from; boxes of another one have other margins.
    """

    detector: str = "yunet"
    scale: float = 1.3
    vertical_offset: float = -0.03

    def __str__(self) -> str:
        """Return the rule as one word, such as ``yunet:1.3:-0.03``, to be kept in a model's config."""
        return f"{self.detector}:{self.scale:g}:{self.vertical_offset:g}"

    @classmethod
    def parse(cls, text: str) -> CropRule:
        """Undo ``str(rule)``.

        Raises:
            UserError: ``text`` is not ``detector:scale:vertical_offset``.
        """
        match = _RULE.match(text)
        if match is None:
            raise UserError(f"{text!r} is no crop rule; write detector:scale:vertical_offset, as in 'yunet:1.3:-0.03'")
        return cls(match["detector"], float(match["scale"]), float(match["offset"]))


@dataclass(frozen=True)
class CropBox:
    """A square in the image, in (fractional) pixels; it may reach over the edge."""

    x: float
    y: float
    side: float

    def inside(self, height: int, width: int) -> float:
        """Return the share of the square's area that lies within the image."""
        covered_x = max(0.0, min(self.x + self.side, width) - max(self.x, 0.0))
        covered_y = max(0.0, min(self.y + self.side, height) - max(self.y, 0.0))
        return covered_x * covered_y / self.side**2

    def to_crop(self, points_K2: np.ndarray, size: int) -> np.ndarray:
        """Map points of the image to pixels of the crop of ``size``."""
        return (points_K2 - np.array([self.x, self.y])) * (size / self.side)


def square_crop(boxes_N4: np.ndarray, rule: CropRule, down_N2: np.ndarray | None = None) -> CropBox:
    """Return the one square for a clip, from its faces' boxes (x0, y0, x1, y1), one per detected frame.

    The median over time makes the box stable: it does not follow the head, so head motion stays in the clip.

    Args:
        down_N2: unit vectors down the faces, along which the centre is moved (their median); straight down without.
    """
    boxes_N4 = np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 4)
    if not len(boxes_N4):
        raise UserError("no face box to crop around")
    x0, y0, x1, y1 = np.median(boxes_N4, axis=0)
    down = np.array([0.0, 1.0])
    if down_N2 is not None:
        down = np.median(down_N2, axis=0)
        down /= np.linalg.norm(down)
    side = rule.scale * max(x1 - x0, y1 - y0)
    corner = np.array([x0 + x1, y0 + y1]) / 2 + (rule.vertical_offset * down - 0.5) * side
    return CropBox(float(corner[0]), float(corner[1]), float(side))


def crop_resize(frames: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """Cut ``box`` out of uint8 frames ``[H, W, 3]`` or ``[T, H, W, 3]`` and resize it to ``size`` x ``size``.

    The filter is the cubic of :func:`resample_matrix`, widened when shrinking, so nothing aliases; beyond the edge of
    the image its last row or column goes on.
    """
    single = frames.ndim == 3
    frames_THWC = frames[None] if single else frames
    rows = resample_matrix(frames_THWC.shape[1], box.y, box.y + box.side, size)
    columns = resample_matrix(frames_THWC.shape[2], box.x, box.x + box.side, size)
    y0, y1 = _support(rows)
    x0, x1 = _support(columns)
    out_TSSC = np.empty((len(frames_THWC), size, size, 3), dtype=np.uint8)
    for index, frame_HWC in enumerate(frames_THWC):
        patch = frame_HWC[y0:y1, x0:x1].astype(np.float32)
        tall = np.tensordot(rows[:, y0:y1], patch, axes=(1, 0))
        square = np.tensordot(tall, columns[:, x0:x1], axes=(1, 1)).transpose(0, 2, 1)
        out_TSSC[index] = np.clip(square + 0.5, 0, 255).astype(np.uint8)
    return out_TSSC[0] if single else out_TSSC


def resample_matrix(length: int, start: float, stop: float, size: int) -> np.ndarray:
    """Return float32 ``[size, length]``: resamples the span ``[start, stop]`` of a line of pixels to ``size`` pixels.

    Keys' cubic (a = -0.5), stretched by the factor of shrinking as Pillow's BICUBIC is; positions beyond the line
    take its end pixels. Every row sums to 1.
    """
    step = (stop - start) / size
    stretch = max(step, 1.0)
    centres_S = start + (np.arange(size) + 0.5) * step
    first, last = int(np.floor(start - 2 * stretch)) - 1, int(np.ceil(stop + 2 * stretch)) + 1
    positions_P = np.arange(first, last + 1)
    weights_SP = _cubic((positions_P[None] + 0.5 - centres_S[:, None]) / stretch)
    weights_SP /= weights_SP.sum(axis=1, keepdims=True)
    matrix_SL = np.zeros((size, length))
    np.add.at(matrix_SL.T, np.clip(positions_P, 0, length - 1), weights_SP.T)
    return matrix_SL.astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _support(matrix_SL: np.ndarray) -> tuple[int, int]:
    used = np.flatnonzero(np.abs(matrix_SL).max(axis=0))
    return int(used[0]), int(used[-1]) + 1
