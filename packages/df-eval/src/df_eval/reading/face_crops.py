"""What two networks see in the face of every frame: FLAME's parameters by DECA or EMOCA, and the gaze by L2CS-Net.

Each looks at a square about the landmarker's landmarks, frame by frame as in the originals, so that what is read of a
video also holds for its beginning; beyond the image it is black.

- DECA and EMOCA: its rule for the box of 68 landmarks, which has no forehead (yfeng95/DECA, ``decalib/datasets``,
  ``bbox2point``, type ``kpt68``): 1.25 * 1.1 times the mean of the box's sides. The box here is that of MediaPipe's
  landmarks from the upper edge of the brows down. df-data's vectors come of another square, one for the whole clip by
  a detector's box (`df_data.stages.face_vectors`), so the two differ on the same frames.
- L2CS-Net: a detector's whole face. Its own pipeline (Ahmednull/L2CS-Net, ``l2cs/pipeline.py``) stretches RetinaFace's
  box to 224 x 224 pixels and enlarges that to 448; here a square on the longer side of the box of all landmarks is
  resized to 448 at once, so shapes are kept and fine detail is, too.

Shape suffixes: T pixel frames, S side of the square frame, n frames with a face, L landmarks, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from df_data.stages.face_vectors import BROWS, black_outside
from df_data.stages.landmarks import Landmarks
from df_models.crop import CropBox, crop_resize
from df_models.encoders import FaceEncoder, load_flame_encoder
from df_models.encoders.face import gaze
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.paths import expand_path
from df_models.structure import FLAME_MOTION_59, flame_motion

DECA_SCALE = 1.25 * 1.1
TOGETHER = 8
"""Faces that are cut out before a network sees them: bounds memory, changes nothing."""


class FlameReader:
    """DECA's or EMOCA's encoder.

    Args:
        given: the path of DECA's file, or ``deca:PATH``, ``emoca:PATH``.

    Raises:
        UserError: there is no such file, or it is another network's.
    """

    def __init__(self, given: str) -> None:
        name, path = split_spec(given)
        if path is not None and name not in ("deca", "emoca"):
            raise UserError(f"readers.deca={given}: {name!r} is none of deca, emoca")
        _require("deca", given if path is None else path)
        self._encoder: FaceEncoder = load_flame_encoder(f"deca:{given}" if path is None else given)
        self.id, self.sha256 = self._encoder.id, self._encoder.sha256

    def vectors(self, frames_TSSC: np.ndarray, landmarks: Landmarks) -> np.ndarray:
        """FLAME's motion in every frame (`df_models.structure.FLAME_MOTION_59`), float64 ``[T, 59]``, NaN where no face
        was found."""

        def encode(faces_nSSC: np.ndarray) -> np.ndarray:
            faces_n3SS = torch.from_numpy(faces_nSSC).permute(0, 3, 1, 2).float() / 255
            return flame_motion(self._encoder.encode(faces_n3SS)).double().cpu().numpy()

        boxes = [(box, DECA_SCALE * float(np.mean(box[1] - box[0]))) for box in face_boxes(landmarks, from_brows=True)]
        return _read(frames_TSSC, landmarks, boxes, self._encoder.size, encode, FLAME_MOTION_59.dim)


class GazeReader:
    """L2CS-Net of Gaze360.

    Args:
        given: the path of its file.

    Raises:
        UserError: there is no such file, or it is another network's.
    """

    def __init__(self, given: str) -> None:
        _require("gaze", given)
        self._network = gaze.load(given)
        self.id, self.sha256 = self._network.id, self._network.sha256

    def angles(self, frames_TSSC: np.ndarray, landmarks: Landmarks) -> np.ndarray:
        """Horizontal and vertical angle in degrees of every frame's gaze, float64 ``[T, 2]``, NaN without a face."""
        boxes = [(box, float(np.max(box[1] - box[0]))) for box in face_boxes(landmarks, from_brows=False)]
        return _read(frames_TSSC, landmarks, boxes, gaze.SIZE, self._network.angles, 2)


def _require(reader: str, path: str) -> None:
    """Refuse a path where nothing is: another weights' loader would take ``folder/file`` as a repository of the Hub."""
    if not expand_path(path).exists():
        raise UserError(f"readers.{reader}: no such file: {path}; give the path of the weights")


def face_boxes(landmarks: Landmarks, *, from_brows: bool) -> np.ndarray:
    """Corners of the box of the landmarks in each frame that has a face, in the unit of the landmarks: ``[n, 2, 2]``.

    Args:
        from_brows: without what lies above the brows.
    """
    points_nL2 = landmarks.points[landmarks.detected.astype(bool)][..., :2]
    if from_brows:
        top_n1 = points_nL2[:, BROWS, 1].min(axis=1, keepdims=True) if len(points_nL2) else np.zeros((0, 1))
        points_nL2 = np.where((points_nL2[..., 1] >= top_n1)[..., None], points_nL2, np.nan)
    if not len(points_nL2):
        return np.zeros((0, 2, 2))
    return np.stack([np.nanmin(points_nL2, axis=1), np.nanmax(points_nL2, axis=1)], axis=1)


def _read(
    frames_TSSC: np.ndarray,
    landmarks: Landmarks,
    boxes: list[tuple[np.ndarray, float]],
    size: int,
    encode: Callable[[np.ndarray], np.ndarray],
    width: int,
) -> np.ndarray:
    """What a network gives for the squares, about the boxes' middles and of the sides given, NaN elsewhere."""
    vectors_TD, seen = np.full((len(frames_TSSC), width), np.nan), np.flatnonzero(landmarks.detected)
    for start in range(0, len(seen), TOGETHER):
        part = slice(start, start + TOGETHER)
        faces = list(_faces(frames_TSSC, seen[part], boxes[part], size))
        vectors_TD[seen[part]] = encode(np.stack(faces))
    return vectors_TD


def _faces(
    frames_TSSC: np.ndarray, seen: np.ndarray, boxes: list[tuple[np.ndarray, float]], size: int
) -> Iterator[np.ndarray]:
    half = frames_TSSC.shape[1] / 2  # of the landmarks' unit, which is -1 to 1, in pixels
    for index, (corners, side) in zip(seen, boxes, strict=True):
        (x, y), pixels = (corners.mean(axis=0) + 1) * half, side * half
        square = CropBox(float(x - pixels / 2), float(y - pixels / 2), pixels)
        frame_1SSC = frames_TSSC[index : index + 1]
        yield black_outside(crop_resize(frame_1SSC, square, size), square, frame_1SSC.shape[1:3])[0]
