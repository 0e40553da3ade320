"""What the face landmarker sees in a clip: points, pose, blendshapes.

Shape legend: T frames, L = 478 landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

NUM_LANDMARKS = 478
BLENDSHAPES: tuple[str, ...] = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft",
    "noseSneerRight",
)  # fmt: skip
"""MediaPipe's 52 blendshapes in the model's order."""


@dataclass(frozen=True)
class Landmarks:
    """What the landmarker saw in a clip of square frames. Entries of frames without a face are NaN.

    Attributes:
        points: float64 [T, L, 3]: x right and y down in [-1, 1] across the frame, z away from the camera, same unit.
        rotation: float64 [T, 3, 3]: turns head axes (x right, y down, z away) into the camera's, column vectors.
        depth: float64 [T]: distance to the camera in cm, for MediaPipe's assumed camera (63 degrees vertically).
        blendshapes: float64 [T, 52] in [0, 1], named by ``blendshape_names``.
        detected: bool [T].
    """

    points: np.ndarray
    rotation: np.ndarray
    depth: np.ndarray
    blendshapes: np.ndarray
    detected: np.ndarray
    blendshape_names: tuple[str, ...]

    def first(self, count: int) -> Landmarks:
        """What was seen in the first frames."""
        arrays = ("points", "rotation", "depth", "blendshapes", "detected")
        return replace(self, **{name: getattr(self, name)[:count] for name in arrays})

    def blendshape(self, name: str) -> np.ndarray:
        """Return one blendshape's track ``[T]``."""
        return self.blendshapes[:, self.blendshape_names.index(name)]
