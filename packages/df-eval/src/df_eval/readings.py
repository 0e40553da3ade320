"""What is read from the pixels of a video, whichever reader did it.

Shape suffixes: T pixel frames, A = 3 angles (yaw, pitch, roll), D identity features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class FaceReadings:
    """Readings of one clip. Frames without a face hold NaN; a quantity that the reader does not measure is None.

    Attributes:
        presence_T: bool, a face was found.
        mouth_open_T, lip_width_T: in the units of the reader's truth.
        blink_T: closure of the eyes, 0 open, 1 closed.
        angles_TA: yaw, pitch, roll in degrees.
        identity_TD: identity vector.
    """

    presence_T: np.ndarray
    mouth_open_T: np.ndarray | None = None
    lip_width_T: np.ndarray | None = None
    blink_T: np.ndarray | None = None
    angles_TA: np.ndarray | None = None
    identity_TD: np.ndarray | None = None

    def first(self, count: int) -> FaceReadings:
        """The readings of the first ``count`` frames."""
        return self._map(lambda values: values[:count])

    def repeated(self, count: int) -> FaceReadings:
        """The reading of one frame, held for ``count`` frames."""
        return self._map(lambda values: np.repeat(values[:1], count, axis=0))

    def _map(self, change: Callable[[np.ndarray], np.ndarray]) -> FaceReadings:
        changed = {f.name: change(v) for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return FaceReadings(**changed)


def masked(values: np.ndarray, presence_T: np.ndarray) -> np.ndarray:
    """The values as float64 with NaN where no face was found."""
    values = np.array(values, dtype=np.float64)
    values[~presence_T] = np.nan
    return values
