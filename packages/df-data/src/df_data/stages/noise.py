"""Noise beside the speech: the signal-to-noise ratio of a clip's audio, with no clean copy to compare with.

``snr_db`` is the mean energy of the windows with speech, less the noise's, against the noise's. The noise's energy is
the lower quartile of the pauses' windows, so that breath and faint speech in a pause do not count as noise; where
fewer than ``MIN_PAUSES`` windows are pause, the lowest twentieth of all windows, which lie in the closures of stops.

Measured on synthetic speech (30 voices, 3 s each) with white and with pink noise of 0, 5, 10, 15, 20 and 30 dB below
the speech: nine clips in ten are within 3 dB of the truth at 0 dB and within 2 dB from 5 dB on. Noise that comes and
goes is seen as far as it audio in the pauses. WADA-SNR (Kim and Stern, Interspeech 2008), which needs no pauses, was
off by up to 5 dB at 15 dB and 10 dB at 30 dB on such clips, so it is not used. A recording's own noise counts: GRID's
clips have 17 to 36 dB.

Shape legend: N samples at 16 kHz, W = ceil(N / 512) windows of 32 ms.
"""

from __future__ import annotations

import numpy as np

from df_data.stages.voice import WINDOW
from df_models.settings import FrozenModel

MIN_PAUSES = 5
"""Fewer windows of 32 ms are no pause to measure noise in."""
PAUSE_QUANTILE = 0.25
"""Of the pauses' energies: the lowest quarter, to leave out breaths and ends of words."""
QUIET_QUANTILE = 0.05
"""Where nobody pauses: the closures of stops, about a twentieth of speech."""
LIMIT_DB = 60.0
"""Beyond this there is no noise, or no speech, to speak of: 16-bit audio ends there."""
SILENCE = 1e-10
"""Least energy of a window: digital silence counts as noise of -100 dB of full scale."""


class NoiseFilter(FrozenModel):
    """When audio is noisy.

    Attributes:
        enabled: off, the score ``snr_db`` does not exist. It needs the voice stage.
        min_snr_db: noisier than this: weight halved.
    """

    enabled: bool = True
    min_snr_db: float = 10.0


def window_energy(wave_N: np.ndarray) -> np.ndarray:
    """Return the mean square of each window of 512 samples, float64 ``[W]``; the last one's of the samples it has."""
    starts = np.arange(0, len(wave_N), WINDOW)
    sums = np.add.reduceat(np.square(wave_N, dtype=np.float64), starts) if len(starts) else np.zeros(0)
    return np.maximum(sums / np.minimum(WINDOW, len(wave_N) - starts), SILENCE)


def snr_db(wave_N: np.ndarray, speech_W: np.ndarray) -> float:
    """Return the signal-to-noise ratio in dB, within +-60; -60 where no window has speech.

    Args:
        speech_W: bool, the windows with speech (:func:`df_data.stages.voice.find_voice`).
    """
    energy_W = window_energy(wave_N)
    if not speech_W.any():
        return -LIMIT_DB
    pauses = energy_W[~speech_W]
    few = len(pauses) < MIN_PAUSES
    noise = np.quantile(energy_W, QUIET_QUANTILE) if few else np.quantile(pauses, PAUSE_QUANTILE)
    ratio = energy_W[speech_W].mean() / noise - 1
    return float(np.clip(10 * np.log10(max(ratio, 1e-6)), -LIMIT_DB, LIMIT_DB))
