"""Mel-frequency cepstral coefficients exactly as python_speech_features gives them by default.

Source: jameslyons/python_speech_features ``base.py`` and ``sigproc.py``: pre-emphasis 0.97 over the whole signal,
frames of 25 ms every 10 ms with a rectangular window (the last one padded with zeros), squared spectrum of 512 samples
over 512, 26 triangular filters between whole bins from 0 to 8000 Hz, natural logarithm, orthonormal DCT-II, 13
coefficients, sine lifter of 22, and the first coefficient replaced by the logarithm of the frame's energy.

Shape legend: N samples, M frames, K = 257 bins, F = 26 filters, C = 13 coefficients.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from df_models.time import SAMPLE_RATE

WINDOW = 400
HOP = 160
N_FFT = 512
FILTERS = 26
COEFFICIENTS = 13
PRE_EMPHASIS = 0.97
LIFTER = 22
EPSILON = float(np.finfo(np.float64).eps)
"""Stands for an energy of exactly zero."""


def mfcc(wave_N: np.ndarray) -> np.ndarray:
    """Return the coefficients float64 ``[M, C]`` of 16 kHz audio, M = 1 + ceil((N - 400) / 160), at least 1.

    Args:
        wave_N: at least one sample, in any unit; the coefficients depend on it (SyncNet's are of 16-bit integers).
    """
    frames_MW = _frames(np.asarray(wave_N, dtype=np.float64))
    power_MK = np.square(np.abs(np.fft.rfft(frames_MW, N_FFT))) / N_FFT
    energy_M = power_MK.sum(axis=1)
    bands_MF = power_MK @ mel_filters().T
    cepstra_MC = np.log(np.where(bands_MF == 0, EPSILON, bands_MF)) @ _transform()
    cepstra_MC[:, 0] = np.log(np.where(energy_M == 0, EPSILON, energy_M))
    return cepstra_MC


def _frames(wave_N: np.ndarray) -> np.ndarray:
    emphasised = np.concatenate([wave_N[:1], wave_N[1:] - PRE_EMPHASIS * wave_N[:-1]])
    count = 1 + max(0, math.ceil((len(wave_N) - WINDOW) / HOP))
    padded = np.zeros((count - 1) * HOP + WINDOW)
    padded[: len(emphasised)] = emphasised
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]


@cache
def mel_filters() -> np.ndarray:
    """Return the filters float64 ``[F, K]``; their corners are whole bins."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    corners = np.floor((N_FFT + 1) * hertz / SAMPLE_RATE)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(N_FFT // 2 + 1)
    rising = np.where((bins >= low) & (bins < peak), (bins - low) / (peak - low), 0.0)
    falling = np.where((bins >= peak) & (bins < high), (high - bins) / (high - peak), 0.0)
    return rising + falling


@cache
def _transform() -> np.ndarray:
    """Orthonormal DCT-II and lifter in one matrix ``[F, C]``."""
    order = np.arange(COEFFICIENTS)
    cosines = np.cos(np.pi * (np.arange(FILTERS)[:, None] + 0.5) * order / FILTERS) * math.sqrt(2 / FILTERS)
    cosines[:, 0] /= math.sqrt(2)
    return cosines * (1 + LIFTER / 2 * np.sin(np.pi * order / LIFTER))
