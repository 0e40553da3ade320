"""SCRFD face detector (boxes and five points) through onnxruntime; the user brings its file.

Source: Guo et al., "Sample and Computation Redistribution for Efficient Face Detection" (arXiv:2105.04714); outputs and
decoding after deepinsight/insightface ``python-package/insightface/model_zoo/scrfd.py``. The file has nine outputs:
score, box and points at strides 8, 16 and 32, with two anchors in every cell, as ``det_10g.onnx`` and ``det_500m.onnx``
of the buffalo packs do. Enlarged to fill the input or shrunk to fit it, the image lies in its top left corner.

Two things differ from the original: the image is resized by this package's cubic filter, not OpenCV's bilinear one,
and overlaps are measured without the pixel that the original adds to every side.

Shape legend: H height, W width, A anchors of a stride (two for every cell, row by row).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from df_models.crop import resample_matrix
from df_models.encoders.face.yunet import Face, shrink_image, suppress_overlaps
from df_models.encoders.onnx_files import open_onnx
from df_models.errors import UserError
from df_models.files import sha256_file

STRIDES = (8, 16, 32)
ANCHORS = 2
WIDTHS = (1, 1, 1, 4, 4, 4, 10, 10, 10)
"""Last dimensions of the outputs: scores, boxes and points, stride by stride."""
MEAN, SPREAD = 127.5, 128.0
HOW_TO_GET = (
    "take det_10g.onnx or det_500m.onnx, which find five points too, from insightface's buffalo_l or buffalo_s "
    "(github.com/deepinsight/insightface, model_zoo), and give its path"
)


class SCRFD:
    """Face detector for images of any size, with YuNet's interface.

    Args:
        path: the ONNX file, of fixed or dynamic height and width.
        threshold: least score of a face.
        overlap: boxes that overlap a better one by more than this IoU are dropped.
        max_side: side of the square input, a multiple of 32; a file of a fixed size has its own.

    Raises:
        UserError: the file is missing, or not a SCRFD with five points.
    """

    id = "scrfd"
    licence = "insightface's: non-commercial research"

    def __init__(
        self, path: str | Path, *, threshold: float = 0.5, overlap: float = 0.4, max_side: int = 640, threads: int = 1
    ) -> None:
        path = Path(path)
        self._session = open_onnx(path, "the face detector", HOW_TO_GET, threads)
        given = self._session.get_inputs()[0]
        self._input = given.name
        size = [n if isinstance(n, int) and n > 0 else max_side for n in given.shape[2:]]
        if len(size) != 2 or any(n % STRIDES[-1] for n in size):
            raise UserError(f"{path} is not a SCRFD: it reads {given.shape}; {HOW_TO_GET}")
        self.height, self.width = size
        self.threshold, self.overlap = threshold, overlap
        self._check_outputs(path)
        self.sha256 = sha256_file(path)

    def _check_outputs(self, path: Path) -> None:
        outputs = self._session.get_outputs()
        if len(outputs) == len(WIDTHS) - 3:
            raise UserError(f"{path} is a SCRFD without the five points; {HOW_TO_GET}")
        cells = [self.height // stride * (self.width // stride) for stride in STRIDES]
        wanted = [(ANCHORS * count, width) for count, width in zip(cells * 3, WIDTHS, strict=True)]
        try:
            found = [array.shape for array in self._run(np.zeros((self.height, self.width, 3), dtype=np.uint8))]
        except Exception as error:  # onnxruntime's errors have no common class
            raise UserError(f"{path} cannot be run as a SCRFD of {self.width}x{self.height}; {HOW_TO_GET}") from error
        if found != wanted:
            raise UserError(f"{path} is not a SCRFD with two anchors and five points (other outputs); {HOW_TO_GET}")

    def detect(self, image_HWC: np.ndarray) -> list[Face]:
        """Return the faces of a uint8 RGB image ``[H, W, 3]``, the most confident first."""
        fitted = fit_image(image_HWC, self.height, self.width)
        boxed = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        boxed[: fitted.shape[0], : fitted.shape[1]] = fitted
        back = np.array([image_HWC.shape[1] / fitted.shape[1], image_HWC.shape[0] / fitted.shape[0]])
        outputs = self._run(boxed)
        faces = []
        for level, stride in enumerate(STRIDES):
            scores_A, boxes_A4, points_A10 = outputs[level][:, 0], outputs[3 + level], outputs[6 + level]
            found = np.flatnonzero(scores_A >= self.threshold)
            centres = anchor_centres(self.height // stride, self.width // stride, stride)[found]
            boxes, points = decode_faces(centres, stride * boxes_A4[found], stride * points_A10[found])
            faces += [
                Face(box * np.tile(back, 2), five * back, float(score))
                for box, five, score in zip(boxes, points, scores_A[found], strict=True)
            ]
        return suppress_overlaps(sorted(faces, key=lambda face: -face.score), self.overlap)

    def _run(self, boxed_HWC: np.ndarray) -> list[np.ndarray]:
        """Return the nine outputs, float64, without a batch dimension (some exports have one)."""
        batch = ((boxed_HWC.astype(np.float32) - MEAN) / SPREAD).transpose(2, 0, 1)[None]
        arrays = [np.asarray(array, dtype=np.float64) for array in self._session.run(None, {self._input: batch})]
        return [array[0] if array.ndim == 3 and len(array) == 1 else array for array in arrays]


def fit_image(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a uint8 image resized to fit ``height`` x ``width`` with its sides' ratio kept."""
    scale = min(height / image_HWC.shape[0], width / image_HWC.shape[1])
    if scale <= 1:
        return shrink_image(image_HWC, scale)
    rows, columns = (max(1, int(n * scale)) for n in image_HWC.shape[:2])
    tall = np.tensordot(_stretch(image_HWC.shape[0], rows), image_HWC.astype(np.float32), axes=(1, 0))
    wide = np.tensordot(tall, _stretch(image_HWC.shape[1], columns), axes=(1, 1)).transpose(0, 2, 1)
    return np.clip(wide + 0.5, 0, 255).astype(np.uint8)


def _stretch(length: int, size: int) -> np.ndarray:
    return resample_matrix(length, 0.0, length, size)


def anchor_centres(rows: int, columns: int, stride: int) -> np.ndarray:
    """Return x, y of every anchor in pixels, float64 ``[A, 2]``: top left corners of the cells, each twice."""
    y, x = np.mgrid[:rows, :columns]
    corners = np.stack([x, y], axis=-1).reshape(-1, 2) * float(stride)
    return corners.repeat(ANCHORS, axis=0)


def decode_faces(
    centres_A2: np.ndarray, distances_A4: np.ndarray, offsets_A10: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes ``[A, 4]`` (x0, y0, x1, y1) and points ``[A, 5, 2]`` in pixels.

    Distances are to the left, top, right and bottom side; offsets are x, y of the five points. All in pixels.
    """
    boxes = np.concatenate([centres_A2 - distances_A4[:, :2], centres_A2 + distances_A4[:, 2:]], axis=1)
    return boxes, centres_A2[:, None] + offsets_A10.reshape(-1, 5, 2)
