"""What THEval measures of the face landmarker's points, in one frame.

Landmarks as in its released code (github.com/Newbyl/THEval, commit 3603338): eyebrow_dynamics.py, lip_sync.py and
silent_lip_stability.py, whose 468 points of FaceMesh are the landmarker's first.

Shape suffixes: T pixel frames, L = 478 landmarks, M measures (`df_eval.metrics.theval.Column`), 2 = x, y in half sides
of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from df_eval.metrics.theval import Column
from df_eval.reading.face_points import EYE_CORNERS, LEFT_BROW, RIGHT_BROW

LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398)
"""Contours of the eyes, the left one of the image first."""
UPPER_LIP = (191, 80, 81, 82, 13, 312, 311, 310)
LOWER_LIP = (95, 88, 178, 87, 14, 317, 402, 318)
"""Of the inner lips, in pairs."""
OUTER_CORNERS = (33, 263)


def theval_measures(points_TL2: np.ndarray) -> np.ndarray:
    """The measures of every frame, float64 ``[T, M]``: the brows' distances to the eyes over the distance of the eyes'
    middles; the lips' mean opening over the horizontal distance of the middles of the eyes' corners; the mean gap of
    their pairs over the distance of the eyes' outer corners; the middle of all landmarks' box, in half sides."""
    eyes = [_middle(points_TL2, eye) for eye in (LEFT_EYE, RIGHT_EYE)]
    brows = [_middle(points_TL2, brow) for brow in (LEFT_BROW, RIGHT_BROW)]
    upper, lower = (points_TL2[:, list(lip), 1] for lip in (UPPER_LIP, LOWER_LIP))
    corners = [_middle(points_TL2, pair)[:, 0] for pair in EYE_CORNERS]
    first, last = (points_TL2[:, corner] for corner in OUTER_CORNERS)
    apart = np.linalg.norm(eyes[0] - eyes[1], axis=-1)
    faces = points_TL2[:, :468]
    middle_T2 = (faces.min(axis=1) + faces.max(axis=1)) / 2
    measures = np.empty((len(points_TL2), len(Column)))
    with np.errstate(divide="ignore", invalid="ignore"):  # eyes in one place: not finite, so not read
        for column, brow, eye in zip((Column.LEFT_BROW, Column.RIGHT_BROW), brows, eyes, strict=True):
            measures[:, column] = np.linalg.norm(brow - eye, axis=-1) / apart
        measures[:, Column.OPENING] = np.abs(upper.mean(axis=1) - lower.mean(axis=1)) / np.abs(corners[1] - corners[0])
        measures[:, Column.GAP] = np.abs(upper - lower).mean(axis=1) / np.linalg.norm(last - first, axis=-1)
    measures[:, [Column.X, Column.Y]] = middle_T2
    return measures


def _middle(points_TL2: np.ndarray, which: Sequence[int]) -> np.ndarray:
    return points_TL2[:, list(which)].mean(axis=1)
