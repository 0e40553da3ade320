"""Scores of a prepared clip and the weight that follows from them.

Shape legend: T frames, H height, W width, N samples.
"""

from __future__ import annotations

import numpy as np

from df_data.config import FrozenModel
from df_data.stages.readings import Readings
from df_data.stages.rejection import Rejected


class QualityFilter(FrozenModel):
    """Limits on sound, picture and motion.

    Attributes:
        min_sound_db: least RMS of the sound in dB of full scale; below it the track is silent: rejected.
        min_sound_share: least share of the clip that the sound track covers.
        min_sharpness: blurred below it: weight halved.
        max_yaw: turned further (median of ``|yaw|``, degrees): weight halved.
        min_mouth_std: stiller lips (standard deviation of ``mouth_open``): weight halved.
    """

    min_sound_db: float = -60.0
    min_sound_share: float = 0.95
    min_sharpness: float = 15.0
    max_yaw: float = 45.0
    min_mouth_std: float = 0.004


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


def sharpness(frames_THWC: np.ndarray) -> float:
    """Return the median variance of the Laplacian of the grey picture (0-255), over about ten frames."""
    step = max(1, len(frames_THWC) // 10)
    grey = frames_THWC[::step].astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    return float(np.median(laplacian.var(axis=(1, 2))))


def picture_scores(frames_THWC: np.ndarray, readings: Readings) -> dict[str, float]:
    """Return ``sharpness``, ``brightness`` (0-1), ``mouth_std``, ``yaw_abs`` and ``blink_max`` of a crop."""
    return {
        "sharpness": sharpness(frames_THWC),
        "brightness": float(frames_THWC[::10].mean() / 255),
        "mouth_std": float(np.nanstd(readings.mouth_open)),
        "yaw_abs": float(np.nanmedian(np.abs(readings.yaw))),
        "blink_max": float(np.nanmax(readings.blink)),
    }


def clip_weight(scores: dict[str, float], filters: QualityFilter) -> float:
    """Return the sampling weight: halved for each of blur, a head turned away and still lips."""
    flags = (
        scores["sharpness"] < filters.min_sharpness,
        scores["yaw_abs"] > filters.max_yaw,
        scores["mouth_std"] < filters.min_mouth_std,
    )
    return 0.5 ** sum(flags)
