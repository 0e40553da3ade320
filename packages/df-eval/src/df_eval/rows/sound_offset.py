"""How much later one recording of a sound comes than another.

Shape suffixes: N samples at 16 kHz.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

QUIET = 1e-4
"""Root mean square of full scale below which there is nothing to compare."""


def sound_offset(wave_N: np.ndarray, true_N: np.ndarray) -> tuple[float, float]:
    """By how many samples a sound comes later than the true one, and their correlation there.

    The peak of the cross-correlation over all offsets that leave a quarter of the shorter sound to compare,
    normalised by the energy of what overlaps; (0, 0) if either is silent.
    """
    wave, true = (np.asarray(x, dtype=np.float64) - np.mean(x) for x in (wave_N, true_N))
    if min(np.sqrt(np.mean(wave**2)), np.sqrt(np.mean(true**2))) < QUIET:
        return 0.0, 0.0
    products = signal.correlate(wave, true, method="fft")
    lags = signal.correlation_lags(len(wave), len(true))
    energy = np.sqrt(_overlap_energy(wave, lags, len(true)) * _overlap_energy(true, -lags, len(wave)))
    overlap = np.minimum(len(wave), len(true) + lags) - np.maximum(0, lags)
    enough = (overlap >= min(len(wave), len(true)) / 4) & (energy > QUIET)
    scores = np.where(enough, products / np.maximum(energy, 1e-12), -1.0)
    best = int(np.argmax(scores))
    return float(lags[best]), float(scores[best])


def _overlap_energy(wave: np.ndarray, lags: np.ndarray, other: int) -> np.ndarray:
    """Energy of the part of ``wave`` that overlaps a signal of ``other`` samples which begins at each lag in it."""
    total = np.concatenate([[0.0], np.cumsum(wave**2)])
    return total[np.clip(lags + other, 0, len(wave))] - total[np.clip(lags, 0, len(wave))]
