"""Head, expression and jaw as FLAME has them, and the direction of the gaze, of one clip.

Shape suffixes: T pixel frames, D parts of FLAME's motion (`df_models.structure.FLAME_MOTION_59`), 2 = horizontal and
vertical angle in degrees.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from df_eval.metrics.pair import Pair
from df_eval.metrics.signals import MIN_FRAMES
from df_models.encoders.face.gaze import gaze_vectors
from df_models.structure import FLAME_MOTION_59
from df_models.time import FPS

_ROTATION, _EXPRESSION = FLAME_MOTION_59.slice("rotation"), FLAME_MOTION_59.slice("expression")


def flame_pose_distance(read_TD: np.ndarray, true_TD: np.ndarray) -> Pair:
    """Mean angle of the turn from the true head rotation to the read one, degrees, over frames read in both."""
    keep = _both(read_TD, true_TD)
    if not keep.any():
        return Pair.undefined("no frame was read in both")
    read, true = (Rotation.from_rotvec(values_TD[keep, _ROTATION]) for values_TD in (read_TD, true_TD))
    return Pair(float(np.degrees((true.inv() * read).magnitude()).mean()))


def flame_expression_distance(read_TD: np.ndarray, true_TD: np.ndarray) -> Pair:
    """Mean absolute difference of FLAME's expression coefficients, over frames that were read in both."""
    keep = _both(read_TD, true_TD)
    if not keep.any():
        return Pair.undefined("no frame was read in both")
    return Pair(float(np.abs(read_TD[keep, _EXPRESSION] - true_TD[keep, _EXPRESSION]).mean()))


def jaw_degrees(flame_TD: np.ndarray) -> np.ndarray:
    """How far the jaw is turned open, degrees ``[T]``: its axis-angle about the axis from ear to ear."""
    return np.degrees(flame_TD[:, FLAME_MOTION_59.slice("jaw")][:, 0])


def gaze_error(read_T2: np.ndarray, true_T2: np.ndarray) -> Pair:
    """Mean angle between the read and the true direction, degrees, over frames that were read in both."""
    keep = _both(read_T2, true_T2)
    if not keep.any():
        return Pair.undefined("no frame was read in both")
    return Pair(float(_between(gaze_vectors(read_T2[keep]), gaze_vectors(true_T2[keep])).mean()))


def gaze_speed(angles_T2: np.ndarray, fps: float = FPS) -> Pair:
    """Mean angle per second between the directions of neighbouring frames that were both read, degrees/s."""
    keep = np.asarray(np.isfinite(angles_T2).all(axis=1))
    both = np.asarray(keep[1:] & keep[:-1])
    if not both.any():
        return Pair.undefined("no two neighbouring frames were read")
    vectors_T3 = gaze_vectors(angles_T2)
    return Pair(float(_between(vectors_T3[1:][both], vectors_T3[:-1][both]).mean() * fps))


def gaze_spread(angles_T2: np.ndarray) -> Pair:
    """Mean angle of the directions to their mean direction, degrees: 0 is a stare."""
    keep = np.isfinite(angles_T2).all(axis=1)
    if keep.sum() < MIN_FRAMES:
        return Pair.undefined(f"fewer than {MIN_FRAMES} frames were read")
    vectors_T3 = gaze_vectors(angles_T2[keep])
    mean_3 = vectors_T3.mean(axis=0)
    length = float(np.linalg.norm(mean_3))
    if length < 1e-9:
        return Pair.undefined("the directions have no mean")
    return Pair(float(_between(vectors_T3, mean_3[None] / length).mean()))


def _between(a_T3: np.ndarray, b_T3: np.ndarray) -> np.ndarray:
    """Angles between unit vectors in degrees, exact for small ones."""
    return np.degrees(2 * np.arctan2(np.linalg.norm(a_T3 - b_T3, axis=-1), np.linalg.norm(a_T3 + b_T3, axis=-1)))


def _both(read_TD: np.ndarray, true_TD: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(read_TD).all(axis=1) & np.isfinite(true_TD).all(axis=1))
