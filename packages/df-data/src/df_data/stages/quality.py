"""The limits on a clip's audio, image and motion, and the weight that follows from them.

Shape legend: N samples.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Self

import numpy as np
from pydantic import model_validator

from df_data.stages.image import sharpness
from df_data.stages.noise import NoiseFilter
from df_data.stages.occlusion import OcclusionFilter
from df_data.stages.rejection import Rejected
from df_data.stages.stillness import FrozenFilter
from df_data.stages.sync import SyncFilter
from df_data.stages.voice import VoiceFilter
from df_models.media.levels import speech_level
from df_models.settings import FrozenModel

__all__ = ["QualityFilter", "audio_scores", "check_audio", "clip_weight", "sharpness", "soft_faults"]


class QualityFilter(FrozenModel):
    """Limits on audio, image and motion. Audio and covered faces are refused; the rest halves the weight, each.

    Attributes:
        min_sound_db: least RMS of the audio in dB of full scale; below it the track is silent: rejected.
        min_sound_share: least share of the clip that the audio track covers.
        voice: how much must be speech.
        noise: when audio is noisy.
        sync: when audio and lips are apart, by the lips' own measure or, where its weights are given, by SyncNet.
        occlusion: when the face counts as covered.
        frozen: when a sample's picture stands still.
        min_sharpness: blurred below it (variance of the Laplacian of the crop): weight halved; none: never.
        min_brightness, max_brightness: darker or brighter (mean grey value, 0 to 1): weight halved; none: never.
        max_yaw: turned further (median of ``|yaw|``, degrees): weight halved; none: never.
        min_mouth_std: stiller lips (standard deviation of ``mouth_open``, of the stretch, or of a sample where somebody
            speaks): weight halved; none: never.
        max_pose_disagreement: pose network and landmarker further apart (``head_pose_disagreement``, degrees): weight
            halved; none: never. It needs ``models.head_pose``.
    """

    min_sound_db: float = -60.0
    min_sound_share: float = 0.95
    voice: VoiceFilter = VoiceFilter()
    noise: NoiseFilter = NoiseFilter()
    sync: SyncFilter = SyncFilter()
    occlusion: OcclusionFilter = OcclusionFilter()
    frozen: FrozenFilter = FrozenFilter()
    min_sharpness: float | None = 15.0
    min_brightness: float | None = 0.12
    max_brightness: float | None = 0.85
    max_yaw: float | None = 45.0
    min_mouth_std: float | None = 0.004
    max_pose_disagreement: float | None = None

    @model_validator(mode="after")
    def _noise_is_told_from_voice(self) -> Self:
        if self.noise.enabled and not self.voice.enabled:
            raise ValueError("noise needs voice: set noise.enabled=false too, or voice.enabled=true")
        return self


def audio_scores(wave_N: np.ndarray, sound_share: float) -> dict[str, float]:
    """Return ``sound_db`` (RMS in dB of full scale, at least -120), ``sound_share``, and level and range of the speech
    (:func:`df_models.media.levels.speech_level`)."""
    rms = float(np.sqrt(np.mean(np.square(wave_N, dtype=np.float64)))) if len(wave_N) else 0.0
    return {"sound_db": 20 * float(np.log10(max(rms, 1e-6))), "sound_share": sound_share} | speech_level(
        wave_N
    ).scores()


def check_audio(scores: dict[str, float], filters: QualityFilter) -> None:
    """Refuse silent and cut-off audio.

    Raises:
        Rejected: ``silent_sound_track``, ``sound_too_short``.
    """
    if scores["sound_db"] < filters.min_sound_db:
        raise Rejected("silent_sound_track", f"the audio's level is {scores['sound_db']:.0f} dB", scores)
    if scores["sound_share"] < filters.min_sound_share:
        raise Rejected("sound_too_short", f"audio covers {scores['sound_share']:.0%} of the clip", scores)


def soft_faults(scores: Mapping[str, float], filters: QualityFilter) -> tuple[str, ...]:
    """Return the names of the soft faults that the scores show: each of them halves the weight."""
    bounds = (
        ("blurred", "sharpness", filters.min_sharpness, None),
        ("too_dark", "brightness", filters.min_brightness, None),
        ("too_bright", "brightness", None, filters.max_brightness),
        ("head_turned", "yaw_abs", None, filters.max_yaw),
        ("still_lips", "mouth_std", filters.min_mouth_std, None),
        ("noisy", "snr_db", filters.noise.min_snr_db if filters.noise.enabled else None, None),
        ("doubtful_head_pose", "head_pose_disagreement", None, filters.max_pose_disagreement),
    )
    return tuple(
        fault
        for fault, name, low, high in bounds
        if (low is not None and scores[name] < low) or (high is not None and scores[name] > high)
    )


def clip_weight(faults: Collection[str]) -> float:
    """Return the sampling weight: 1, halved for each soft fault."""
    return 0.5 ** len(faults)
