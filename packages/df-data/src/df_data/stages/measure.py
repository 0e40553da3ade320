"""All measures of a cropped clip, in one place: its scores, whether it is refused, and its weight.

Every score stands under its own name and comes from one module: :mod:`~df_data.stages.voice`,
:mod:`~df_data.stages.noise`, :mod:`~df_data.stages.picture`, :mod:`~df_data.stages.sync`,
:mod:`~df_data.stages.occlusion`. A stage that the config switches off leaves its scores out.

Shape legend: T frames, S side of the crop in pixels, N = 640 T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.stages.faces import FaceDetector
from df_data.stages.noise import snr_db
from df_data.stages.occlusion import check_hidden, face_confidences, hidden_share
from df_data.stages.picture import picture_scores
from df_data.stages.quality import QualityFilter, clip_weight
from df_data.stages.readings import Readings
from df_data.stages.sync import check_offset, mouth_sound_offset
from df_data.stages.voice import check_voice, find_voice, silero_vad
from df_data.timing import timed


@dataclass(frozen=True)
class Measured:
    """What was found of a clip that is not refused.

    Attributes:
        scores: by name, everything that was measured.
        weight: sampling weight, 1 halved for every soft fault.
    """

    scores: dict[str, float]
    weight: float


@timed("measures")
def measure(
    frames_TSSC: np.ndarray, wave_N: np.ndarray, readings: Readings, detector: FaceDetector, filters: QualityFilter
) -> Measured:
    """Measure a clip and judge it.

    Everything is measured before anything is refused, so a refused clip's ledger line has all scores too.

    Args:
        frames_TSSC: uint8 RGB crop, 256 pixels a side or more.
        wave_N: float32 sound of those frames, 16 kHz.
        readings: of the same frames, gaps filled.

    Raises:
        Rejected: ``too_little_speech``, ``long_pause``, ``sound_offset``, ``face_hidden``.
        UserError: a stage is switched on whose model or detector is missing.
    """
    scores = _sound_scores(wave_N, filters)
    scores |= picture_scores(frames_TSSC, readings)
    if filters.sync.enabled:
        offset = mouth_sound_offset(readings.mouth_open, wave_N, filters.sync.max_offset)
        scores |= offset.scores() if offset is not None else {}
    if filters.occlusion.enabled:
        confidence = face_confidences(frames_TSSC, detector, filters.occlusion.every)
        scores["face_hidden"] = hidden_share(confidence, filters.occlusion)
    doubtful = _judge(scores, filters)
    return Measured(scores, clip_weight(scores, filters, perhaps_out_of_sync=doubtful))


def _sound_scores(wave_N: np.ndarray, filters: QualityFilter) -> dict[str, float]:
    if not filters.voice.enabled:
        return {}
    voice = find_voice(wave_N, silero_vad(), filters.voice)
    return voice.scores | ({"snr_db": snr_db(wave_N, voice.speech)} if filters.noise.enabled else {})


def _judge(scores: dict[str, float], filters: QualityFilter) -> bool:
    """Refuse, or return whether sound and lips are perhaps apart."""
    if filters.voice.enabled:
        check_voice(scores, filters.voice)
    if filters.occlusion.enabled:
        check_hidden(scores, filters.occlusion)
    return "mouth_sound_offset" in scores and check_offset(scores, filters.sync)
