"""Brows, gaze and expression from the face landmarker's points.

Brows and expression are taken in the head's own frame (:func:`df_data.stages.readings.head_frame`): pose and size are
removed, the unit is the clip's neutral face height. Gaze is a place within the eye, as the image shows it.

Shape suffixes: T pixel frames, L = 478 landmarks, K landmarks of a part of the face, 2 = x to the right of the image, y
down.
"""

from __future__ import annotations

import numpy as np

from df_data.stages.landmarks import Landmarks
from df_data.stages.readings import KEYPOINTS, head_frame, keypoints_of
from df_eval.metrics.pose import CLOSED
from df_eval.reading.readings import masked

LEFT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
RIGHT_BROW = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
"""Both edges of either brow, left and right in the image (MediaPipe's FACE_LANDMARKS_RIGHT_EYEBROW and _LEFT_)."""
EYE_CORNERS = ((33, 133), (362, 263))
"""Corners of either eye, the left one of the image first: both eyes' axes point the same way."""
IRISES = (468, 473)
"""Middles of the irises, in the order of the eyes."""
RIGID_KEYPOINTS = ("nose_tip", "nose_bridge", "forehead")
LOOKING = ("iris_left", "iris_right")
MOVING = tuple(place for place, name in enumerate(KEYPOINTS) if name not in (*RIGID_KEYPOINTS, *LOOKING))
"""Places of the 16 keypoints of brows, lids, cheeks, lips and jaw among the 21 of the structure `mediapipe`."""


def face_signals(landmarks: Landmarks) -> dict[str, np.ndarray]:
    """Brows, gaze and expression by the names of :class:`~df_eval.reading.readings.FaceReadings`, NaN where no face was
    found; gaze also where an eye is closed."""
    seen = landmarks.detected.astype(bool)
    brow_T, expression_TK2 = np.zeros(len(seen)), np.zeros((len(seen), len(MOVING), 2))
    if seen.any():
        head = head_frame(landmarks.points[seen], landmarks.rotation[seen])
        brow_T[seen] = brow_height(head.points)
        offsets = keypoints_of(head.points) - keypoints_of(head.neutral)
        expression_TK2[seen] = offsets[:, MOVING, :2]
    shapes = [landmarks.blendshape(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    open_T = seen & (np.nan_to_num(np.maximum(*shapes), nan=1.0) < CLOSED)
    return {
        "brow_T": masked(brow_T, seen),
        "expression_TK2": masked(expression_TK2, seen),
        "gaze_T2": masked(gaze_offset(landmarks.points[..., :2]), open_T),
    }


def brow_height(points_TL3: np.ndarray) -> np.ndarray:
    """How far the brows lie above the middles of the eyes' corners, mean of both, in the points' unit: [T].

    Args:
        points_TL3: in the head's own frame, y down.
    """
    heights = [
        points_TL3[:, list(corners), 1].mean(axis=1) - points_TL3[:, list(brow), 1].mean(axis=1)
        for brow, corners in zip((LEFT_BROW, RIGHT_BROW), EYE_CORNERS, strict=True)
    ]
    return np.mean(heights, axis=0)


def gaze_offset(points_TL2: np.ndarray) -> np.ndarray:
    """Where the irises lie within the eyes: offset from the middle of the corners along the line through them and
    across it, in eye widths, mean of both eyes, so that size, place and tilt of the face do not count: [T, 2]."""
    found = []
    for iris, (left, right) in zip(IRISES, EYE_CORNERS, strict=True):
        axis_T2 = points_TL2[:, right] - points_TL2[:, left]
        offset_T2 = points_TL2[:, iris] - (points_TL2[:, left] + points_TL2[:, right]) / 2
        along_T = (offset_T2 * axis_T2).sum(axis=-1)
        across_T = axis_T2[:, 0] * offset_T2[:, 1] - axis_T2[:, 1] * offset_T2[:, 0]
        found.append(np.stack([along_T, across_T], axis=-1) / np.square(axis_T2).sum(axis=-1, keepdims=True))
    return np.mean(found, axis=0)
