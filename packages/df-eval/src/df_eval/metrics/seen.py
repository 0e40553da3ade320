"""One clip in one row of the table, as metrics see it: its video, what was read from it, and the truth.

Shape suffixes: T pixel frames of the measured length, L >= T pixel frames of the whole clip, A = 3 angles, D identity
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from df_eval.metrics import frames, sync
from df_eval.metrics.pair import Pair
from df_eval.readings import FaceReadings

GROUND_TRUTH = "ground truth"
RECONSTRUCTION = "VAE reconstruction"
GENERATED = "generated"
SHIFTED = "shifted audio"
STATIC = "static image"
ROWS = (GROUND_TRUTH, RECONSTRUCTION, GENERATED, SHIFTED, STATIC)


@dataclass(frozen=True)
class Truth:
    """The true clip: frames of the measured length, and signals over the whole clip (for the shifted control).

    ``reference_identity_D`` was read from the reference image, ``person_identity_D`` is the mean read from the
    whole true video. ``other_mouths`` are the true mouth openings of the other clips, from their beginnings.
    """

    frames_THWC: np.ndarray
    signals: FaceReadings
    reference_identity_D: np.ndarray | None
    person_identity_D: np.ndarray | None = None
    other_mouths: Sequence[np.ndarray] = ()

    @property
    def length(self) -> int:
        return len(self.frames_THWC)


@dataclass(frozen=True)
class Video:
    """One row's video of a clip, what was read from it, and the mouth opening decoded from its structure stream."""

    frames_THWC: np.ndarray
    readings: FaceReadings | None
    structure_mouth_T: np.ndarray | None = None


@dataclass(frozen=True)
class Seen:
    """What a metric may measure. Every signal is None where the reader, the truth or the row does not have it.

    Attributes:
        max_lag: frames that a video is moved by to look for its best lag.
        shifts: frames that the shifted-audio control is compared later by.
    """

    video: Video
    truth: Truth
    max_lag: int = 5
    shifts: tuple[int, ...] = ()

    @cached_property
    def true(self) -> FaceReadings:
        """The true signals over the measured length."""
        return self.truth.signals.first(self.truth.length)

    @property
    def presence(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.presence_T

    @property
    def mouth(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.mouth_open_T

    @property
    def lip_width(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.lip_width_T

    @property
    def blink(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.blink_T

    @property
    def angles(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.angles_TA

    @property
    def identity(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.identity_TD

    @property
    def structure_mouth(self) -> np.ndarray | None:
        return self.video.structure_mouth_T

    @property
    def true_mouth(self) -> np.ndarray | None:
        return self.true.mouth_open_T

    @property
    def true_lip_width(self) -> np.ndarray | None:
        return self.true.lip_width_T

    @property
    def true_blink(self) -> np.ndarray | None:
        return self.true.blink_T

    @property
    def true_angles(self) -> np.ndarray | None:
        return self.true.angles_TA

    @property
    def reference_identity(self) -> np.ndarray | None:
        return self.truth.reference_identity_D

    @property
    def person_identity(self) -> np.ndarray | None:
        return self.truth.person_identity_D

    @cached_property
    def best_lag(self) -> tuple[Pair, Pair]:
        """Best lag of the mouth and its correlation."""
        return sync.best_lag(self.mouth, self.true_mouth, max_lag=self.max_lag)  # type: ignore[arg-type]

    @cached_property
    def sharpness_T(self) -> np.ndarray:
        return frames.sharpness(self.video.frames_THWC)

    @cached_property
    def true_sharpness_T(self) -> np.ndarray:
        return frames.sharpness(self.truth.frames_THWC)
