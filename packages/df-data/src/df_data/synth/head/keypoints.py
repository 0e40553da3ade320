"""The 21 keypoints of a head, numbered so that lips, eyes and brows sit where LivePortrait's do.

In LivePortrait's retargeting, keypoints 6, 12, 14, 17, 19 and 20 carry the lips, 11, 13, 15, 16 and 18 the eyes,
1 and 2 the brows; the same holds here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from df_data.synth.head.mesh import HeadMesh

# Each keypoint is the mean of these anchors.
KEYPOINTS: tuple[tuple[str, ...], ...] = (
    ("nose_tip",),
    ("brow_left",),
    ("brow_right",),
    ("jaw_left",),
    ("chin",),
    ("jaw_right",),
    ("upper_lip_inner",),
    ("cheek_left",),
    ("cheek_right",),
    ("forehead",),
    ("nose_bridge",),
    ("iris_left",),
    ("upper_lip_top",),
    ("upper_lid_left",),
    ("mouth_left",),
    ("iris_right",),
    ("upper_lid_right",),
    ("mouth_right",),
    ("lower_lid_left", "lower_lid_right"),
    ("lower_lip_inner",),
    ("lower_lip_bottom",),
)
NUM_KEYPOINTS = len(KEYPOINTS)
MOUTH_POINTS = (6, 12, 14, 17, 19, 20)
EYE_POINTS = (11, 13, 15, 16, 18)
IRIS_POINTS = (11, 15)
BROW_POINTS = (1, 2)
_MOUTH_ANCHORS = ("upper_lip_inner", "lower_lip_inner", "mouth_left", "mouth_right")


class LandmarkRows(NamedTuple):
    """Vertices to track (numbers in the mesh), the pair of them that makes each keypoint, and the mouth's four."""

    vertices: np.ndarray
    pairs: np.ndarray
    mouth: np.ndarray


def landmark_rows(mesh: HeadMesh) -> LandmarkRows:
    """Which vertices of a mesh make its keypoints."""
    names = sorted({name for group in KEYPOINTS for name in group})
    at = {name: i for i, name in enumerate(names)}
    pairs = np.array([[at[group[0]], at[group[-1]]] for group in KEYPOINTS])
    vertices = np.array([mesh.anchors[name] for name in names])
    return LandmarkRows(vertices, pairs, np.array([at[name] for name in _MOUTH_ANCHORS]))


def keypoints_of(points: np.ndarray, rows: LandmarkRows) -> np.ndarray:
    """Keypoints ``[T, 21, 3]`` from tracked vertices ``[T, V, 3]``."""
    return 0.5 * (points[:, rows.pairs[:, 0]] + points[:, rows.pairs[:, 1]])
