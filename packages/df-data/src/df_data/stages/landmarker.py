"""MediaPipe's face landmarker: 478 points, 52 blendshapes and the head's pose from each frame on its own.

Source: google-ai-edge/mediapipe, Face Landmarker task (Apache-2.0). mediapipe is imported when a landmarker is made
(``df-data[mediapipe]``). Frames are read one by one (image mode), so no smoothing delays the lips.

Shape legend: T frames, H height, W width, L = 478 landmarks, S side of the square given to the landmarker.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from df_data.common.timing import timed
from df_data.stages.landmarks import BLENDSHAPES, NUM_LANDMARKS, Landmarks
from df_data.stages.readings import Readings, readings_of
from df_models.crop import CropBox, crop_resize
from df_models.errors import UserError
from df_models.files import sha256_file

READ_SIZE = 256
"""Frames smaller than this are enlarged first; measured on GRID crops of 48 to 192 px (see docs)."""
HOW_TO_GET = (
    "download face_landmarker.task (Apache-2.0, 3.6 MB) from "
    "storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/ and give its path"
)


class MediaPipeReader:
    """Reads landmarks and mouth, lids and pose from pixels of any square size.

    Args:
        path: the ``.task`` file of the face landmarker with blendshapes.
    """

    id = "mediapipe"
    licence = "Apache-2.0"

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_file():
            raise UserError(f"the face landmarker is missing: no file {path}; {HOW_TO_GET}")
        self.sha256 = sha256_file(path)
        self._mediapipe, self._landmarker = _make_landmarker(path)
        self._finalizer = weakref.finalize(self, self._landmarker.close)

    def close(self) -> None:
        """Free the native landmarker; it is freed at the latest when the program ends."""
        self._finalizer()

    def __enter__(self) -> MediaPipeReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @timed("landmarks")
    def landmarks(self, frames_THWC: np.ndarray) -> Landmarks:
        """Find the landmarks of uint8 RGB square frames ``[T, S, S, 3]``; small ones are enlarged to 256 first."""
        num = len(frames_THWC)
        points = np.full((num, NUM_LANDMARKS, 3), np.nan)
        rotation, depth = np.full((num, 3, 3), np.nan), np.full(num, np.nan)
        blendshapes = np.full((num, 52), np.nan)
        names: tuple[str, ...] = BLENDSHAPES
        for index, frame in enumerate(frames_THWC):
            found = self._detect(enlarge(frame, READ_SIZE))
            if not found.face_landmarks:
                continue
            shapes = found.face_blendshapes[0]
            names = tuple(str(shape.category_name) for shape in shapes)
            points[index] = [(2 * p.x - 1, 2 * p.y - 1, 2 * p.z) for p in found.face_landmarks[0]]
            blendshapes[index] = [shape.score for shape in shapes]
            matrix = np.asarray(found.facial_transformation_matrixes[0], dtype=np.float64)
            rotation[index], depth[index] = camera_rotation(matrix), -matrix[2, 3]
        return Landmarks(points, rotation, depth, blendshapes, np.isfinite(depth), names)

    def read(self, frames_THWC: np.ndarray) -> Readings:
        """Measure mouth, lids and pose of uint8 RGB square frames ``[T, S, S, 3]`` of one person, real or generated."""
        return readings_of(self.landmarks(frames_THWC))

    def _detect(self, frame_HWC: np.ndarray) -> Any:
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame_HWC)
        )
        return self._landmarker.detect(image)


def camera_rotation(matrix_44: np.ndarray) -> np.ndarray:
    """Turn MediaPipe's transformation matrix (y up, z to the viewer) into a rotation with y down, z away."""
    flip = np.diag([1.0, -1.0, -1.0])
    return flip @ matrix_44[:3, :3] @ flip


def enlarge(frame_HWC: np.ndarray, size: int) -> np.ndarray:
    """Return a square frame of at least ``size``: enlarged by the crop's cubic if smaller, else as it is."""
    height, width = frame_HWC.shape[:2]
    if height != width:
        raise UserError(f"the landmarker reads square frames, not {width}x{height}; crop them first")
    return frame_HWC if height >= size else crop_resize(frame_HWC, CropBox(0.0, 0.0, float(height)), size)


def _make_landmarker(path: Path) -> tuple[Any, Any]:
    try:
        with _quiet_native_log():
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise UserError(
            f"the structure encoder 'mediapipe' needs the package mediapipe ({error}); "
            "install df-data[mediapipe] (and libGL and libEGL on a bare Linux machine)"
        ) from error
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(path)),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=1,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    try:
        with _quiet_native_log():
            return mediapipe, vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is no face landmarker that mediapipe can load; {HOW_TO_GET}") from error


@contextlib.contextmanager
def _quiet_native_log() -> Iterator[None]:
    """Keep the native library's start-up chatter off stderr; what Python writes there is not touched."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
