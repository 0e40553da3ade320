"""Whose face a clip shows: one vector of a face recognition network.

The network is MobileFaceNet (Chen et al. 2018, arXiv:1804.07573; weights of foamliu/MobileFaceNet, Apache-2.0) as ONNX:
a face of 112x112 RGB, normalised as ImageNet's images are, gives 128 numbers whose direction is the person. Others of
the same layout, such as ArcFace, differ in normalisation and width (:data:`NETWORKS`). Faces are turned upright by the
similarity that takes eyes, nose and corners of the mouth to the template which all such networks share (insightface,
``face_align.py``, ``arcface_dst``).

Measured, cosine of vectors averaged over five frames (with the points of YuNet, :mod:`df_data.people.look`): 257 GRID
clips of eight speakers, least of one speaker's clips 0.87 (median 0.95), of two speakers median 0.04, most 0.35. Two
clips are taken for one person above 0.6.

Shape legend: T frames, S side of the crop, K = 5 points, D = 128.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from df_data.stages.landmarks import Landmarks
from df_models.encoders.onnx_files import open_onnx
from df_models.errors import UserError
from df_models.files import sha256_file

FACE_SIZE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where eyes, nose tip and corners of the mouth (left in the image first) lie in a face of 112x112."""
FIVE_POINTS = (468, 473, 1, 61, 291)
"""The same five among MediaPipe's landmarks: the irises, the tip of the nose, the corners of the mouth."""


@dataclass(frozen=True)
class FaceNetwork:
    """How a family of networks for upright faces takes its image: ``(pixel / 255 - mean) / std``, RGB.

    Attributes:
        id: recorded with vectors of it.
        licence: of the public weights; empty: it depends on the file.
        how_to_get: told where the file is missing.
        what: the kind of network, in words.
        width: numbers that its networks give for a face; 0: not known.
    """

    id: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str
    how_to_get: str
    what: str = "face recognition network"
    width: int = 0


MOBILEFACENET = FaceNetwork(
    "mobilefacenet-foamliu",
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
    "Apache-2.0",
    "give the path of a MobileFaceNet exported to ONNX (foamliu/MobileFaceNet on GitHub, Apache-2.0; "
    "input [1, 3, 112, 112]), or none to do without identity vectors",
    width=128,
)
ARCFACE = FaceNetwork(
    "arcface",
    (0.5, 0.5, 0.5),
    (0.5, 0.5, 0.5),
    "",
    "give the path of an ArcFace network in ONNX with input [N, 3, 112, 112], such as w600k_r50.onnx of insightface's "
    "buffalo_l (its weights are for non-commercial research)",
    width=512,
)
"""insightface's recognition models (Deng et al. 2019): RGB, (pixel - 127.5) / 127.5, 512 numbers."""
NETWORKS = {"mobilefacenet": MOBILEFACENET, "arcface": ARCFACE}
SAME_PERSON = 0.6
"""Two clips are taken for one person above this cosine (:func:`df_data.people.find.who_is_who`)."""
FRAMES = 5
"""Frames whose vectors are averaged, spread over the clip: one may be blurred or turned."""


class UprightFaceNetwork:
    """A network for upright faces.

    Args:
        path: its ONNX file, from ``[1, 3, 112, 112]`` to ``[1, D]``; the number of images may be free.
        network: the family that it is of, which says how its image is normalised.

    Attributes:
        width: D.

    Raises:
        UserError: the file is missing, or has other shapes.
    """

    def __init__(self, path: str | Path, network: FaceNetwork) -> None:
        path = Path(path)
        self.id, self.licence = network.id, network.licence
        self._mean, self._std = np.array(network.mean), np.array(network.std)
        self._session = open_onnx(path, f"the {network.what}", network.how_to_get)
        given = self._session.get_inputs()[0]
        images, *shape = given.shape
        if shape != [3, FACE_SIZE, FACE_SIZE] or (isinstance(images, int) and images != 1):
            wanted = f"[1, 3, {FACE_SIZE}, {FACE_SIZE}]"
            raise UserError(f"{path} reads {given.shape}, not {wanted}; {network.how_to_get}")
        self._input = given.name
        self.width = len(self.run(np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8)))
        self.sha256 = sha256_file(path)

    def run(self, face_HWC: np.ndarray) -> np.ndarray:
        """Return the first output float64 ``[D]`` of an upright face, uint8 RGB ``[112, 112, 3]``."""
        image = ((face_HWC / 255.0 - self._mean) / self._std).astype(np.float32).transpose(2, 0, 1)[None]
        return np.asarray(self._session.run(None, {self._input: image})[0], dtype=np.float64)[0]

    def run_frames(self, frames_TSSC: np.ndarray, landmarks: Landmarks, chosen: np.ndarray) -> np.ndarray:
        """Return the outputs float64 ``[len(chosen), D]`` of the chosen frames, each of which shows a face."""
        size = frames_TSSC.shape[1]
        points = (landmarks.points[chosen][:, FIVE_POINTS, :2] + 1) * size / 2
        faces = zip(frames_TSSC[chosen], points, strict=True)
        return np.stack([self.run(upright_face(frame, points_K2)) for frame, points_K2 in faces])


class FaceIdentity(UprightFaceNetwork):
    """The face recognition network; as :class:`UprightFaceNetwork`."""

    def __init__(self, path: str | Path, network: FaceNetwork = MOBILEFACENET) -> None:
        super().__init__(path, network)

    def embed(self, face_HWC: np.ndarray) -> np.ndarray:
        """Return the unit vector float64 ``[D]`` of an upright face, uint8 RGB ``[112, 112, 3]``."""
        return _unit(self.run(face_HWC))

    def clip_vector(self, frames_TSSC: np.ndarray, landmarks: Landmarks) -> np.ndarray:
        """Return the mean direction over five frames of a clip, float32 ``[D]``, of length 1.

        Args:
            frames_TSSC: uint8 RGB crop; ``landmarks`` are of the same frames, at least one of them with a face.
        """
        seen = np.flatnonzero(landmarks.detected)
        chosen = seen[np.linspace(0, len(seen) - 1, min(FRAMES, len(seen))).round().astype(int)]
        return _unit(self.frame_vectors(frames_TSSC, landmarks, chosen).mean(axis=0)).astype(np.float32)

    def frame_vectors(self, frames_TSSC: np.ndarray, landmarks: Landmarks, chosen: np.ndarray) -> np.ndarray:
        """Return the unit vectors float64 ``[len(chosen), D]`` of the chosen frames, each of which shows a face."""
        return np.stack([_unit(vector_D) for vector_D in self.run_frames(frames_TSSC, landmarks, chosen)])


def fit_similarity(points_K2: np.ndarray, target_K2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix ``[2, 2]`` and shift ``[2]`` with ``matrix @ point + shift ~ target`` (Umeyama 1991, no mirror)."""
    mean, target_mean = points_K2.mean(axis=0), target_K2.mean(axis=0)
    centred = points_K2 - mean
    u, singular, vt = np.linalg.svd((target_K2 - target_mean).T @ centred)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    matrix = (u * sign) @ vt * (singular @ sign) / np.square(centred).sum()
    return matrix, target_mean - matrix @ mean


def upright_face(frame_HWC: np.ndarray, points_K2: np.ndarray) -> np.ndarray:
    """Cut a face out upright by its five points: uint8 ``[112, 112, 3]``, bilinear, the image's edge goes on."""
    matrix, shift = fit_similarity(points_K2, TEMPLATE)
    height, width = frame_HWC.shape[:2]
    limit = np.array([width - 1, height - 1])
    at = np.clip((_wanted() - shift) @ np.linalg.inv(matrix).T, 0, limit)
    low = np.minimum(at.astype(int), limit - 1)
    (x, y), (right, down) = low.T, (at - low).T[..., None]
    pixels_N3, place = frame_HWC.reshape(-1, 3), y * width + x
    here, beside, below, across = (pixels_N3.take(place + step, axis=0) for step in (0, 1, width, width + 1))
    face = (here * (1 - right) + beside * right) * (1 - down) + (below * (1 - right) + across * right) * down
    return (face + 0.5).astype(np.uint8).reshape(FACE_SIZE, FACE_SIZE, 3)


@cache
def _wanted() -> np.ndarray:
    """Column and row of every pixel of an upright face: ``[112 * 112, 2]``."""
    columns, rows = np.meshgrid(np.arange(FACE_SIZE), np.arange(FACE_SIZE))
    return np.stack([columns, rows], axis=-1).reshape(-1, 2)


def _unit(vector_D: np.ndarray) -> np.ndarray:
    return vector_D / max(float(np.linalg.norm(vector_D)), 1e-12)
