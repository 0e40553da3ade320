"""The models of a worker without the files that nobody may pass on: a detector and a landmarker that see a face
wherever there is room for one. Everything else is what a build has."""

from __future__ import annotations

import numpy as np

from df_data.build import workers
from df_data.build.config import BuildConfig
from df_data.stages.landmarks import BLENDSHAPES, NUM_LANDMARKS, Landmarks
from df_models.encoders.face.yunet import Face

LEAST_SIDE = 32


class PaperDetector:
    """A face in the middle of every image of at least 32 pixels a side."""

    id, sha256 = "paper", "p"

    def detect(self, image_HWC: np.ndarray) -> list[Face]:
        height, width = image_HWC.shape[:2]
        if min(height, width) < LEAST_SIDE:
            return []
        x, y, side = width / 2, height / 2, 0.5 * min(height, width)
        box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
        return [Face(box, np.full((5, 2), (x, y)), 0.9)]


class PaperReader:
    """Landmarks that do not depend on the image, with lips that move."""

    id, sha256 = "paper", "p"

    def landmarks(self, frames_THWC: np.ndarray) -> Landmarks:
        count = len(frames_THWC)
        points = np.random.default_rng(0).uniform(-0.5, 0.5, (1, NUM_LANDMARKS, 3)).repeat(count, axis=0)
        points[:, ::7, 1] += 0.05 * np.sin(np.arange(count))[:, None]
        rotation, depth = np.tile(np.eye(3), (count, 1, 1)), np.full(count, 40.0)
        return Landmarks(points, rotation, depth, np.full((count, 52), 0.1), np.ones(count, dtype=bool), BLENDSHAPES)

    def close(self) -> None:
        pass


class PaperModels(workers.WorkerModels):
    """A worker's models with those two in place of the real ones."""

    def __init__(self, config: BuildConfig) -> None:
        # put back afterwards: with one worker this is the tests' own process
        real = workers.load_face_detector, workers.MediaPipeReader
        workers.load_face_detector = lambda path: PaperDetector()  # type: ignore[assignment]
        workers.MediaPipeReader = lambda path: PaperReader()  # type: ignore[assignment,misc]
        try:
            super().__init__(config)
        finally:
            workers.load_face_detector, workers.MediaPipeReader = real  # type: ignore[misc]
