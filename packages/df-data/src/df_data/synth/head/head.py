"""The skin of the head as a mesh at rest, and how each of its vertices answers to the articulators.

The head is a stack of rows (template height ``y``, crown to under the chin) by columns (longitude). The rows at the
mouth line and at the line of the closed lids exist twice, so that the skin is cut there: mouth and eyes really open.
At rest mouth and eyes are closed. Units: head units, x right, y down, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from df_data.synth.head.identity import Identity

# Columns of a vertex table (float64 [N, NUM_COLUMNS]).
X, Y, Z = 0, 1, 2
JAW, SPREAD, PROTRUDE, RAISE, LID, BROW, SHIELD, HEAD, EYE = range(3, 12)
NUM_COLUMNS = 12
"""JAW share of the jaw's rotation; SPREAD, PROTRUDE, RAISE answer to the lips; LID height by which an open lid lies
from the closed line; BROW answers to the brows; SHIELD 1/2: must stay outside the left/right eyeball; HEAD 1 moves
with the head, 0 with the body; EYE 1/2: turns with the left/right eyeball."""

MATERIALS = ("skin", "hair", "eye", "teeth", "tongue", "cavity", "neck", "clothes", "inner_lip")
SKIN, HAIR, EYEBALL, TEETH, TONGUE, CAVITY, NECK, CLOTHES, INNER_LIP = range(len(MATERIALS))

EYE_LINE, MOUTH_LINE = -0.085, 0.53
EYE_HALF_WIDTH, EYEBALL_RADIUS = 0.158, 0.215
JAW_HINGE_Y, JAW_HINGE_Z = 0.05, 0.10

# Template rows: height, half width, extent to the front, extent to the back.
_PROFILE = np.array(
    [
        [-1.180, 0.02, 0.02, 0.02],
        [-1.172, 0.14, 0.16, 0.18],
        [-1.140, 0.30, 0.34, 0.38],
        [-1.000, 0.56, 0.60, 0.68],
        [-0.800, 0.72, 0.75, 0.86],
        [-0.500, 0.805, 0.835, 0.95],
        [-0.250, 0.815, 0.850, 0.96],
        [0.000, 0.805, 0.830, 0.92],
        [0.200, 0.780, 0.825, 0.84],
        [0.400, 0.730, 0.830, 0.70],
        [0.600, 0.655, 0.830, 0.54],
        [0.800, 0.540, 0.805, 0.44],
        [0.920, 0.420, 0.755, 0.40],
        [0.985, 0.300, 0.670, 0.38],
    ]
)
_ROWS = np.concatenate(
    [
        [-1.18, -1.172, -1.155, -1.12, -1.06, -0.98, -0.88, -0.77, -0.66, -0.56, -0.47, -0.40, -0.345, -0.295],
        [-0.255, -0.22, -0.19, -0.16, -0.135, -0.11, EYE_LINE, EYE_LINE, -0.06, -0.03, 0.01, 0.06, 0.11, 0.16, 0.205],
        [0.24, 0.27, 0.30, 0.33, 0.365, 0.40, 0.43, 0.455, 0.475, 0.495, 0.513, MOUTH_LINE, MOUTH_LINE, 0.547, 0.565],
        [0.585, 0.605, 0.63, 0.66, 0.70, 0.75, 0.80, 0.85, 0.90, 0.945, 0.985],
    ]
)
_UNDER_CHIN = np.array([[1.005, 0.27, 0.56], [1.0, 0.25, 0.42], [0.97, 0.22, 0.28]])
NUM_COLS = 61


@dataclass
class MeshPart:
    """A piece of mesh: vertex table ``[N, NUM_COLUMNS]``, texture coordinates ``[N, 3]``, triangles ``[M, 3]``.

    Triangles are seen from the front only, unless ``two_sided``; a ``hollow`` part is dark when seen from inside.
    """

    vertices: np.ndarray
    texture: np.ndarray
    triangles: np.ndarray
    material: int
    two_sided: bool = False
    hollow: bool = False
    anchors: dict[str, int] = field(default_factory=dict)


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, cubic between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def bump(value: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Gaussian bump of height 1."""
    return np.exp(-(((value - centre) / width) ** 2))


def grid_triangles(rows: int, cols: int, skip_rows: tuple[int, ...] = ()) -> np.ndarray:
    """Triangles of a ``rows x cols`` vertex grid, int32 ``[M, 3]``, none between rows r and r + 1 for r skipped."""
    r, c = np.meshgrid([i for i in range(rows - 1) if i not in skip_rows], np.arange(cols - 1), indexing="ij")
    a = (r * cols + c).ravel()
    quads = np.stack([a, a + 1, a + cols, a + 1, a + cols + 1, a + cols], axis=1)
    return quads.reshape(-1, 3).astype(np.int32)


def longitudes() -> np.ndarray:
    """Column longitudes in radians, 0 in front, dense over the face: ``[NUM_COLS]``."""
    u = np.linspace(-1, 1, NUM_COLS)
    return np.pi * (0.40 * u + 0.60 * u**3)


def opening_profile(x: np.ndarray, half_width: float, power: float = 0.6) -> np.ndarray:
    """How far a slit of this half width opens at ``x``: 1 in the middle, 0 at its corners and beyond."""
    return np.clip(1 - (x / half_width) ** 2, 0.0, 1.0) ** power


def eye_half_width(identity: Identity) -> float:
    """Half width of the eye slit."""
    return EYE_HALF_WIDTH * identity.eye_size


def shell(identity: Identity, y: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth skull at template heights ``y`` and longitudes: ``(x, z)`` without features."""
    width = np.interp(y, _PROFILE[:, 0], _PROFILE[:, 1])
    front = np.interp(y, _PROFILE[:, 0], _PROFILE[:, 2])
    back = np.interp(y, _PROFILE[:, 0], _PROFILE[:, 3])
    jaw = 1 + (identity.jaw_width - 1) * smoothstep(y, 0.15, 0.75)
    cheeks = 1 + 0.05 * (identity.cheek_fullness - 0.5) * bump(y, 0.35, 0.3)
    width = width * identity.head_width * jaw * cheeks
    cosine = np.cos(longitude)
    return width * np.sin(longitude), np.where(cosine > 0, -front * cosine, -back * cosine)


def warp_height(identity: Identity, y: np.ndarray) -> np.ndarray:
    """Template height to this person's height."""
    moved = y + identity.mouth_height * bump(y, MOUTH_LINE, 0.25) + identity.chin_length * smoothstep(y, 0.62, 0.95)
    return np.where(moved < 0, moved * identity.head_height, moved)


def features(identity: Identity, x: np.ndarray, y: np.ndarray, front: np.ndarray) -> np.ndarray:
    """How far the features of the face stand out towards the viewer at rest, ``front`` in [0, 1] masks the face."""
    side = np.abs(x)
    ridge = np.interp(y, [-0.30, -0.12, 0.0, 0.24, 0.275, 0.34, 0.38], [0.0, 0.05, 0.09, 0.90, 1.0, 0.22, 0.0])
    ridge = np.where(y < 0.24, ridge * 0.55 + 0.45 * smoothstep(y, -0.28, 0.30), ridge)
    breadth = identity.nose_width * np.interp(y, [-0.2, 0.0, 0.25, 0.35], [0.75, 0.72, 1.0, 1.1])
    out = identity.nose_length * ridge * np.exp(-((side / breadth) ** 2))
    out += 0.11 * bump(side, identity.nose_width * 1.15, 0.055) * bump(y, 0.285, 0.05)
    eye = bump(side, identity.eye_spacing, 0.17) * bump(y, EYE_LINE - 0.02, 0.13)
    out += -0.085 * eye + 0.045 * bump(y, -0.33, 0.075) * bump(side, 0.30, 0.26)
    out += (0.03 + 0.05 * identity.cheek_fullness) * bump(side, 0.43, 0.2) * bump(y, 0.17, 0.17)
    reach = np.clip(1 - (side / (identity.mouth_width * 1.05)) ** 2, 0, 1)
    upper = np.where(y < MOUTH_LINE, bump(y, MOUTH_LINE - 0.045, 0.045), bump(y, MOUTH_LINE - 0.045, 0.03))
    lower = bump(y, MOUTH_LINE + 0.055, 0.05)
    out += reach * (0.065 * upper + 0.085 * lower) + 0.035 * bump(y, MOUTH_LINE, 0.2) * bump(side, 0.0, 0.3)
    out += -0.045 * bump(y, 0.70, 0.05) * bump(side, 0.0, 0.22) + 0.085 * bump(y, 0.865, 0.09) * bump(side, 0.0, 0.2)
    out += -0.02 * bump(side, 0.0, 0.03) * bump(y, 0.42, 0.05)
    return out * front


def spread_share(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much a point follows the widening and rounding of the lips."""
    return np.exp(-((x / 0.47) ** 4) - ((y - MOUTH_LINE) / 0.21) ** 2)


def build_head(identity: Identity) -> MeshPart:
    """Skin of the head with its anchors (vertex numbers of named points)."""
    rows = np.concatenate([_ROWS, _UNDER_CHIN[:, 0]])
    num_rows = len(rows)
    y, lon = (a.ravel() for a in np.meshgrid(rows, longitudes(), indexing="ij"))
    row = np.repeat(np.arange(num_rows), NUM_COLS)
    x, z = shell(identity, np.minimum(y, 0.985), lon)
    _tuck_under_chin(identity, row, lon, x, z)
    front = smoothstep(np.cos(lon), 0.10, 0.50)
    z = z - features(identity, x, y, front)
    eye_seam = int(np.flatnonzero(rows == EYE_LINE)[0])
    mouth_seam = int(np.flatnonzero(rows == MOUTH_LINE)[0])
    vertices = np.zeros((len(y), NUM_COLUMNS))
    height = warp_height(identity, y)
    tilt = identity.eye_tilt * (identity.eye_spacing - np.abs(x))
    height = height + tilt * bump(np.abs(x), identity.eye_spacing, 0.22) * bump(y, EYE_LINE, 0.13) * front
    height = height - 0.030 * np.clip((x / identity.mouth_width) ** 2, 0, 1.5) * spread_share(x, y) * front
    vertices[:, X], vertices[:, Y], vertices[:, Z] = x, height, z
    vertices[:, HEAD] = 1.0
    _set_mouth_weights(identity, vertices, y, lon, row <= mouth_seam, front)
    _set_eye_weights(identity, vertices, y, row <= eye_seam, front)
    texture = np.stack([x, y, front], axis=1)
    texture[row == eye_seam, 1] -= 1e-4
    texture[row == mouth_seam, 1] -= 1e-4
    anchors = _anchors(identity, rows, x.reshape(num_rows, -1), eye_seam, mouth_seam)
    triangles = grid_triangles(num_rows, NUM_COLS, (eye_seam, mouth_seam))
    return MeshPart(vertices, texture, triangles, SKIN, hollow=True, anchors=anchors)


def _tuck_under_chin(identity: Identity, row: np.ndarray, lon: np.ndarray, x: np.ndarray, z: np.ndarray) -> None:
    for step, (_, width, front) in enumerate(_UNDER_CHIN):
        at = row == len(_ROWS) + step
        cosine = np.cos(lon[at])
        x[at] = width * identity.head_width * identity.jaw_width * np.sin(lon[at])
        z[at] = np.where(cosine > 0, -front * cosine, -0.36 * cosine)


def _set_mouth_weights(
    identity: Identity, vertices: np.ndarray, y: np.ndarray, lon: np.ndarray, above: np.ndarray, front: np.ndarray
) -> None:
    x = vertices[:, X]
    slit = opening_profile(x, identity.mouth_width, 0.55) * front
    # Away from the slit the skin follows the jaw more and more from the cheeks down to the chin.
    follow = smoothstep(y, 0.30, 0.78)
    side_of_face = smoothstep(np.cos(lon), -0.25, 0.25)
    reach = 1 - smoothstep(np.abs(y - MOUTH_LINE), 0.0, 0.17)
    upper = follow * (1 - slit * np.maximum(reach, 0.4 * (y > 0.4)))
    lower = follow + (1 - follow) * slit
    vertices[:, JAW] = np.where(above, upper, lower) * side_of_face
    vertices[:, SPREAD] = spread_share(x, y) * front
    lips = np.clip(1 - (x / (identity.mouth_width * 1.25)) ** 2, 0, 1) * np.exp(-(((y - MOUTH_LINE) / 0.12) ** 2))
    vertices[:, PROTRUDE] = lips * front
    vertices[:, RAISE] = np.where(above, slit * np.exp(-((np.minimum(y - MOUTH_LINE, 0) / 0.10) ** 2)), 0.0)


def _set_eye_weights(
    identity: Identity, vertices: np.ndarray, y: np.ndarray, above: np.ndarray, front: np.ndarray
) -> None:
    half = eye_half_width(identity)
    offset = np.abs(vertices[:, X]) - identity.eye_spacing
    slit = opening_profile(offset, half, 0.75) * front
    fade_up = 1 - smoothstep(EYE_LINE - y, 0.0, 0.20)
    fade_down = 1 - smoothstep(y - EYE_LINE, 0.0, 0.12)
    upper, lower = -0.108 * identity.eye_size, 0.034 * identity.eye_size
    vertices[:, LID] = slit * np.where(above, upper * fade_up, lower * fade_down)
    brow = bump(y, -0.36, 0.12) * (1 - smoothstep(np.abs(vertices[:, X]), 0.5, 0.75)) * front
    vertices[:, BROW] = brow
    near = (np.abs(offset) < EYEBALL_RADIUS) & (np.abs(y - EYE_LINE) < EYEBALL_RADIUS) & (front > 0.2)
    vertices[:, SHIELD] = np.where(near, np.where(vertices[:, X] < 0, 1, 2), 0)


def _anchors(identity: Identity, rows: np.ndarray, x: np.ndarray, eye_seam: int, mouth_seam: int) -> dict[str, int]:
    """Vertex numbers of the points that keypoints and measures are taken from."""

    def at(row: int, target: float) -> int:
        face = slice(NUM_COLS // 6, NUM_COLS - NUM_COLS // 6)
        return row * NUM_COLS + face.start + int(np.argmin(np.abs(x[row, face] - target)))

    def nearest_row(height: float) -> int:
        return int(np.argmin(np.abs(rows - height)))

    found = {
        "nose_tip": at(nearest_row(0.27), 0.0),
        "nose_bridge": at(nearest_row(-0.11), 0.0),
        "chin": at(nearest_row(0.945), 0.0),
        "forehead": at(nearest_row(-0.66), 0.0),
        "upper_lip_inner": at(mouth_seam, 0.0),
        "lower_lip_inner": at(mouth_seam + 1, 0.0),
        "upper_lip_top": at(nearest_row(MOUTH_LINE - 0.055), 0.0),
        "lower_lip_bottom": at(nearest_row(MOUTH_LINE + 0.075), 0.0),
    }
    for side, sign in (("left", -1.0), ("right", 1.0)):
        eye = sign * identity.eye_spacing
        found |= {
            f"mouth_{side}": at(mouth_seam, sign * identity.mouth_width),
            f"upper_lid_{side}": at(eye_seam, eye),
            f"lower_lid_{side}": at(eye_seam + 1, eye),
            f"brow_{side}": at(nearest_row(-0.345), eye),
            f"cheek_{side}": at(nearest_row(0.16), sign * 0.45),
            f"jaw_{side}": at(nearest_row(0.66), sign * 0.60),
        }
    return found
