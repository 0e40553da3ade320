"""Cascade/parallel formant synthesiser at 16 kHz after Klatt, JASA 67 (1980) 971-995.

The voice source is the polynomial pulse of Klatt & Klatt (KLGLOTT88, JASA 87 (1990) 820-857).
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

SAMPLE_RATE = 16000
CONTROL_STEP = 80


@dataclass(frozen=True)
class Controls:
    """Synthesiser controls every 5 ms, each float64 [G].

    ``f0`` Hz; ``voicing``, ``aspiration``, ``frication`` linear amplitudes; ``formants`` [G, 5] and ``bandwidths``
    [G, 5] Hz; ``nasal_zero`` Hz (equal to the nasal pole at 270 Hz means no nasality); ``noise_centre``,
    ``noise_width`` Hz of the frication noise.
    """

    f0: np.ndarray
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    formants: np.ndarray
    bandwidths: np.ndarray
    nasal_zero: np.ndarray
    noise_centre: np.ndarray
    noise_width: np.ndarray


@numba.njit(cache=True)
def _resonator(frequency: float, bandwidth: float) -> tuple[float, float, float]:
    r = np.exp(-np.pi * bandwidth / 16000.0)
    b = 2.0 * r * np.cos(2.0 * np.pi * frequency / 16000.0)
    c = -r * r
    return 1.0 - b - c, b, c


@numba.njit(cache=True)
def _synthesise(
    f0: np.ndarray,
    voicing: np.ndarray,
    aspiration: np.ndarray,
    frication: np.ndarray,
    formants: np.ndarray,
    bandwidths: np.ndarray,
    nasal_zero: np.ndarray,
    noise_centre: np.ndarray,
    noise_width: np.ndarray,
    noise: np.ndarray,
    jitter_noise: np.ndarray,
    jitter: float,
    tilt: float,
    breathiness: float,
    open_quotient: float,
) -> np.ndarray:
    grid = f0.shape[0]
    out = np.zeros(grid * 80)
    state1 = np.zeros(8)
    state2 = np.zeros(8)
    a = np.zeros(8)
    b = np.zeros(8)
    c = np.zeros(8)
    zero1 = 0.0
    zero2 = 0.0
    tilt_state = 0.0
    rumble = 0.0
    phase = 0.0
    period = 0
    stretch = 1.0
    for g in range(grid):
        for k in range(5):
            a[k], b[k], c[k] = _resonator(formants[g, k], bandwidths[g, k])
        a[5], b[5], c[5] = _resonator(270.0, 100.0)
        za, zb, zc = _resonator(nasal_zero[g], 100.0)
        a[6], b[6], c[6] = _resonator(noise_centre[g], noise_width[g])
        w = 2.0 * np.pi * noise_centre[g] / 16000.0
        r = np.exp(-np.pi * noise_width[g] / 16000.0)
        peak = (1.0 - r) * np.sqrt(1.0 - 2.0 * r * np.cos(2.0 * w) + r * r)
        noise_gain = 1.0 / np.sqrt(0.5 * np.pi * noise_width[g] / 16000.0)
        h = min(g + 1, grid - 1)
        for i in range(80):
            u = i / 80.0
            n = g * 80 + i
            av = voicing[g] + u * (voicing[h] - voicing[g])
            ah = aspiration[g] + u * (aspiration[h] - aspiration[g])
            af = frication[g] + u * (frication[h] - frication[g])
            pitch = f0[g] + u * (f0[h] - f0[g])
            phase += pitch * stretch / 16000.0
            if phase >= 1.0:
                phase -= 1.0
                period += 1
                stretch = 1.0 + jitter * jitter_noise[period % jitter_noise.shape[0]]
            source = 0.0
            opened = 0.0
            if phase < open_quotient:
                x = phase / open_quotient
                source = 2.0 * x - 3.0 * x * x
                opened = 1.0
            tilt_state = (1.0 - tilt) * source + tilt * tilt_state
            hiss = noise[n] * (0.45 + 0.55 * opened)
            x = av * (tilt_state + 0.12 * breathiness * hiss) + 0.25 * ah * noise[n]
            y = (x - zb * zero1 - zc * zero2) / za
            zero2 = zero1
            zero1 = x
            x = a[5] * y + b[5] * state1[5] + c[5] * state2[5]
            state2[5] = state1[5]
            state1[5] = x
            for k in range(4, -1, -1):
                x = a[k] * x + b[k] * state1[k] + c[k] * state2[k]
                state2[k] = state1[k]
                state1[k] = x
            e = noise[n] * af
            f = e
            for k in range(6, 8):
                f = peak * f + b[6] * state1[k] + c[6] * state2[k]
                state2[k] = state1[k]
                state1[k] = f
            rumble = 0.97 * rumble + 0.03 * x
            out[n] = x + noise_gain * f + 0.015 * e - 0.5 * rumble
    return out


def synthesise(
    controls: Controls, rng: np.random.Generator, *, jitter: float, tilt: float, breathiness: float
) -> np.ndarray:
    """Waveform float64 [80 * G] of the controls; all noise comes from ``rng``."""
    periods = rng.standard_normal(1024)
    count = len(controls.f0) * CONTROL_STEP
    return _synthesise(
        controls.f0,
        controls.voicing,
        controls.aspiration,
        controls.frication,
        controls.formants,
        controls.bandwidths,
        controls.nasal_zero,
        controls.noise_centre,
        controls.noise_width,
        rng.standard_normal(count),
        periods,
        jitter,
        tilt,
        breathiness,
        0.55 + 0.2 * breathiness,
    )
