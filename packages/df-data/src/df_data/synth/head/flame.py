"""Ground truth of a synthetic clip in the layout of FLAME as DECA and EMOCA give it: 159 numbers per frame.

This is not FLAME's statistical model (its basis is licensed), but a vector with the same fields, meanings and units:

- shape 100: the 35 constant parameters of the person, standardised;
- expression 50: the 6 articulators other than the jaw;
- pose 6: axis-angle in radians of the head's rotation (column vectors, x right, y down, z away), then of the jaw;
- camera 3: weak perspective ``(s, x, y)``, ``pixel = s * (X + (x, y))`` in a frame from -1 to 1.

Parameters and articulators are spread over the coefficients by orthonormal cosine columns, so that every coefficient
varies as those of a principal component model do. :func:`parameters_of` and :func:`motion_of` invert the mapping
exactly, but for what it does not hold: hair style, index and light.
"""

from __future__ import annotations

import numpy as np

from df_data.synth.head import camera
from df_data.synth.head.deform import JAW_DEGREES, ROUND_JAW_SHARE
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import Identity, all_parameters, from_parameters
from df_models.errors import UserError
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


def parameters_of(flame: np.ndarray) -> np.ndarray:
    """The person's standardised parameters ``[..., 35]`` (see ``identity.all_parameters``) from ``[..., 159]``."""
    return _checked(flame)[..., FLAME_159.slice("shape")] @ _columns(100, _NUM_PARAMETERS)


def motion_of(flame: np.ndarray) -> FaceTracks:
    """The tracks of a clip ``[T, 159]``, under the default light, which the vector does not hold."""
    values = _checked(flame)
    articulators = values[:, FLAME_159.slice("expression")] @ _columns(50, len(ARTICULATORS))
    named: dict[str, np.ndarray | float] = dict(zip(ARTICULATORS, articulators.T))
    pose, view = values[:, FLAME_159.slice("pose")], values[:, FLAME_159.slice("camera")]
    named["pitch"], named["yaw"], named["roll"] = euler_angles(rotation_of(pose[:, :3]))
    named["jaw"] = pose[:, 3] / (np.deg2rad(JAW_DEGREES) * (1 - ROUND_JAW_SHARE * named["lip_round"]))
    size = from_parameters(parameters_of(values[0]), 0, "short").size
    depth = 2 * camera.FOCAL * size / view[:, 0] - camera.DISTANCE
    shift = camera.translation_tracks(np.stack([view[:, 1] * size, view[:, 2] * size, depth], axis=1))
    named["tx"], named["ty"], named["tz"] = shift.T
    return FaceTracks.neutral(len(values), **named)


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


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Axis-angle ``[..., 3]`` to rotation matrices for column vectors, by Rodrigues' formula."""
    vector = np.asarray(vector, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * cross @ cross


def euler_angles(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``Rz Ry Rx`` matrices for column vectors ``[..., 3, 3]`` to (pitch, yaw, roll) in degrees, ``|yaw| < 90``."""
    pitch = np.arctan2(matrix[..., 2, 1], matrix[..., 2, 2])
    yaw = np.arcsin(np.clip(-matrix[..., 2, 0], -1, 1))
    roll = np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return np.rad2deg(pitch), np.rad2deg(yaw), np.rad2deg(roll)


def _columns(rows: int, count: int) -> np.ndarray:
    """The first ``count`` non-constant columns of the orthonormal cosine transform, ``[rows, count]``."""
    k, j = np.arange(rows)[:, None], np.arange(1, count + 1)[None]
    return np.sqrt(2.0 / rows) * np.cos(np.pi * (2 * k + 1) * j / (2 * rows))


def _checked(flame: np.ndarray) -> np.ndarray:
    values = np.asarray(flame, dtype=np.float64)
    if values.shape[-1] != FLAME_159.dim:
        raise UserError(f"a FLAME vector has {FLAME_159.dim} entries, got shape {values.shape}")
    return values
