"""All measures of a cropped clip, in one place: its scores, whether it is refused, and its weight.

Every score stands under its own name and comes from one module: :mod:`~df_data.stages.voice`,
:mod:`~df_data.stages.noise`, :mod:`~df_data.stages.image`, :mod:`~df_data.stages.sync`,
:mod:`~df_data.stages.occlusion`; those of networks that see the whole image come from
:mod:`~df_data.stages.judges`. A stage that the config switches off leaves its scores out.

Shape legend: T frames, S side of the crop in pixels, N = 640 T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.common.timing import timed
from df_data.stages.faces import FaceDetector
from df_data.stages.image import image_scores
from df_data.stages.judges import Judged
from df_data.stages.noise import snr_db
from df_data.stages.occlusion import check_hidden, face_confidences, hidden_share
from df_data.stages.quality import QualityFilter, clip_weight, soft_faults
from df_data.stages.readings import Readings
from df_data.stages.samples import speech_frames
from df_data.stages.stillness import frozen_frames
from df_data.stages.sync import FileSync, LagCurve, check_sync, lag_curve, verdict
from df_data.stages.voice import check_voice, find_voice, silero_vad

OUT_OF_SYNC = "perhaps_out_of_sync"
SYNC_UNKNOWN = "sync_not_measured"


@dataclass(frozen=True)
class StageMeasures:
    """What was found of a clip that is not refused.

    Attributes:
        scores: by name, everything that was measured.
        faults: names of the soft faults, each of which halves the weight.
        frozen: which frames stand still, bool [T].
        speech: in which somebody speaks, bool [T]; all where no voice was looked for.
    """

    scores: dict[str, float]
    faults: tuple[str, ...]
    frozen: np.ndarray
    speech: np.ndarray

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
    judged: Judged | None = None,
    known: FileSync | None = None,
) -> StageMeasures:
    """Measure a clip and judge it.

    Everything is measured before anything is refused, so a refused clip's ledger line has all scores too.

    Args:
        frames_TSSC: uint8 RGB crop, 256 pixels a side or more.
        wave_N: float32 audio of those frames, 16 kHz.
        readings: of the same frames, gaps filled.
        judged: what the networks said that only judge.
        known: what the file's stretches before this one told of its offset; this one's is added to it.

    Raises:
        Rejected: ``too_little_speech``, ``long_pause``, ``sound_offset``, ``other_speech``, ``face_hidden``.
        UserError: a stage is switched on whose model or detector is missing.
    """
    judged, known = judged or Judged(), known or FileSync()
    num = len(frames_TSSC)
    audio, speech = _audio_scores(wave_N, num, filters)
    scores = audio | judged.scores | image_scores(frames_TSSC, readings)
    frozen = np.zeros(num, dtype=bool)
    if filters.frozen.enabled:
        frozen = frozen_frames(frames_TSSC)
        scores["frozen_share"] = float(frozen.mean())
    curves = {} if judged.sync is None else {"syncnet": judged.sync}
    if filters.sync.enabled:
        curve = lag_curve(readings, wave_N)
        curves |= {} if curve is None else {"mouth_sound": curve}
    if filters.occlusion.enabled:
        confidence = face_confidences(frames_TSSC, detector, filters.occlusion.every)
        scores["face_hidden"] = hidden_share(confidence, filters.occlusion)
    doubt = _judge(scores, filters, curves, known, asked=judged.asked or filters.sync.enabled)
    return StageMeasures(scores, soft_faults(scores, filters) + (() if doubt is None else (doubt,)), frozen, speech)


def _audio_scores(wave_N: np.ndarray, num_frames: int, filters: QualityFilter) -> tuple[dict[str, float], np.ndarray]:
    """Return the scores of the audio, and in which frames somebody speaks."""
    if not filters.voice.enabled:
        return {}, np.ones(num_frames, dtype=bool)
    voice = find_voice(wave_N, silero_vad(), filters.voice)
    noise = {"snr_db": snr_db(wave_N, voice.speech)} if filters.noise.enabled else {}
    return voice.scores | noise, speech_frames(voice.speech, num_frames)


def _judge(
    scores: dict[str, float], filters: QualityFilter, curves: dict[str, LagCurve], known: FileSync, *, asked: bool
) -> str | None:
    """Refuse, or return the doubt about audio and lips: perhaps apart, or that nobody who was asked could tell.

    The first of ``curves`` decides; ``scores`` gets what all of them say.
    """
    said = []
    for name, curve in curves.items():
        own = verdict(curve, filters.sync.max_offset)
        file = verdict(known.together(name, curve), filters.sync.max_offset)
        said.append((own, file))
        scores |= {f"{name}_evidence": own.evidence, f"{name}_file_evidence": file.evidence}
        if name == "mouth_sound":
            scores |= {"mouth_sound_offset": own.offset, "mouth_sound_peak": float(curve.statistic.max())}
    if filters.voice.enabled:
        check_voice(scores, filters.voice)
    if filters.occlusion.enabled:
        check_hidden(scores, filters.occlusion)
    for name, curve in curves.items():  # silence, music and hidden lips say nothing of the file's offset
        known.add(name, curve)
    if not said:
        return SYNC_UNKNOWN if asked else None
    own, file = said[0]
    return OUT_OF_SYNC if check_sync(own, file, filters.sync, scores) else None
