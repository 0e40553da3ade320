"""Lips beyond the edge of the source's image: the crop repeats the last row there, and the mouth smears into streaks.

The landmarker places lips that it cannot see about where they are: of images cut at the lower lip the lowest landmark
of the lips lies at the cut (median within 0.01 face heights), of those cut half way to the chin 0.07 or more above it.

Shape legend: T frames, L = 478 landmarks.
"""

from __future__ import annotations

import numpy as np

from df_data.stages.readings import CHIN, FOREHEAD, OUTER_LIPS
from df_data.stages.rejection import Rejected

MARGIN = 0.05
"""Face heights that must lie between the lips and the edge: skin below them is part of what speaks."""


def lips_outside(points_TL2: np.ndarray, height: int, width: int) -> float:
    """Return the share of frames whose lips reach the edge of the image, or lie beyond it.

    Args:
        points_TL2: landmarks in pixels of the source's image, right and down.
    """
    face_T = np.linalg.norm(points_TL2[:, CHIN] - points_TL2[:, FOREHEAD], axis=-1)
    lips_TK2, margin_T1 = points_TL2[:, OUTER_LIPS], MARGIN * face_T[:, None]
    low, high = lips_TK2.min(axis=1), lips_TK2.max(axis=1)
    beyond_T2 = (low < margin_T1) | (high > np.array([width, height]) - margin_T1)
    return float(beyond_T2.any(axis=1).mean())


def check_lips_inside(share: float, most: float, scores: dict[str, float]) -> None:
    """Refuse a clip whose mouth is not in the image for too long.

    Raises:
        Rejected: ``face_cut_off``.
    """
    if share > most:
        raise Rejected("face_cut_off", f"the lips are at the edge of the image in {share:.0%} of the frames", scores)
