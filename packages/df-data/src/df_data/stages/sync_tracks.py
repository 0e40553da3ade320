"""What of lips and audio goes together: a few pairs of tracks, one of the lips and one of the audio each.

The lips give eleven tracks (opening, jaw, width, and :data:`df_data.stages.readings.LIP_SHAPES`), the audio its level
in seven bands, all at 50 Hz. Each loses its slow part (a Gaussian of 0.2 s: the rhythm of sentences fits at any offset)
and is scaled to deviation 1 within the stretch. The pairs are the first four of a canonical correlation analysis
(Hotelling 1936) of the tracks, each seen at five moments within +-80 ms: weighted sums of the lips that go best with
weighted sums of the audio. Their weights, with what correlations are worth as evidence (:mod:`df_data.stages.sync`),
stand in ``sync_fit.json``; ``uv run python -m benchmarks.stages.fit_sync`` makes that file, which names the people.

Shape legend: T frames at 25 Hz, N samples at 16 kHz, M = 2 T - 1 steps of 20 ms, V tracks of the lips, B bands,
O moments, K pairs.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from df_data.stages.readings import Readings
from df_models.time import FPS, SAMPLE_RATE

STEP_S = 0.02
"""Resolution of an offset: half a frame."""
STEPS_A_FRAME = round(1 / FPS / STEP_S)
BANDS_HZ = (100.0, 300.0, 550.0, 1000.0, 1750.0, 3000.0, 5000.0, 7500.0)
WINDOW_S = 0.032
"""Of the loudness: two periods of a low voice."""
FLOOR_DB = 50.0
"""Audio further than this below the band's loudest is silence."""
SLOW_S = 0.2
MOMENTS = (-4, -2, 0, 2, 4)
"""Steps around each at which the tracks are seen."""
LEAST_MOVED = 1e-9
FIT = Path(__file__).with_name("sync_fit.json")


@dataclass(frozen=True)
class SyncFit:
    """What was fitted.

    Attributes:
        lips: float64 [O * V, K]; audio: float64 [O * B, K].
        weights: of the pairs' correlations in the statistic, float64 [K].
        mean, spread: of the statistic where lips and audio are one moment's, over people and for a long stretch.
        noise: its deviation over one second of what does not belong together; over n seconds a root of n less.
    """

    lips: np.ndarray
    audio: np.ndarray
    weights: np.ndarray
    mean: float
    spread: float
    noise: float


@cache
def sync_fit() -> SyncFit:
    """Return the fit that is part of this package."""
    held: dict[str, Any] = json.loads(FIT.read_text())
    lips, audio, weights = (np.array(held[name]) for name in ("lips", "audio", "weights"))
    return SyncFit(lips, audio, weights, held["mean"], held["spread"], held["noise"])


def lip_tracks(readings: Readings) -> np.ndarray:
    """Return the tracks of the lips, float64 ``[M, V]``; what nobody read is 0, and so is what does not move."""
    num = len(readings.mouth_open)
    shapes = np.zeros((num, 8)) if readings.lip_shapes is None else readings.lip_shapes
    seen_TV = np.column_stack([readings.mouth_open, readings.jaw_open, readings.lip_width, shapes])
    at = np.arange(STEPS_A_FRAME * (num - 1) + 1) / STEPS_A_FRAME
    fine_MV = np.stack([np.interp(at, np.arange(num), track) for track in seen_TV.T], axis=1)
    return _scaled(without_slow_part(fine_MV))


def audio_tracks(wave_N: np.ndarray, num_steps: int) -> np.ndarray:
    """Return the tracks of the audio, float64 ``[M, B]``."""
    return _scaled(without_slow_part(band_levels(wave_N, num_steps)))


def at_moments(tracks_MV: np.ndarray) -> np.ndarray:
    """Return each step with those around it, float64 ``[M, O * V]``; beyond the ends the last one stays."""
    steps = np.arange(len(tracks_MV))
    return np.concatenate([tracks_MV[np.clip(steps + by, 0, len(steps) - 1)] for by in MOMENTS], axis=1)


def band_levels(wave_N: np.ndarray, num_steps: int) -> np.ndarray:
    """Return each band's level in dB at every step, float64 ``[M, B]``; 50 dB below its loudest all is level."""
    size, hop = round(WINDOW_S * SAMPLE_RATE), round(STEP_S * SAMPLE_RATE)
    padded = np.zeros(size + num_steps * hop)
    held = wave_N[: len(padded) - size // 2]
    padded[size // 2 : size // 2 + len(held)] = held
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[: num_steps * hop : hop]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)))
    edges = np.searchsorted(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), BANDS_HZ)
    energy = np.stack([power[:, a:b].sum(axis=1) for a, b in itertools.pairwise(edges)], axis=1)
    levels = 10 * np.log10(energy + 1e-10)
    return np.maximum(levels, levels.max(axis=0) - FLOOR_DB)


def without_slow_part(tracks_MV: np.ndarray) -> np.ndarray:
    """Subtract the Gaussian mean over 0.2 s; the tracks' ends go on as mirrors."""
    reach = round(4 * SLOW_S / STEP_S)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * STEP_S / SLOW_S))
    kernel /= kernel.sum()
    slow = [np.convolve(np.pad(track, reach, mode="symmetric"), kernel, mode="valid") for track in tracks_MV.T]
    return tracks_MV - np.stack(slow, axis=1)


def _scaled(tracks_MV: np.ndarray) -> np.ndarray:
    centred = tracks_MV - tracks_MV.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.where(deviation > LEAST_MOVED, centred / np.maximum(deviation, LEAST_MOVED), 0.0)
