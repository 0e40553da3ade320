"""Exact ground truth of a synthetic clip as LivePortrait's 70 named fields, and the plain truths for measuring.

LivePortrait's equation holds exactly for the rendered head:

    keypoints = scale * (canonical @ R(pitch, yaw, roll) + expression) + translation

with row vectors, ``canonical [21, 3]`` the neutral keypoints of the identity, angles in degrees, and everything in head
units in the camera's axes (x right, y down, z away). As in LivePortrait, ``expression`` is added after the rotation, so
it lies in the camera's axes: :func:`canonical_expression` turns it back into the head's.
"""

from __future__ import annotations

import numpy as np

from df_data.synth.head import camera
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.head import shell
from df_data.synth.head.identity import Identity
from df_data.synth.head.keypoints import NUM_KEYPOINTS
from df_data.synth.head.render import HeadGeometry, geometry, pose_of
from df_models.errors import UserError
from df_models.structure import LIVEPORTRAIT_70

TRUTH_NAMES = (
    "mouth_open",
    "lip_width",
    "lip_round",
    "jaw",
    "blink",
    "brow",
    "gaze_x",
    "gaze_y",
    "yaw",
    "pitch",
    "roll",
    "tx",
    "ty",
    "tz",
)
_EXPRESSION = LIVEPORTRAIT_70.slice("expression")


def neutral_keypoints(identity: Identity) -> np.ndarray:
    """Canonical keypoints of a person with closed mouth, open eyes and straight gaze, float64 ``[21, 3]``."""
    return geometry(identity, FaceTracks.neutral(1)).canonical[0]


def structure_vectors(identity: Identity, tracks: FaceTracks, known: HeadGeometry | None = None) -> np.ndarray:
    """LivePortrait's 70 fields of a clip, float32 ``[T, 70]``; ``known`` saves computing the geometry again."""
    known = known or geometry(identity, tracks)
    scale, rotation, translation = pose_of(identity, tracks)
    expression = (known.canonical - neutral_keypoints(identity)) @ rotation
    out = np.empty((len(tracks), LIVEPORTRAIT_70.dim))
    out[:, _EXPRESSION] = expression.reshape(len(tracks), -1)
    for field in ("pitch", "yaw", "roll"):
        out[:, LIVEPORTRAIT_70.slice(field)] = getattr(tracks, field)[:, None]
    out[:, LIVEPORTRAIT_70.slice("translation")] = translation
    out[:, LIVEPORTRAIT_70.slice("scale")] = scale
    return out.astype(np.float32)


def keypoints_from_structure(structure: np.ndarray, canonical: np.ndarray) -> np.ndarray:
    """LivePortrait's equation: ``[..., 70]`` and neutral keypoints ``[21, 3]`` to keypoints ``[..., 21, 3]``."""
    values = _checked(structure)
    expression = values[..., _EXPRESSION].reshape(*values.shape[:-1], NUM_KEYPOINTS, 3)
    moved = canonical @ _rotation(values) + expression
    scale = values[..., LIVEPORTRAIT_70.slice("scale")][..., None]
    return scale * moved + values[..., None, LIVEPORTRAIT_70.slice("translation")]


def canonical_expression(structure: np.ndarray) -> np.ndarray:
    """Expression in the head's own axes, free of the pose: ``[..., 70]`` to float64 ``[..., 21, 3]``."""
    values = _checked(structure)
    expression = values[..., _EXPRESSION].reshape(*values.shape[:-1], NUM_KEYPOINTS, 3)
    return expression @ np.swapaxes(_rotation(values), -1, -2)


def truths(identity: Identity, tracks: FaceTracks, known: HeadGeometry | None = None) -> dict[str, np.ndarray]:
    """What a measure compares with, each float32 ``[T]``, in the order of ``TRUTH_NAMES``.

    ``mouth_open`` is the vertical gap between the inner lips in the middle, after all articulators, as a share of the
    face's height (hairline to chin, neutral); ``lip_width`` the distance of the mouth's corners as a share of the
    face's width at the cheekbones. The others are the tracks themselves.
    """
    known = known or geometry(identity, tracks)
    upper, lower, left, right = np.moveaxis(known.mouth, 1, 0)
    found = {name: getattr(tracks, name, None) for name in TRUTH_NAMES}
    found["mouth_open"] = (lower[:, 1] - upper[:, 1]) / face_height(identity)
    found["lip_width"] = np.linalg.norm(right - left, axis=1) / face_width(identity)
    return {name: np.asarray(found[name], dtype=np.float32) for name in TRUTH_NAMES}


def face_height(identity: Identity) -> float:
    """Hairline to chin of the neutral face, in head units."""
    neutral = neutral_keypoints(identity)
    return float(neutral[4, 1] - neutral[9, 1])


def face_width(identity: Identity) -> float:
    """Width of the face at the cheekbones, in head units."""
    x, _ = shell(identity, np.array([0.2]), np.array([np.pi / 2]))
    return float(2 * x[0])


def _rotation(values: np.ndarray) -> np.ndarray:
    pitch, yaw, roll = (values[..., LIVEPORTRAIT_70.slice(f)][..., 0] for f in ("pitch", "yaw", "roll"))
    return camera.rotation_matrix(pitch, yaw, roll)


def _checked(structure: np.ndarray) -> np.ndarray:
    values = np.asarray(structure, dtype=np.float64)
    if values.shape[-1] != LIVEPORTRAIT_70.dim:
        raise UserError(f"a structure vector has {LIVEPORTRAIT_70.dim} entries, got shape {values.shape}")
    return values
