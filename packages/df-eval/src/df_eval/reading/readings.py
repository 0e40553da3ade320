"""What is read from the pixels of a video, whichever reader did it.

Shape suffixes: T pixel frames, A = 3 angles (yaw, pitch, roll), D features of a network, K landmarks of the lips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

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
        lips_TK2, eyes_T: landmarks of the lips, and the distance of the eyes, in one unit of the image.
        brow_T, gaze_T2, expression_TK2: height of the brows, place of the irises within the eyes, and offsets of moving
            keypoints from the neutral face (`df_eval.reading.face_points`).
        flame_TD, look_T2: FLAME's motion (`df_models.structure.FLAME_MOTION_59`), and the horizontal and vertical angle
            of the gaze in degrees (`df_eval.reading.face_crops`).
        quality_T: how good the face is for recognition (`df_eval.reading.quality`).
        theval_TM: what THEval measures of the landmarks (`df_eval.metrics.theval.Column`).
        speech_T, volume_T: where the sound is speech (bool), and how loud it is (`df_eval.reading.speech`).
        seen_TD, heard_TD: SyncNet's vectors of the five frames that begin here, and of the sound of the 0.2 s that
            begin here; NaN where the clip ends before.
    """

    presence_T: np.ndarray
    mouth_open_T: np.ndarray | None = None
    lip_width_T: np.ndarray | None = None
    blink_T: np.ndarray | None = None
    angles_TA: np.ndarray | None = None
    identity_TD: np.ndarray | None = None
    lips_TK2: np.ndarray | None = None
    eyes_T: np.ndarray | None = None
    brow_T: np.ndarray | None = None
    gaze_T2: np.ndarray | None = None
    expression_TK2: np.ndarray | None = None
    flame_TD: np.ndarray | None = None
    look_T2: np.ndarray | None = None
    quality_T: np.ndarray | None = None
    theval_TM: np.ndarray | None = None
    speech_T: np.ndarray | None = None
    volume_T: np.ndarray | None = None
    seen_TD: np.ndarray | None = None
    heard_TD: np.ndarray | None = None

    def first(self, count: int) -> FaceReadings:
        """The readings of the first ``count`` frames."""
        return self._map(lambda values: values[:count])

    def part(self, which: slice) -> FaceReadings:
        """The readings of some frames in a row."""
        return self._map(lambda values: values[which])

    def repeated(self, count: int) -> FaceReadings:
        """The reading of one frame, held for ``count`` frames."""
        return self._map(lambda values: np.repeat(values[:1], count, axis=0))

    def but(self, other: FaceReadings) -> FaceReadings:
        """These readings, with the other's in place of what it has, except for where a face was found."""
        has = {f.name: v for f in fields(other) if f.name != "presence_T" and (v := getattr(other, f.name)) is not None}
        return replace(self, **has)

    def table(self) -> np.ndarray:
        """What a face's readings are in one vector per frame, frames that were read alone: float64 [n, D]."""
        named = (self.mouth_open_T, self.lip_width_T, self.blink_T, self.angles_TA, self.identity_TD)
        columns = [v.reshape(len(v), -1) for v in named if v is not None]
        table = np.concatenate([np.zeros((len(self.presence_T), 0)), *columns], axis=1).astype(np.float64)
        return table[np.isfinite(table).all(axis=1)]

    def _map(self, change: Callable[[np.ndarray], np.ndarray]) -> FaceReadings:
        changed = {f.name: change(v) for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return FaceReadings(**changed)


class Lips(NamedTuple):
    """What a structure stream says of the lips, each up to offset and scale ``[T]``: how far they part, and how far
    their corners lie from each other (None: it does not say)."""

    opening_T: np.ndarray
    width_T: np.ndarray | None

    def first(self, count: int) -> Lips:
        """Of the first frames."""
        return Lips(self.opening_T[:count], None if self.width_T is None else self.width_T[:count])


def masked(values: np.ndarray, presence_T: np.ndarray) -> np.ndarray:
    """The values as float64 with NaN where no face was found."""
    values = np.array(values, dtype=np.float64)
    values[~presence_T] = np.nan
    return values


def signals_of(truth: dict[str, np.ndarray]) -> FaceReadings:
    """Named true signals as readings; what is not named is None."""
    count = len(next(iter(truth.values()), np.zeros(0)))
    angles = [truth.get(name) for name in ("yaw", "pitch", "roll")]
    complete = [angle for angle in angles if angle is not None]
    return FaceReadings(
        presence_T=np.ones(count, bool),
        mouth_open_T=truth.get("mouth_open"),
        lip_width_T=truth.get("lip_width"),
        blink_T=truth.get("blink"),
        angles_TA=np.stack(complete, axis=1) if len(complete) == 3 else None,
    )
