"""From landmarks to numbers: mouth, lids and pose, and the structure vector called ``mediapipe``.

The vector has LivePortrait's 70 named fields but not LivePortrait's values: it is another encoder, recorded as such.

=============  ===================================================================================================
expression     21 keypoints x (x, y, z): offset from the clip's neutral face, measured with pose and size removed,
               turned into the camera's axes (x to the right of the image, y down, z away) as LivePortrait's, which
               is added after the rotation; in neutral face heights (forehead to chin).
pitch, yaw,    degrees, from MediaPipe's transformation matrix; R = Rz(roll) Ry(yaw) Rx(pitch) as in LivePortrait's
roll           ``get_rotation_matrix``, x right, y down, z away: pitch > 0 lowers the nose, yaw > 0 turns it to the
               left of the image, roll > 0 tilts the head clockwise as seen.
translation    x, y: centre of the head's rigid points, in half sides of the crop from its middle, right and down;
               z: distance to MediaPipe's assumed camera in metres.
scale          neutral face height in half sides of the crop.
=============  ===================================================================================================

Shape legend: T frames, L = 478 landmarks, K = 21 keypoints, R rigid points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.stages.landmarks import Landmarks
from df_models.structure import LIVEPORTRAIT_70

KEYPOINTS: dict[str, tuple[int, ...]] = {
    "nose_tip": (1,), "brow_left": (105,), "brow_right": (334,), "jaw_left": (172,), "chin": (152,),
    "jaw_right": (397,), "upper_lip_inner": (13,), "cheek_left": (205,), "cheek_right": (425,), "forehead": (10,),
    "nose_bridge": (168,), "iris_left": (468,), "upper_lip_top": (0,), "upper_lid_left": (159,), "mouth_left": (61,),
    "iris_right": (473,), "upper_lid_right": (386,), "mouth_right": (291,), "lower_lids": (145, 374),
    "lower_lip_inner": (14,), "lower_lip_bottom": (17,),
}  # fmt: skip
"""Keypoint -> MediaPipe landmarks whose mean it is, in the order of the synthetic corpus's keypoints (which puts lips,
eyes and brows where LivePortrait's are). Left and right are the image's."""
RIGID = (10, 109, 338, 151, 33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 127, 356, 234, 454)
"""Landmarks that speech does not move: forehead, corners of the eyes, ridge of the nose, temples."""
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
FOREHEAD, CHIN = 10, 152
TEMPLES = (234, 454)
UPPER_LIP, LOWER_LIP = 13, 14
MOUTH_LEFT, MOUTH_RIGHT = 61, 291
TRUTH_NAMES = ("mouth_open", "lip_width", "blink", "jaw_open", "yaw", "pitch", "roll")
LIP_SHAPES: tuple[tuple[str, ...], ...] = (
    ("mouthClose",), ("mouthFunnel",), ("mouthPucker",), ("mouthLowerDownLeft", "mouthLowerDownRight"),
    ("mouthUpperUpLeft", "mouthUpperUpRight"), ("mouthRollLower", "mouthRollUpper"),
    ("mouthPressLeft", "mouthPressRight"), ("mouthShrugLower",),
)  # fmt: skip
"""Blendshapes that speech moves; those of a group are added."""
MOUTH_MARGIN = 0.3
"""The mouth box is the outer lips' box, widened on each side by this share of its width."""


@dataclass(frozen=True)
class Readings:
    """Measures per frame, each float64 [T]; NaN where no face was detected.

    Attributes:
        mouth_open: gap between the inner lips, in neutral face heights (0 closed, about 0.15 wide open).
        lip_width: distance of the corners of the mouth, in neutral face widths (at the cheekbones).
        blink: mean of both eyes' blink blendshapes, 0 open, 1 closed.
        jaw_open: blendshape, 0 to 1.
        yaw, pitch, roll: degrees, signs as in the module's table.
        detected: bool [T].
        lip_shapes: the blendshapes of ``LIP_SHAPES``, float64 [T, 8]; None where nobody read them.
    """

    mouth_open: np.ndarray
    lip_width: np.ndarray
    blink: np.ndarray
    jaw_open: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    detected: np.ndarray
    lip_shapes: np.ndarray | None = None

    def table(self) -> np.ndarray:
        """Return the measures as float64 ``[T, 7]`` in the order of ``TRUTH_NAMES``."""
        return np.stack([getattr(self, name) for name in TRUTH_NAMES], axis=1)


@dataclass(frozen=True)
class HeadFrame:
    """Landmarks with pose and size removed.

    Attributes:
        points: float64 [T, L, 3] in the head's own frame, in neutral face heights, origin at the rigid points' centre.
        neutral: float64 [L, 3], the clip's neutral face in that frame.
        centre: float64 [T, 3], the rigid points' centre in crop half sides.
        height: float64 [T], neutral face height in crop half sides.
    """

    points: np.ndarray
    neutral: np.ndarray
    centre: np.ndarray
    height: np.ndarray


def euler_degrees(rotation_T33: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (pitch, yaw, roll) in degrees of ``Rz(roll) Ry(yaw) Rx(pitch)`` (column vectors), each ``[T]``."""
    pitch = np.arctan2(rotation_T33[:, 2, 1], rotation_T33[:, 2, 2])
    yaw = np.arcsin(np.clip(-rotation_T33[:, 2, 0], -1.0, 1.0))
    roll = np.arctan2(rotation_T33[:, 1, 0], rotation_T33[:, 0, 0])
    return np.degrees(pitch), np.degrees(yaw), np.degrees(roll)


def align(points_TRD: np.ndarray, target_RD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit ``target ~ (points - mean) @ rotation * scale`` by least squares, frame by frame.

    ``target`` has zero mean. Source: Umeyama 1991 (similarity from point pairs, no reflection).

    Returns:
        rotation ``[T, 3, 3]`` and scale ``[T]``.
    """
    centred = points_TRD - points_TRD.mean(axis=1, keepdims=True)
    u, singular, vt = np.linalg.svd(np.einsum("trd,re->tde", centred, target_RD))
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    scale = (singular * sign).sum(axis=1) / np.square(centred).sum(axis=(1, 2))
    return (u * sign[:, None]) @ vt, scale


def head_frame(points_TL3: np.ndarray, rotation_T33: np.ndarray) -> HeadFrame:
    """Remove pose and size from the landmarks of one person's frames (all detected).

    The pose of the matrices gives a first shape; its median is the rigid target that every frame is then fitted to,
    so noise of a frame's matrix does not reach its expression. Neutral is the median over the half of the frames
    with the smaller gap between the lips: a face at rest.
    """
    rigid = points_TL3[:, RIGID]
    centre = rigid.mean(axis=1)
    turned = (points_TL3 - centre[:, None]) @ rotation_T33
    turned /= np.sqrt(np.square(turned[:, RIGID]).sum(axis=(1, 2)))[:, None, None]
    target = np.median(turned[:, RIGID], axis=0)
    target -= target.mean(axis=0)
    fitted, scale = align(rigid, target)
    points = (points_TL3 - centre[:, None]) @ fitted * scale[:, None, None]
    gap = np.linalg.norm(points[:, UPPER_LIP] - points[:, LOWER_LIP], axis=-1)
    neutral = np.median(points[gap <= np.median(gap)], axis=0)
    unit = np.linalg.norm(neutral[FOREHEAD] - neutral[CHIN])
    return HeadFrame(points / unit, neutral / unit, centre, unit / scale)


def readings_of(landmarks: Landmarks) -> Readings:
    """Measure a clip of one person; frames without a face stay NaN."""
    seen = landmarks.detected
    full = {name: np.full(len(seen), np.nan) for name in TRUTH_NAMES}
    if seen.any():
        head = head_frame(landmarks.points[seen], landmarks.rotation[seen])
        pitch, yaw, roll = euler_degrees(landmarks.rotation[seen])
        width = np.linalg.norm(head.neutral[TEMPLES[0]] - head.neutral[TEMPLES[1]])
        blink = (landmarks.blendshape("eyeBlinkLeft") + landmarks.blendshape("eyeBlinkRight")) / 2
        values = {
            "mouth_open": np.linalg.norm(head.points[:, UPPER_LIP] - head.points[:, LOWER_LIP], axis=-1),
            "lip_width": np.linalg.norm(head.points[:, MOUTH_LEFT] - head.points[:, MOUTH_RIGHT], axis=-1) / width,
            "blink": blink[seen],
            "jaw_open": landmarks.blendshape("jawOpen")[seen],
            "yaw": yaw,
            "pitch": pitch,
            "roll": roll,
        }
        for name, value in values.items():
            full[name][seen] = value
    shapes = np.stack([sum(landmarks.blendshape(name) for name in group) for group in LIP_SHAPES], axis=1)
    return Readings(**full, detected=seen, lip_shapes=shapes)


def structure_vectors(landmarks: Landmarks) -> np.ndarray:
    """Return the structure vectors float32 ``[T, 70]`` of a clip in which every frame has landmarks."""
    assert landmarks.detected.all(), "gaps are filled before"
    head = head_frame(landmarks.points, landmarks.rotation)
    pitch, yaw, roll = euler_degrees(landmarks.rotation)
    vectors = np.zeros((len(pitch), LIVEPORTRAIT_70.dim), dtype=np.float32)
    offsets = keypoints_of(head.points) - keypoints_of(head.neutral)
    in_camera = offsets @ landmarks.rotation.swapaxes(1, 2)
    vectors[:, LIVEPORTRAIT_70.slice("expression")] = in_camera.reshape(len(pitch), -1)
    for name, angle in (("pitch", pitch), ("yaw", yaw), ("roll", roll)):
        vectors[:, LIVEPORTRAIT_70.slice(name)] = angle[:, None]
    translation = np.column_stack([head.centre[:, :2], landmarks.depth / 100.0])
    vectors[:, LIVEPORTRAIT_70.slice("translation")] = translation
    vectors[:, LIVEPORTRAIT_70.slice("scale")] = head.height[:, None]
    return vectors


def keypoints_of(points_L3: np.ndarray) -> np.ndarray:
    """Return the 21 keypoints ``[..., K, 3]`` of landmarks ``[..., L, 3]``."""
    return np.stack([points_L3[..., list(group), :].mean(axis=-2) for group in KEYPOINTS.values()], axis=-2)


def mouth_boxes(points_TL3: np.ndarray, size: int) -> np.ndarray:
    """Return float32 ``[T, 4]`` (x0, y0, x1, y1) around the lips in pixels of a crop of ``size``."""
    lips = (points_TL3[:, OUTER_LIPS, :2] + 1) * size / 2
    low, high = lips.min(axis=1), lips.max(axis=1)
    margin = MOUTH_MARGIN * (high[:, :1] - low[:, :1])
    return np.clip(np.concatenate([low - margin, high + margin], axis=1), 0, size).astype(np.float32)
