"""How good a face image is for recognition: one number per face, of eDifFIQA.

Source: Babnik, Peer and Struc 2024 (eDifFIQA, T-BIOM), whose small variant OpenCV's model zoo ships as
``ediffiqa_tiny_jun2024.onnx`` (CC-BY-4.0): an upright face of 112x112 RGB in [-1, 1] gives one number, the higher the
better. The zoo's demo aligns by five points of YuNet, this reader by the landmarker's; the template is the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from df_data.stages.identity import FaceNetwork, UprightFaceNetwork
from df_data.stages.landmarks import Landmarks
from df_models.errors import UserError

EDIFFIQA = FaceNetwork(
    "ediffiqa",
    (0.5, 0.5, 0.5),
    (0.5, 0.5, 0.5),
    "CC-BY-4.0",
    "give the path of ediffiqa_tiny_jun2024.onnx of OpenCV's model zoo (input [1, 3, 112, 112], one number out)",
    "face quality network",
)


class FaceQuality(UprightFaceNetwork):
    """eDifFIQA.

    Args:
        path: its ONNX file.

    Raises:
        UserError: the file is missing, or is another network.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, EDIFFIQA)
        if self.width != 1:
            raise UserError(f"{path} gives {self.width} numbers for a face, not one; {EDIFFIQA.how_to_get}")

    def scores(self, frames_TSSC: np.ndarray, landmarks: Landmarks) -> np.ndarray:
        """Return the quality of the face in uint8 square frames, float64 ``[T]``, NaN where none was found."""
        scores_T, seen = np.full(len(frames_TSSC), np.nan), np.flatnonzero(landmarks.detected)
        if len(seen):
            scores_T[seen] = self.run_frames(frames_TSSC, landmarks, seen)[:, 0]
        return scores_T
