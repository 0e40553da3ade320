"""The readers of pixels, one per structure encoder, behind one protocol.

Shape suffixes: T pixel frames, H W height and width, D structure features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from df_data.format.manifest import SYNTHETIC, source_of
from df_eval.clips import EvalClip
from df_eval.metrics import CATALOG
from df_eval.readings import FaceReadings, masked
from df_models.errors import UserError
from df_models.structure import FLAME_MOTION_59, StructureLayout

PRESENT = 0.5
"""The synthetic reader's presence from which a frame counts as a face."""

MEDIAPIPE = "mediapipe"


class FaceReader(Protocol):
    """Reads faces from pixels, and knows the truth of its corpus.

    Attributes:
        id: shown in the report.
        unavailable: metrics that this reader or corpus cannot give, with the reason.
        truth_note: what "truth" means with this reader.
    """

    id: str
    unavailable: dict[str, str]
    truth_note: str

    def read(self, frames_THWC: np.ndarray) -> FaceReadings | None:
        """Read uint8 frames of one person; None if nothing can be read."""
        ...

    def truth(self, clip: EvalClip) -> FaceReadings:
        """The true signals over the whole clip."""
        ...

    def structure_mouth(self, structure_TD: np.ndarray) -> np.ndarray | None:
        """Mouth opening decoded from a structure stream, up to offset and scale: [T]."""
        ...


def mouth_of_structure(
    structure_TD: np.ndarray, layout: StructureLayout | None, reader: FaceReader
) -> np.ndarray | None:
    """Mouth opening decoded from a structure stream, up to offset and scale: [T]; None: it cannot be.

    The motion part of FLAME has it by name, the jaw's turn about its axis; other vectors are their encoder's to read.
    """
    if structure_TD.shape[-1] == 0:
        return None  # of a model without structure
    if source_of(layout) == "flame":
        return structure_TD[:, FLAME_MOTION_59.slice("jaw")][:, 0].astype(np.float64)
    return reader.structure_mouth(structure_TD)


def lip_gap(expression_TK3: np.ndarray, names: list[str]) -> np.ndarray:
    """How far the inner lower lip's keypoint lies below the upper lip's, relative to the face at rest: [T].

    Args:
        expression_TK3: offsets of the keypoints in the head's own axes, y down.
        names: of the K keypoints.
    """
    lower, upper = names.index("lower_lip_inner"), names.index("upper_lip_inner")
    return (expression_TK3[:, lower, 1] - expression_TK3[:, upper, 1]).astype(np.float64)


def synthetic_mouth(structure_TD: np.ndarray) -> np.ndarray:
    """The lip gap of the synthetic corpus's structure vectors, freed of the pose: [T]."""
    from df_data.synth.head.keypoints import KEYPOINTS
    from df_data.synth.head.structure import canonical_expression

    return lip_gap(canonical_expression(structure_TD), [group[0] for group in KEYPOINTS])


def mediapipe_mouth(structure_TD: np.ndarray) -> np.ndarray:
    """The lip gap of structure vectors named `mediapipe`, freed of the pose: [T]."""
    from df_data.stages.readings import KEYPOINTS
    from df_data.synth.head.structure import canonical_expression

    return lip_gap(canonical_expression(structure_TD), list(KEYPOINTS))


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


class SyntheticFaceReader:
    """The exact reader of the synthetic corpus (`df_data.synth.reader.reader`)."""

    id = "synthetic reader"
    truth_note = "exact: the values that the face was rendered with"
    unavailable: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        from df_data.synth.reader import load_reader

        self._reader = load_reader()

    def read(self, frames_THWC: np.ndarray) -> FaceReadings:
        found = self._reader.read(frames_THWC)
        present = np.asarray(found.presence) >= PRESENT
        angles = np.stack([np.asarray(angle) for angle in (found.yaw, found.pitch, found.roll)], axis=1)
        return FaceReadings(
            presence_T=present,
            mouth_open_T=masked(found.mouth_open, present),
            lip_width_T=masked(found.lip_width, present),
            blink_T=masked(found.blink, present),
            angles_TA=masked(angles, present),
            identity_TD=masked(found.identity, present),
        )

    def truth(self, clip: EvalClip) -> FaceReadings:
        return signals_of(clip.truth)

    def structure_mouth(self, structure_TD: np.ndarray) -> np.ndarray:
        return synthetic_mouth(structure_TD)


class MediaPipeFaceReader:
    """MediaPipe's face landmarker (`df_data.stages.landmarks`), for runs whose structure was read with it."""

    id = MEDIAPIPE
    truth_note = "what the face landmarker read from the original video when the dataset was built"

    def __init__(self, task: Path) -> None:
        from df_data.stages.landmarker import MediaPipeReader

        self._reader = MediaPipeReader(task)
        reason = "the face landmarker gives no identity vector"
        self.unavailable = {spec.name: reason for spec in CATALOG if spec.group == "identity"}

    def read(self, frames_THWC: np.ndarray) -> FaceReadings:
        found = self._reader.read(frames_THWC)
        present = np.asarray(found.detected).astype(bool)
        angles = np.stack([found.yaw, found.pitch, found.roll], axis=1)
        return FaceReadings(
            presence_T=present,
            mouth_open_T=masked(found.mouth_open, present),
            lip_width_T=masked(found.lip_width, present),
            blink_T=masked(found.blink, present),
            angles_TA=masked(angles, present),
        )

    def truth(self, clip: EvalClip) -> FaceReadings:
        return signals_of(clip.truth)

    def structure_mouth(self, structure_TD: np.ndarray) -> np.ndarray:
        return mediapipe_mouth(structure_TD)


class NoReader:
    """For structure encoders without a reader: only the pixel metrics remain, the others say why they are missing."""

    def __init__(self, encoder: str) -> None:
        reason = f"df-eval has no reader of pixels for the structure encoder '{encoder}'"
        self.id, self.truth_note = "none", reason
        pixel_groups = ("motion", "image")
        self.unavailable = {spec.name: reason for spec in CATALOG if spec.group not in pixel_groups}

    def read(self, frames_THWC: np.ndarray) -> None:
        return None

    def truth(self, clip: EvalClip) -> FaceReadings:
        return signals_of(clip.truth)

    def structure_mouth(self, structure_TD: np.ndarray) -> np.ndarray | None:
        return None


def choose_reader(structure_encoder: str, landmarker: Path | None) -> FaceReader:
    """The reader that belongs to the dataset's structure encoder.

    Raises:
        UserError: the MediaPipe landmarker is needed and its file was not given.
    """
    if structure_encoder == SYNTHETIC:
        return SyntheticFaceReader()
    if structure_encoder == MEDIAPIPE:
        if landmarker is None:
            raise UserError(
                "this run's structure was read with MediaPipe; give its file: landmarker=PATH/face_landmarker.task"
            )
        return MediaPipeFaceReader(landmarker)
    return NoReader(structure_encoder)
