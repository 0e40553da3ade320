"""One clip in one row of the table, as metrics see it: its video, what was read from it, and the truth.

Shape suffixes: T pixel frames of the measured length, L >= T pixel frames of the whole clip, A = 3 angles, D identity
features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from df_eval.metrics import frames, sync, syncnet
from df_eval.metrics.frames import FrameValues
from df_eval.metrics.pair import Pair
from df_eval.reading.readings import FaceReadings, Lips

GROUND_TRUTH = "ground truth"
RECONSTRUCTION = "VAE reconstruction"
GENERATED = "generated"
SHIFTED = "shifted audio"
STATIC = "static image"
ROWS = (GROUND_TRUTH, RECONSTRUCTION, GENERATED, SHIFTED, STATIC)
"""Kinds of rows, and the rows of a single run."""


def row_of(kind: str, system: str) -> str:
    """The row of one of several systems that has a control of its own: ``shifted audio: wav2lip``."""
    return f"{kind}: {system}"


def kind_of(row: str) -> str:
    """What kind a row is: one of the controls; the row of any system is `GENERATED`."""
    kind = row.partition(": ")[0]
    return kind if kind in ROWS else GENERATED


@dataclass(frozen=True)
class Truth:
    """The true clip: frames of the measured length, and signals over the whole clip (for the shifted control).

    ``reference_identity_D`` was read from the reference image, ``person_identity_D`` is the mean read from the
    whole true video. ``other_mouths`` are the true mouth openings of the other clips, from their beginnings; None: not
    known yet.
    ``silent_T`` says which frames lie in silence, over the whole clip; ``lpips`` compares frames with true frames
    ([T, H, W, 3] uint8 each) and gives their distances [T]. ``values`` holds what was computed of the frames.
    """

    frames_THWC: np.ndarray
    signals: FaceReadings
    reference_identity_D: np.ndarray | None
    person_identity_D: np.ndarray | None = None
    other_mouths: Sequence[np.ndarray] | None = None
    silent_T: np.ndarray | None = None
    lpips: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    values: FrameValues = field(default_factory=FrameValues, repr=False, compare=False)

    @property
    def length(self) -> int:
        return len(self.frames_THWC)


@dataclass(frozen=True)
class Video:
    """One row's video of a clip, what was read from it, and what its structure stream says of the lips.

    ``values`` holds what was computed of its frames, alone and beside the clip's truth, for all its beginnings.
    """

    frames_THWC: np.ndarray
    readings: FaceReadings | None
    structure_lips: Lips | None = None
    values: FrameValues = field(default_factory=FrameValues, repr=False, compare=False)

    @property
    def sharpness_T(self) -> np.ndarray:
        return self.values.first("sharpness", len(self.frames_THWC), lambda: frames.sharpness(self.frames_THWC))

    def first(self, count: int) -> Video:
        """Its first frames."""
        return Video(
            self.frames_THWC[:count],
            self.readings and self.readings.first(count),
            self.structure_lips and self.structure_lips.first(count),
            self.values,
        )


OF_STRUCTURE = {"structure_mouth": "mouth opening", "structure_lip_width": "lip width"}
"""What :class:`Seen` has of a structure stream, in words."""


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
    def lips(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.lips_TK2

    @property
    def brow(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.brow_T

    @property
    def true_brow(self) -> np.ndarray | None:
        return self.true.brow_T

    @property
    def gaze(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.gaze_T2

    @property
    def true_gaze(self) -> np.ndarray | None:
        return self.true.gaze_T2

    @property
    def expression(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.expression_TK2

    @property
    def true_expression(self) -> np.ndarray | None:
        return self.true.expression_TK2

    @property
    def flame(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.flame_TD

    @property
    def true_flame(self) -> np.ndarray | None:
        return self.true.flame_TD

    @property
    def look(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.look_T2

    @property
    def true_look(self) -> np.ndarray | None:
        return self.true.look_T2

    @property
    def quality(self) -> np.ndarray | None:
        return None if self.video.readings is None else self.video.readings.quality_T

    @property
    def theval(self) -> np.ndarray | None:
        """THEval's measures of the landmarks."""
        return None if self.video.readings is None else self.video.readings.theval_TM

    @property
    def speech(self) -> np.ndarray | None:
        """Where the true sound is speech."""
        return self.true.speech_T

    @property
    def volume(self) -> np.ndarray | None:
        """Of the true sound."""
        return self.true.volume_T

    @property
    def seen(self) -> np.ndarray | None:
        """SyncNet's vectors of the pixels."""
        return None if self.video.readings is None else self.video.readings.seen_TD

    @property
    def heard(self) -> np.ndarray | None:
        """SyncNet's vectors of the true sound."""
        return self.true.heard_TD

    @property
    def true_lips(self) -> np.ndarray | None:
        return self.true.lips_TK2

    @property
    def true_eyes(self) -> np.ndarray | None:
        return self.true.eyes_T

    @property
    def silent(self) -> np.ndarray | None:
        return None if self.truth.silent_T is None else self.truth.silent_T[: self.truth.length]

    @property
    def structure_mouth(self) -> np.ndarray | None:
        return self.video.structure_lips and self.video.structure_lips.opening_T

    @property
    def structure_lip_width(self) -> np.ndarray | None:
        return self.video.structure_lips and self.video.structure_lips.width_T

    @property
    def true_mouth(self) -> np.ndarray | None:
        return self.true.mouth_open_T

    @property
    def other_mouths(self) -> Sequence[np.ndarray] | None:
        return self.truth.other_mouths

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
    def sync(self) -> tuple[Pair, Pair, Pair]:
        """Sync-C, Sync-D and offset."""
        return syncnet.sync_scores(self.seen, self.heard)  # type: ignore[arg-type]

    @cached_property
    def shifted_sync(self) -> tuple[Pair, Pair, Pair]:
        """The same against the sound taken later."""
        return syncnet.shifted_scores(self.seen, self.truth.signals.heard_TD, self.shifts)  # type: ignore[arg-type]

    @cached_property
    def lpips(self) -> Pair | None:
        """Mean LPIPS to the true frames."""
        compare = self.truth.lpips
        return None if compare is None else Pair(float(self._beside_truth("lpips", compare).mean()))

    @property
    def sharpness_T(self) -> np.ndarray:
        return self.video.sharpness_T

    @property
    def true_sharpness_T(self) -> np.ndarray:
        true_THWC = self.truth.frames_THWC
        return self.truth.values.first("sharpness", len(true_THWC), lambda: frames.sharpness(true_THWC))

    @property
    def changes_T(self) -> np.ndarray:
        made_THWC = self.video.frames_THWC
        return self.video.values.first("changes", len(made_THWC) - 1, lambda: frames.changes(made_THWC))

    @property
    def true_changes_T(self) -> np.ndarray:
        true_THWC = self.truth.frames_THWC
        return self.truth.values.first("changes", len(true_THWC) - 1, lambda: frames.changes(true_THWC))

    @property
    def second_changes_T(self) -> np.ndarray:
        made_THWC, count = self.video.frames_THWC, max(0, len(self.video.frames_THWC) - 2)
        return self.video.values.first("second changes", count, lambda: frames.second_changes(made_THWC))

    @property
    def squared_errors_T(self) -> np.ndarray:
        return self._beside_truth("squared errors", frames.squared_errors)

    @property
    def similarities_T(self) -> np.ndarray:
        return self._beside_truth("similarities", frames.similarities)

    def _beside_truth(self, name: str, compare: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        made_THWC, true_THWC = self.video.frames_THWC, self.truth.frames_THWC
        return self.video.values.first(name, len(made_THWC), lambda: compare(made_THWC, true_THWC))
