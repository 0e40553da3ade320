"""Compiled motion of the mesh: articulators, eyeballs, rigid motion, camera."""

from __future__ import annotations

import numpy as np
from numba import njit

from df_data.synth.head.head import EYEBALL_RADIUS, JAW_HINGE_Y, JAW_HINGE_Z

JAW_DEGREES = 19.0
"""Rotation of the jaw at full opening."""
ROUND_JAW_SHARE = 0.30
"""Share of the jaw's opening that fully rounded lips take away."""


@njit(cache=True, error_model="numpy")
def articulate(vertices, eye_centers, state, out):
    """Vertices ``[N, 12]`` at rest to canonical positions ``out [N, 3]`` with the face in the given state.

    ``state`` float64 ``[7]``: jaw, lip_width, lip_round, blink, brow, gaze_x, gaze_y (see FaceTracks).
    """
    jaw, lip_width, lip_round, blink = state[0], state[1], state[2], state[3]
    brow, gaze_x, gaze_y = state[4], state[5], state[6]
    angle = np.deg2rad(JAW_DEGREES) * jaw * (1.0 - ROUND_JAW_SHARE * lip_round)
    spread = 0.24 * lip_width - 0.40 * lip_round
    radius = EYEBALL_RADIUS * 1.035
    turn_x, turn_y = 0.42 * gaze_x, 0.30 * gaze_y
    cos_x, sin_x, cos_y, sin_y = np.cos(turn_x), np.sin(turn_x), np.cos(turn_y), np.sin(turn_y)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        eye = int(vertices[i, 11])
        if eye > 0:
            dx = x - eye_centers[eye - 1, 0]
            dy = y - eye_centers[eye - 1, 1]
            dz = z - eye_centers[eye - 1, 2]
            dy, dz = dy * cos_y - dz * sin_y, dy * sin_y + dz * cos_y
            dx, dz = dx * cos_x - dz * sin_x, dx * sin_x + dz * cos_x
            x = eye_centers[eye - 1, 0] + dx
            y = eye_centers[eye - 1, 1] + dy
            z = eye_centers[eye - 1, 2] + dz
        near = vertices[i, 4]
        y -= 0.07 * max(lip_width, 0.0) * near * x * x / 0.12
        x *= 1.0 + spread * near
        z += vertices[i, 5] * (0.05 * lip_width - 0.13 * lip_round)
        y -= vertices[i, 6] * 0.055 * jaw
        y += vertices[i, 7] * (1.0 - blink) * (1.0 + 0.18 * brow)
        y -= vertices[i, 8] * 0.075 * brow
        share = vertices[i, 3] * angle
        if share > 0.0:
            dy, dz = y - JAW_HINGE_Y, z - JAW_HINGE_Z
            c, s = np.cos(share), np.sin(share)
            y, z = JAW_HINGE_Y + dy * c - dz * s, JAW_HINGE_Z + dy * s + dz * c
        shield = int(vertices[i, 9])
        if shield > 0:
            dx = x - eye_centers[shield - 1, 0]
            dy = y - eye_centers[shield - 1, 1]
            inside = radius * radius - dx * dx - dy * dy
            if inside > 0.0:
                z = min(z, eye_centers[shield - 1, 2] - np.sqrt(inside))
        out[i, 0], out[i, 1], out[i, 2] = x, y, z


@njit(cache=True, error_model="numpy")
def to_camera(canonical, head_share, scale, rotation, translation, out):
    """Rigid motion of canonical points to the camera frame; what belongs to the body only follows the translation."""
    for i in range(canonical.shape[0]):
        x, y, z = canonical[i, 0], canonical[i, 1], canonical[i, 2]
        w = head_share[i]
        for c in range(3):
            turned = x * rotation[0, c] + y * rotation[1, c] + z * rotation[2, c]
            out[i, c] = scale * (w * turned + (1.0 - w) * canonical[i, c]) + translation[c]


@njit(cache=True, error_model="numpy")
def vertex_normals(points, triangles, out):
    """Area-weighted vertex normals of camera-frame points, unit length, ``[N, 3]``."""
    out[:] = 0.0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += nx
            out[k, 1] += ny
            out[k, 2] += nz
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2)
        if length > 1e-12:
            out[i, 0] /= length
            out[i, 1] /= length
            out[i, 2] /= length
