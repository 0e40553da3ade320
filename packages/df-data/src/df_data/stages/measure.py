"""All measures of a cropped clip, in one place: its scores, whether it is refused, and its weight.

Every score stands under its own name and comes from one module: :mod:`~df_data.stages.voice`,
:mod:`~df_data.stages.noise`, :mod:`~df_data.stages.image`, :mod:`~df_data.stages.sync`,
:mod:`~df_data.stages.occlusion`; those of networks that see the whole image come from
:mod:`~df_data.stages.judges`. A stage that the config switches off leaves its scores out.

Shape legend: T frames, S side of the crop in pixels, N = 640 T samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from df_data.common.timing import timed
from df_data.stages.faces import FaceDetector
from df_data.stages.image import image_scores
from df_data.stages.lip_sync import check_lip_sync
from df_data.stages.noise import snr_db
from df_data.stages.occlusion import check_hidden, face_confidences, hidden_share
from df_data.stages.quality import QualityFilter, clip_weight, soft_faults
from df_data.stages.readings import Readings
from df_data.stages.sync import check_offset, mouth_sound_offset
from df_data.stages.voice import check_voice, find_voice, silero_vad

OUT_OF_SYNC = "perhaps_out_of_sync"
SYNC_UNKNOWN = "sync_not_measured"


@dataclass(frozen=True)
class StageMeasures:
    """What was found of a clip that is not refused.

    Attributes:
        scores: by name, everything that was measured.
        faults: names of the soft faults, each of which halves the weight.
    """

    scores: dict[str, float]
    faults: tuple[str, ...]

    @property
    def weight(self) -> float:
        """Sampling weight: 1, halved for every soft fault."""
        return clip_weight(self.faults)


@timed("measures")
def measure(
    frames_TSSC: np.ndarray,
    wave_N: np.ndarray,
    readings: Readings,
    detector: FaceDetector,
    filters: QualityFilter,
    judged: Mapping[str, float] | None = None,
    *,
    syncnet: bool = False,
) -> StageMeasures:
    """Measure a clip and judge it.

    Everything is measured before anything is refused, so a refused clip's ledger line has all scores too.

    Args:
        frames_TSSC: uint8 RGB crop, 256 pixels a side or more.
        wave_N: float32 audio of those frames, 16 kHz.
        readings: of the same frames, gaps filled.
        judged: the scores of :meth:`df_data.stages.judges.Judges.scores`.
        syncnet: whether SyncNet is among those judges, even if it could not compare so short a clip.

    Raises:
        Rejected: ``too_little_speech``, ``long_pause``, ``sound_offset``, ``face_hidden``.
        UserError: a stage is switched on whose model or detector is missing.
    """
    scores = _audio_scores(wave_N, filters) | dict(judged or {})
    scores |= image_scores(frames_TSSC, readings)
    if filters.sync.enabled:
        offset = mouth_sound_offset(readings.mouth_open, wave_N, filters.sync.max_offset)
        scores |= offset.scores() if offset is not None else {}
    if filters.occlusion.enabled:
        confidence = face_confidences(frames_TSSC, detector, filters.occlusion.every)
        scores["face_hidden"] = hidden_share(confidence, filters.occlusion)
    doubt = _judge(scores, filters, syncnet=syncnet)
    return StageMeasures(scores, soft_faults(scores, filters) + (() if doubt is None else (doubt,)))


def _audio_scores(wave_N: np.ndarray, filters: QualityFilter) -> dict[str, float]:
    if not filters.voice.enabled:
        return {}
    voice = find_voice(wave_N, silero_vad(), filters.voice)
    return voice.scores | ({"snr_db": snr_db(wave_N, voice.speech)} if filters.noise.enabled else {})


def _judge(scores: dict[str, float], filters: QualityFilter, *, syncnet: bool) -> str | None:
    """Refuse, or return the doubt about audio and lips: perhaps apart, or that nobody who was asked could tell."""
    if filters.voice.enabled:
        check_voice(scores, filters.voice)
    if filters.occlusion.enabled:
        check_hidden(scores, filters.occlusion)
    if "syncnet_offset" in scores:
        return OUT_OF_SYNC if check_lip_sync(scores, filters.lip_sync) else None
    if "mouth_sound_offset" in scores:
        return OUT_OF_SYNC if check_offset(scores, filters.sync) else None
    return SYNC_UNKNOWN if syncnet or filters.sync.enabled else None
