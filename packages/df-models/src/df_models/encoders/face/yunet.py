"""YuNet face detector (boxes and five points) through onnxruntime.

Source: opencv/opencv_zoo ``face_detection_yunet`` (Apache-2.0); decoding after OpenCV's
``modules/objdetect/src/face_detect.cpp``. onnxruntime is imported when a detector is made (``df-models[encoders]``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from df_models.crop import resample_matrix
from df_models.encoders.onnx_files import open_onnx
from df_models.errors import UserError
from df_models.files import sha256_file

STRIDES = (8, 16, 32)
HOW_TO_GET = (
    "download face_detection_yunet_2023mar.onnx (Apache-2.0, 0.3 MB) from github.com/opencv/opencv_zoo, "
    "models/face_detection_yunet, and give its path"
)


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the image.

    Attributes:
        box: float64 [4], x0, y0, x1, y1.
        points: float64 [5, 2], right eye, left eye (the person's), nose tip, right and left corner of the mouth.
        score: confidence in [0, 1].
    """

    box: np.ndarray
    points: np.ndarray
    score: float

    @property
    def size(self) -> float:
        """Longer side of the box in pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class YuNet:
    """Face detector for images of any size.

    Args:
        path: the ONNX file, with dynamic height and width.
        threshold: least confidence of a face.
        overlap: boxes that overlap a better one by more than this IoU are dropped.
        max_side: larger images are shrunk to this longer side first (the detector finds faces of 10-300 px).
    """

    id = "yunet"
    licence = "Apache-2.0"

    def __init__(
        self, path: str | Path, *, threshold: float = 0.7, overlap: float = 0.3, max_side: int = 640, threads: int = 1
    ) -> None:
        path = Path(path)
        self._session = open_onnx(path, "the face detector", HOW_TO_GET, threads)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [f"{kind}_{s}" for s in STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        if {o.name for o in self._session.get_outputs()} != set(self._outputs):
            raise UserError(f"{path} is not a YuNet of 2023 or later (other outputs); {HOW_TO_GET}")
        self.threshold, self.overlap, self.max_side = threshold, overlap, max_side
        self.sha256 = sha256_file(path)

    def detect(self, image_HWC: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 RGB image ``[H, W, 3]``, the most confident first."""
        height, width = image_HWC.shape[:2]
        scale = min(1.0, self.max_side / max(height, width))
        bgr_HWC = shrink_image(image_HWC, scale)[..., ::-1].astype(np.float32)
        shrunk_height, shrunk_width = bgr_HWC.shape[:2]
        padded_height, padded_width = (-(-n // STRIDES[-1]) * STRIDES[-1] for n in (shrunk_height, shrunk_width))
        batch = np.zeros((1, 3, padded_height, padded_width), dtype=np.float32)
        batch[0, :, :shrunk_height, :shrunk_width] = bgr_HWC.transpose(2, 0, 1)
        outputs = [np.asarray(output) for output in self._session.run(self._outputs, {self._input: batch})]
        raw = dict(zip(self._outputs, outputs, strict=True))
        faces = [face for s in STRIDES for face in self._decode(raw, s, padded_width // s)]
        back = np.array([width / shrunk_width, height / shrunk_height])
        kept = suppress_overlaps(sorted(faces, key=lambda face: -face.score), self.overlap)
        return [Face(f.box * np.tile(back, 2), f.points * back, f.score) for f in kept]

    def _decode(self, raw: dict[str, np.ndarray], stride: int, columns: int) -> list[Face]:
        scores = np.sqrt(raw[f"cls_{stride}"].clip(0, 1) * raw[f"obj_{stride}"].clip(0, 1)).reshape(-1)
        faces = []
        for cell in np.flatnonzero(scores >= self.threshold):
            corner = np.array([cell % columns, cell // columns], dtype=np.float64)
            delta = raw[f"bbox_{stride}"][0, cell].astype(np.float64)
            centre, half = (corner + delta[:2]) * stride, np.exp(delta[2:]) * stride / 2
            points = (raw[f"kps_{stride}"][0, cell].reshape(5, 2).astype(np.float64) + corner) * stride
            faces.append(Face(np.concatenate([centre - half, centre + half]), points, float(scores[cell])))
        return faces


def suppress_overlaps(faces: list[Face], overlap: float) -> list[Face]:
    """Keep of every group of overlapping faces the first; ``faces`` come best first."""
    kept: list[Face] = []
    for face in faces:
        if all(box_iou(face.box, other.box) <= overlap for other in kept):
            kept.append(face)
    return kept


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    area = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / area if area > 0 else 0.0


def shrink_image(image_HWC: np.ndarray, scale: float) -> np.ndarray:
    """Return a uint8 image ``[H, W, 3]`` scaled by ``scale``; as it is from 1 on."""
    if scale >= 1.0:
        return image_HWC
    whole = int(1 / scale)
    if whole > 1:  # blocks first: the filter below is dense and slow on large images
        height, width = (n // whole for n in image_HWC.shape[:2])
        blocks = image_HWC[: height * whole, : width * whole].reshape(height, whole, width, whole, 3)
        image_HWC = blocks.mean(axis=(1, 3), dtype=np.float32)
        scale *= whole
    height, width = image_HWC.shape[:2]
    if scale < 1.0:
        rows = resample_matrix(height, 0.0, height, round(height * scale))
        columns = resample_matrix(width, 0.0, width, round(width * scale))
        tall = np.tensordot(rows, image_HWC.astype(np.float32), axes=(1, 0))
        image_HWC = np.tensordot(tall, columns, axes=(1, 1)).transpose(0, 2, 1)
    return np.clip(image_HWC + 0.5, 0, 255).astype(np.uint8)
