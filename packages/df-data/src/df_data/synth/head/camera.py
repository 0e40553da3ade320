"""The pinhole camera and the head's rotation, in LivePortrait's convention.

Frame: x to the right of the image, y down, z away from the camera (right-handed, as in OpenCV). Points are rows:
``points_camera = scale * (points_canonical @ R + expression) + translation``.
"""

from __future__ import annotations

import numpy as np

DISTANCE = 4.6
"""Camera to the middle of the head, in head units."""
PIXELS_PER_UNIT = 26.0 / 64.0
"""Size of one head unit at the middle of the head, in shares of the frame."""
FOCAL = PIXELS_PER_UNIT * DISTANCE
"""Focal length in shares of the frame."""
CENTER_Y = 0.12
"""Height in head units (down) that is seen in the middle of the frame."""


def rotation_matrix(pitch: np.ndarray, yaw: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """``R`` for row vectors, from degrees: ``(Rz Ry Rx)^T``, any leading shape ``[...]`` to float64 ``[..., 3, 3]``.

    Source: LivePortrait, ``get_rotation_matrix``.
    """
    x, y, z = (np.deg2rad(np.asarray(a, dtype=np.float64)) for a in (pitch, yaw, roll))
    one, zero = np.ones_like(x), np.zeros_like(x)

    def matrix(*entries: np.ndarray) -> np.ndarray:
        return np.stack(entries, axis=-1).reshape(*x.shape, 3, 3)

    rot_x = matrix(one, zero, zero, zero, np.cos(x), -np.sin(x), zero, np.sin(x), np.cos(x))
    rot_y = matrix(np.cos(y), zero, np.sin(y), zero, one, zero, -np.sin(y), zero, np.cos(y))
    rot_z = matrix(np.cos(z), -np.sin(z), zero, np.sin(z), np.cos(z), zero, zero, zero, one)
    return np.swapaxes(rot_z @ rot_y @ rot_x, -1, -2)


def translation(tx: np.ndarray, ty: np.ndarray, tz: np.ndarray) -> np.ndarray:
    """Head translation in head units ``[..., 3]`` from shares of the frame and of the distance."""
    tx, ty, tz = (np.asarray(a, dtype=np.float64) for a in (tx, ty, tz))
    return np.stack([tx / PIXELS_PER_UNIT, ty / PIXELS_PER_UNIT, -tz * DISTANCE], axis=-1)


def project(points: np.ndarray, size: int) -> np.ndarray:
    """Pinhole projection of camera-frame points ``[..., 3]`` to pixels ``[..., 2]`` (pixel centres at +0.5)."""
    points = np.asarray(points, dtype=np.float64)
    depth = points[..., 2] + DISTANCE
    x = 0.5 + FOCAL * points[..., 0] / depth
    y = 0.5 + FOCAL * (points[..., 1] - CENTER_Y) / depth
    return np.stack([x, y], axis=-1) * size
