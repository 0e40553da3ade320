"""Speech at the level that a model was trained on.

Shape legend: N samples.
"""

from __future__ import annotations

import logging

import numpy as np

from df_models.errors import UserError
from df_models.media.levels import speech_level

TOLERANCE_DB = 12.0
"""Recordings of all kinds lie within it, so their level is left alone; `docs/results/levels.md` has what a model makes
of others."""

_log = logging.getLogger(__name__)


def levelled(wave_N: np.ndarray, trained_db: float | None) -> np.ndarray:
    """Return speech that is far too quiet or too loud for a model at the model's level, and say so; else as it is.

    Arguments and errors are those of :func:`gain_db`.
    """
    gain = gain_db(wave_N, trained_db)
    return (wave_N * 10 ** (gain / 20)).astype(np.float32) if gain else wave_N


def gain_db(wave_N: np.ndarray, trained_db: float | None) -> float:
    """Return by how much louder a model is to hear speech that is far too quiet or too loud for it, and say so; else 0.

    Where speech is not plainly there (silence, noise, hum) nothing is made louder, and quiet audio is told.

    Args:
        wave_N: mono, 16 kHz.
        trained_db: mean level of the model's training speech (``config.speech_level``); None, where it is not known:
            all audio stays as it is.

    Raises:
        UserError: it is not finite.
    """
    if not np.isfinite(wave_N).all():
        raise UserError("the speech holds values that are no numbers (NaN or infinite)")
    if trained_db is None:
        return 0.0
    found = speech_level(wave_N)
    gain = trained_db - found.level
    if abs(gain) <= TOLERANCE_DB:
        return 0.0
    if not found.plain and gain > 0:
        _log.warning(
            "the audio is very quiet (%.0f dB; the model was trained at %.0f) and not plainly speech: the mouth may "
            "stay shut; give a clean recording",
            found.level,
            trained_db,
        )
        return 0.0
    _log.warning(
        "the speech is at %.0f dB, far from the level that the model was trained at (%.0f): it hears it %.0f dB %s, "
        "and the video carries it as it is",
        found.level,
        trained_db,
        abs(gain),
        "louder" if gain > 0 else "quieter",
    )
    return gain
