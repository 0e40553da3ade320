"""Ground truth of a synthetic clip in the layout of FLAME as DECA and EMOCA give it: 159 numbers per frame.

This is not FLAME's statistical model (its basis is licensed), but a vector with the same fields, meanings and units:

- shape 100: the 35 constant parameters of the person, standardised;
- expression 50: the 6 articulators other than the jaw;
- pose 6: axis-angle in radians of the head's rotation (column vectors, x right, y down, z away), then of the jaw;
- camera 3: weak perspective ``(s, x, y)``, ``pixel = s * (X + (x, y))`` in a frame from -1 to 1.

Parameters and articulators are spread over the coefficients by orthonormal cosine columns, so that every coefficient
varies as those of a principal component model do. The mapping can be inverted exactly, but
for what it does not hold: hair style, index and light.
"""

from __future__ import annotations

import numpy as np

from df_data.synth.head import camera
from df_data.synth.head.deform import JAW_DEGREES, ROUND_JAW_SHARE
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import Identity, all_parameters
from df_models.structure import FLAME_159

ARTICULATORS = ("lip_width", "lip_round", "blink", "brow", "gaze_x", "gaze_y")
_NUM_PARAMETERS = len(all_parameters(Identity.sample(0)))


def flame_vectors(identity: Identity, tracks: FaceTracks) -> np.ndarray:
    """A clip in FLAME's layout, float32 ``[T, 159]``."""
    out = np.zeros((len(tracks), FLAME_159.dim))
    out[:, FLAME_159.slice("shape")] = _columns(100, _NUM_PARAMETERS) @ all_parameters(identity)
    articulators = np.stack([getattr(tracks, name) for name in ARTICULATORS], axis=1)
    out[:, FLAME_159.slice("expression")] = articulators @ _columns(50, len(ARTICULATORS)).T
    matrix = np.swapaxes(camera.rotation_matrix(tracks.pitch, tracks.yaw, tracks.roll), -1, -2)
    pose = np.zeros((len(tracks), 6))
    pose[:, :3] = axis_angle(matrix)
    pose[:, 3] = np.deg2rad(JAW_DEGREES) * tracks.jaw * (1 - ROUND_JAW_SHARE * tracks.lip_round)
    out[:, FLAME_159.slice("pose")] = pose
    shift = camera.translation(tracks.tx, tracks.ty, tracks.tz)
    scale = 2 * camera.FOCAL * identity.size / (camera.DISTANCE + shift[:, 2])
    view = np.stack([scale, shift[:, 0] / identity.size, shift[:, 1] / identity.size], axis=1)
    out[:, FLAME_159.slice("camera")] = view
    return out.astype(np.float32)


def axis_angle(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices for column vectors ``[..., 3, 3]`` (angle below 180 degrees) to axis-angle ``[..., 3]``."""
    skew = np.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(skew, axis=-1, keepdims=True) / 2
    cosine = (np.trace(matrix, axis1=-2, axis2=-1)[..., None] - 1) / 2
    angle = np.arctan2(sine, cosine)
    return skew / 2 * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 1.0)


def _columns(rows: int, count: int) -> np.ndarray:
    """The first ``count`` non-constant columns of the orthonormal cosine transform, ``[rows, count]``."""
    k, j = np.arange(rows)[:, None], np.arange(1, count + 1)[None]
    return np.sqrt(2.0 / rows) * np.cos(np.pi * (2 * k + 1) * j / (2 * rows))
