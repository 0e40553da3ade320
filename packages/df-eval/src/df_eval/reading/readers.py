"""The readers of pixels behind one protocol, chosen by what the pixels show: rendered faces or real ones.

Shape suffixes: T pixel frames, H W height and width, D structure features.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from df_data.format.manifest import SYNTHETIC, source_of
from df_eval.clips import EvalClip
from df_eval.config import ReadersConfig
from df_eval.metrics import CATALOG, SETS
from df_eval.reading.readings import FaceReadings, Lips, masked, signals_of
from df_eval.reading.real import RealFaceReader
from df_models.structure import FLAME_MOTION_59, StructureLayout

PRESENT = 0.5
"""The synthetic reader's presence from which a frame counts as a face."""

MEDIAPIPE = "mediapipe"
OF_ANY_PIXELS = ("i3d", "cd_i3d", "inception", "lpips")
"""The files that a rendered face is measured with as well: they know nothing of faces."""


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

    def structure_lips(self, structure_TD: np.ndarray) -> Lips | None:
        """What a structure stream says of the lips; None: it cannot be decoded."""
        ...


def lips_of_structure(structure_TD: np.ndarray, layout: StructureLayout | None, reader: FaceReader) -> Lips | None:
    """What a structure stream says of the lips; None: it cannot be decoded.

    The motion part of FLAME has their opening by name, the jaw's turn about its axis, and their width in none of its
    entries; other vectors are their encoder's to read.
    """
    if structure_TD.shape[-1] == 0:
        return None  # of a model without structure
    if source_of(layout) == "flame":
        return Lips(structure_TD[:, FLAME_MOTION_59.slice("jaw")][:, 0].astype(np.float64), None)
    return reader.structure_lips(structure_TD)


def lips_of(expression_TK3: np.ndarray, names: list[str]) -> Lips:
    """How far the inner lower lip's keypoint lies below the upper lip's, and how far the corners of the mouth lie
    apart, relative to the face at rest.

    Args:
        expression_TK3: offsets of the keypoints in the head's own axes, y down.
        names: of the K keypoints.
    """
    lower, upper = names.index("lower_lip_inner"), names.index("upper_lip_inner")
    gap_T = expression_TK3[:, lower, 1] - expression_TK3[:, upper, 1]
    width_T = expression_TK3[:, names.index("mouth_right"), 0] - expression_TK3[:, names.index("mouth_left"), 0]
    return Lips(gap_T.astype(np.float64), width_T.astype(np.float64))


def synthetic_lips(structure_TD: np.ndarray) -> Lips:
    """The lips of the synthetic corpus's structure vectors, freed of the pose."""
    from df_data.synth.head.keypoints import KEYPOINTS
    from df_data.synth.head.structure import canonical_expression

    return lips_of(canonical_expression(structure_TD), [group[0] for group in KEYPOINTS])


def mediapipe_lips(structure_TD: np.ndarray) -> Lips:
    """The lips of structure vectors named `mediapipe`, freed of the pose."""
    from df_data.stages.readings import KEYPOINTS
    from df_data.synth.head.structure import canonical_expression

    return lips_of(canonical_expression(structure_TD), list(KEYPOINTS))


class SyntheticFaceReader:
    """The exact reader of the synthetic corpus (`df_data.synth.reader.reader`)."""

    id = "synthetic reader"
    truth_note = "exact: the values that the face was rendered with"
    unavailable = {  # noqa: RUF012
        spec.name: "the synthetic reader reads values of its rendered faces, no landmarks and no real faces"
        for spec in (*CATALOG, *SETS)
        if {"lips", "seen", "brow", "gaze", "expression", "flame", "look", "quality", "theval"} & set(spec.needs)
    }

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

    def structure_lips(self, structure_TD: np.ndarray) -> Lips:
        return synthetic_lips(structure_TD)


def choose_reader(
    structure_encoder: str, files: ReadersConfig, stored_by: str = "", no_landmarker: str = ""
) -> FaceReader:
    """The exact reader for the synthetic corpus; for all other pixels the networks whose files are given.

    Args:
        structure_encoder: id of what made the dataset's structure.
        stored_by: SHA-256 of the landmarker whose readings the dataset stores, if any.
        no_landmarker: why no landmarker is given, if that is known.

    Raises:
        UserError: a file that is given is not there, or is another network.
    """
    if structure_encoder == SYNTHETIC:
        return SyntheticFaceReader()
    decode = mediapipe_lips if structure_encoder == MEDIAPIPE else None
    return RealFaceReader(files, structure_encoder, decode, stored_by, no_landmarker)
