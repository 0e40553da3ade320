"""Speech at a level that models were trained on.

Shape legend: N samples.
"""

from __future__ import annotations

import logging

import numpy as np

from df_models.errors import UserError
from df_models.media.levels import speech_level

TARGET_DB = -19.6
"""Mean level of the synthetic corpus (:mod:`df_models.media.levels`); GRID's is 4 dB higher. A dataset's own is in
`df-data stats` (`speech_level`)."""
TOLERANCE_DB = 12.0
"""Recordings of all kinds lie within it, so their level is left alone; `docs/results/levels.md` has what a model makes
of others."""

_log = logging.getLogger(__name__)


def levelled(wave_N: np.ndarray) -> np.ndarray:
    """Return speech that is far too quiet or too loud at :data:`TARGET_DB`, and say so; all else as it is.

    Where speech is not plainly there (silence, noise, hum) nothing is made louder, and quiet audio is told.

    Args:
        wave_N: mono, 16 kHz.

    Raises:
        UserError: it is not finite.
    """
    if not np.isfinite(wave_N).all():
        raise UserError("the speech holds values that are no numbers (NaN or infinite)")
    found = speech_level(wave_N)
    gain = TARGET_DB - found.level
    if abs(gain) <= TOLERANCE_DB:
        return wave_N
    if not found.plain and gain > 0:
        _log.warning(
            "the audio is very quiet (%.0f dB; models hear about %.0f) and not plainly speech: the mouth may stay "
            "shut; give a clean recording",
            found.level,
            TARGET_DB,
        )
        return wave_N
    _log.warning(
        "the speech is at %.0f dB, far from what models hear (%.0f): this one hears it %.0f dB %s, and the video "
        "carries it as it is",
        found.level,
        TARGET_DB,
        abs(gain),
        "louder" if gain > 0 else "quieter",
    )
    return (wave_N * 10 ** (gain / 20)).astype(np.float32)
