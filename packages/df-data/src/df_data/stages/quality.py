"""The limits on a clip's sound, picture and motion, and the weight that follows from them.

Shape legend: N samples.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import model_validator

from df_data.config import FrozenModel
from df_data.stages.noise import NoiseFilter
from df_data.stages.occlusion import OcclusionFilter
from df_data.stages.picture import sharpness
from df_data.stages.rejection import Rejected
from df_data.stages.sync import SyncFilter
from df_data.stages.voice import VoiceFilter

__all__ = ["QualityFilter", "check_sound", "clip_weight", "sharpness", "sound_scores"]


class QualityFilter(FrozenModel):
    """Limits on sound, picture and motion. Sound and covered faces are refused; the rest halves the weight, each.

    Attributes:
        min_sound_db: least RMS of the sound in dB of full scale; below it the track is silent: rejected.
        min_sound_share: least share of the clip that the sound track covers.
        voice: how much must be speech.
        noise: when sound is noisy.
        sync: when sound and lips are apart.
        occlusion: when the face counts as covered.
        min_sharpness: blurred below it (variance of the Laplacian of the crop): weight halved; none: never.
        min_brightness, max_brightness: darker or brighter (mean grey value, 0 to 1): weight halved; none: never.
        max_yaw: turned further (median of ``|yaw|``, degrees): weight halved; none: never.
        min_mouth_std: stiller lips (standard deviation of ``mouth_open``): weight halved; none: never.
    """

    min_sound_db: float = -60.0
    min_sound_share: float = 0.95
    voice: VoiceFilter = VoiceFilter()
    noise: NoiseFilter = NoiseFilter()
    sync: SyncFilter = SyncFilter()
    occlusion: OcclusionFilter = OcclusionFilter()
    min_sharpness: float | None = 15.0
    min_brightness: float | None = 0.12
    max_brightness: float | None = 0.85
    max_yaw: float | None = 45.0
    min_mouth_std: float | None = 0.004

    @model_validator(mode="after")
    def _noise_is_told_from_voice(self) -> Self:
        if self.noise.enabled and not self.voice.enabled:
            raise ValueError("noise needs voice: set noise.enabled=false too, or voice.enabled=true")
        return self


def sound_scores(wave_N: np.ndarray, sound_share: float) -> dict[str, float]:
    """Return ``sound_db`` (RMS in dB of full scale, at least -120) and ``sound_share``."""
    rms = float(np.sqrt(np.mean(np.square(wave_N, dtype=np.float64)))) if len(wave_N) else 0.0
    return {"sound_db": 20 * float(np.log10(max(rms, 1e-6))), "sound_share": sound_share}


def check_sound(scores: dict[str, float], filters: QualityFilter) -> None:
    """Refuse silent and cut-off sound.

    Raises:
        Rejected: ``silent_sound_track``, ``sound_too_short``.
    """
    if scores["sound_db"] < filters.min_sound_db:
        raise Rejected("silent_sound_track", f"the sound's level is {scores['sound_db']:.0f} dB", scores)
    if scores["sound_share"] < filters.min_sound_share:
        raise Rejected("sound_too_short", f"sound covers {scores['sound_share']:.0%} of the clip", scores)


def clip_weight(scores: dict[str, float], filters: QualityFilter, *, perhaps_out_of_sync: bool = False) -> float:
    """Return the sampling weight: halved for each soft fault that the scores show.

    Faults are blur, too dark or too bright, a head turned away, still lips, noise, and a doubtful sound offset.
    """
    bounds = (
        ("sharpness", filters.min_sharpness, None),
        ("brightness", filters.min_brightness, filters.max_brightness),
        ("yaw_abs", None, filters.max_yaw),
        ("mouth_std", filters.min_mouth_std, None),
        ("snr_db", filters.noise.min_snr_db if filters.noise.enabled else None, None),
    )
    faults = sum(
        (low is not None and scores[name] < low) or (high is not None and scores[name] > high)
        for name, low, high in bounds
    )
    return 0.5 ** (faults + perhaps_out_of_sync)
