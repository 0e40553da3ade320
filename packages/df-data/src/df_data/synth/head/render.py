"""Images and exact geometry of a synthetic person in motion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from df_data.synth.head import camera
from df_data.synth.head.deform import articulate, to_camera, vertex_normals
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.head import HEAD
from df_data.synth.head.identity import Identity
from df_data.synth.head.keypoints import IRIS_POINTS, MOUTH_POINTS, keypoints_of, landmark_rows
from df_data.synth.head.mesh import HeadMesh, build_mesh
from df_data.synth.head.raster import rasterize
from df_data.synth.head.shading import average_down, paint_background, shade
from df_models.errors import UserError

SUPERSAMPLING = 2
"""Pixels rendered for each pixel of the side: lips and lids move by less than a pixel from frame to frame."""


class Rendering(NamedTuple):
    """A rendered clip: ``frames`` uint8 ``[T, S, S, 3]``, ``keypoints`` float64 ``[T, 21, 3]`` (camera frame, head
    units), ``landmarks2d`` float32 ``[T, 21, 2]`` (pixels), ``mouth_boxes`` float32 ``[T, 4]`` (x0, y0, x1, y1)."""

    frames: np.ndarray
    keypoints: np.ndarray
    landmarks2d: np.ndarray
    mouth_boxes: np.ndarray


class HeadGeometry(NamedTuple):
    """Exact geometry of a clip: ``canonical`` keypoints (articulated, head at rest) and ``keypoints`` (camera frame),
    both float64 ``[T, 21, 3]``; ``mouth`` canonical points of the mouth ``[T, 4, 3]`` (upper and lower inner lip, left
    and right corner)."""

    canonical: np.ndarray
    keypoints: np.ndarray
    mouth: np.ndarray


def pose_of(identity: Identity, tracks: FaceTracks) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotations ``[T, 3, 3]`` (for row vectors) and translations ``[T, 3]`` of the head."""
    rotation = camera.rotation_matrix(tracks.pitch, tracks.yaw, tracks.roll)
    return identity.size, rotation, camera.translation(tracks.tx, tracks.ty, tracks.tz)


def geometry(identity: Identity, tracks: FaceTracks) -> HeadGeometry:
    """Geometry of a clip without drawing it."""
    mesh = build_mesh(identity)
    rows = landmark_rows(mesh)
    vertices = np.ascontiguousarray(mesh.vertices[rows.vertices])
    points = np.empty((len(tracks), len(vertices), 3))
    for t, state in enumerate(tracks.as_array()):
        articulate(vertices, mesh.eye_centers, state[6:13], points[t])
    canonical = keypoints_of(points, rows)
    scale, rotation, translation = pose_of(identity, tracks)
    return HeadGeometry(canonical, scale * (canonical @ rotation) + translation[:, None], points[:, rows.mouth])


def render(identity: Identity, tracks: FaceTracks, size: int = 64) -> Rendering:
    """Draw a person.

    Args:
        identity: who.
        tracks: motion, ``[T]`` frames.
        size: pixels of the square frame, at least 16.
    """
    if size < 16:
        raise UserError(f"frames of {size} pixels cannot show a face; use at least 16")
    known = geometry(identity, tracks)
    landmarks = camera.project(known.keypoints, size)
    frames = _draw(identity, tracks, size)
    return Rendering(frames, known.keypoints, landmarks.astype(np.float32), mouth_boxes(landmarks, size))


def mouth_boxes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Boxes around the lips with a margin, float32 ``[T, 4]`` (x0, y0, x1, y1), from landmarks ``[T, 21, 2]``."""
    lips = landmarks[:, list(MOUTH_POINTS)]
    low, high = lips.min(axis=1), lips.max(axis=1)
    margin = 0.18 * (high[:, :1] - low[:, :1]) + 0.01 * size
    return np.clip(np.concatenate([low - margin, high + margin], axis=1), 0, size).astype(np.float32)


def eye_boxes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Boxes around both eyes, float32 ``[T, 2, 4]`` (x0, y0, x1, y1), from landmarks ``[T, 21, 2]``.

    Each is centred on its iris, 0.56 of the distance between the irises wide and 0.44 of it high: from corner to
    corner, and from below the brow to below the lower lid.
    """
    irises = landmarks[:, list(IRIS_POINTS)]
    apart = np.linalg.norm(irises[:, 0] - irises[:, 1], axis=-1)[:, None, None]
    half = apart * np.array([0.28, 0.22])
    return np.clip(np.concatenate([irises - half, irises + half], axis=-1), 0, size).astype(np.float32)


def light_vector(azimuth: float, elevation: float, intensity: float) -> np.ndarray:
    """Direction to the light in the camera frame and its intensity, ``[4]``, from degrees."""
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    return np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e), intensity])


def _draw(identity: Identity, tracks: FaceTracks, size: int) -> np.ndarray:
    mesh = build_mesh(identity)
    fine = size * SUPERSAMPLING
    background = _background(identity, mesh, fine)
    frames = np.empty((len(tracks), size, size, 3), np.uint8)
    canonical, points, normals = (np.empty((len(mesh.vertices), 3)) for _ in range(3))
    depth, owner, weights = np.empty((fine, fine)), np.empty((fine, fine), np.int32), np.empty((fine, fine, 2))
    image = np.empty((fine, fine, 3))
    head_share = np.ascontiguousarray(mesh.vertices[:, HEAD])
    scale, rotation, translation = pose_of(identity, tracks)
    lens = (camera.FOCAL, camera.DISTANCE, camera.CENTER_Y)
    for t, state in enumerate(tracks.as_array()):
        articulate(mesh.vertices, mesh.eye_centers, state[6:13], canonical)
        to_camera(canonical, head_share, scale, rotation[t], translation[t], points)
        vertex_normals(points, mesh.triangles, normals)
        surfaces = (mesh.triangles, mesh.material, mesh.sides)
        rasterize(points, *surfaces, mesh.texture, *lens, depth, owner, weights)
        light = light_vector(*state[13:16])
        drawn = (owner, weights, mesh.look, mesh.colors, light, background, image)
        shade(points, normals, mesh.texture, *surfaces, *drawn)
        average_down(image, SUPERSAMPLING, frames[t])
    return frames


def _background(identity: Identity, mesh: HeadMesh, size: int) -> np.ndarray:
    out = np.empty((size, size, 3))
    top, bottom, spot = (np.ascontiguousarray(c) for c in mesh.colors[6:9])
    paint_background(top, bottom, spot, identity.background_spot_x, identity.background_spot_y, out)
    return out
