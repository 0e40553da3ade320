"""How an image has to be turned to stand upright: the container's display matrix, with its mirror.

Source: ISO/IEC 14496-12 (track header's matrix), FFmpeg ``libavutil/display.h``: a stored point (p, q) is shown at
``(a p + c q, b p + d q)``. Cameras that face their user write a mirror, which FFmpeg's plain angle takes for a turn.

Shape legend: H height, W width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Turn(NamedTuple):
    """What a player does with stored images.

    Attributes:
        rotation: degrees counter-clockwise, 0, 90, 180 or 270, first.
        mirrored: left and right change places, then.
    """

    rotation: int = 0
    mirrored: bool = False


def upright_turn(image: Any) -> Turn:
    """Return the turn that a PyAV frame's display matrix asks for, to the nearest quarter."""
    found = image.side_data.get("DISPLAYMATRIX")
    if found is None:
        return Turn()
    a, b, _, c, d, *_ = np.frombuffer(bytes(found), dtype=np.int32, count=9).astype(np.float64)
    mirrored = bool(a * d - b * c < 0)
    angle = np.degrees(np.arctan2(b, -a if mirrored else a))
    return Turn(round(-angle / 90) * 90 % 360, mirrored)


def turned(image_HWC: np.ndarray, turn: Turn) -> np.ndarray:
    """Return the image as a player shows it, a view."""
    upright = np.rot90(image_HWC, turn.rotation // 90) if turn.rotation else image_HWC
    return upright[:, ::-1] if turn.mirrored else upright
