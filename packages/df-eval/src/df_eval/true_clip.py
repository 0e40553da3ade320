"""A true clip as it is held while everything is measured: what was read of it, and one of its frames.

Shape suffixes: T pixel frames, D identity features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from df_eval.measure import Truth
from df_eval.metrics.frames import FrameValues
from df_eval.reading.readings import FaceReadings

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TrueClip:
    """What was read of a clip's true frames, and the first of them."""

    first_1HWC: np.ndarray
    read: FaceReadings | None
    signals: FaceReadings
    still: FaceReadings | None
    silent_T: np.ndarray

    def truth(
        self,
        frames_THWC: np.ndarray,
        lpips: Compare | None = None,
        values: FrameValues | None = None,
    ) -> Truth:
        identity_TD = None if self.read is None else self.read.identity_TD
        if identity_TD is not None and not np.isfinite(identity_TD).any():
            identity_TD = None
        return Truth(
            frames_THWC,
            self.signals,
            reference_identity_D=None if identity_TD is None else identity_TD[0],
            person_identity_D=None if identity_TD is None else np.nanmean(identity_TD, axis=0),
            silent_T=self.silent_T,
            lpips=lpips,
            values=values or FrameValues(),
        )
