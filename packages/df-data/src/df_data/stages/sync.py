"""The offset between audio and lips: where the mouth's opening and the audio's loudness agree best.

``mouth_sound_offset`` is the lag, in seconds, at which the opening of the mouth (landmarks, 25 Hz) correlates best
with the level of the audio, as the mean over five bands between 300 and 5000 Hz; positive when the audio is late. The
bands count alike: the level of the whole is that of the lowest, which tells least of the mouth. All tracks lose their
slow part first (a Gaussian of 0.1 s), without which the rhythm of whole words makes the peak broad and moves it.
This is not SyncNet and is named for what it is; where SyncNet's weights are given it judges in the place of this
(:mod:`df_data.stages.lip_sync`).

The measure can be wrong: speech repeats itself. ``mouth_sound_margin`` is the best correlation less the best one
within the tolerated offset (0 if that is the best); a clip is refused only by a margin that stands out, and otherwise
loses half its weight.

Measured on clips of 3 s with the limits' defaults, audio shifted by 120, 150 and 200 ms either way. "Caught" counts
clips that are refused or lose half their weight, in brackets those refused; the bands and ``min_margin`` were chosen on
these GRID clips, so their row flatters a little.

=======================  ===============  ==================  ============  ============  =============
clips                    in sync: within  in sync: refused,   120 ms:       150 ms:       200 ms:
                         40 ms (100 ms)   halved              caught        caught        caught
=======================  ===============  ==================  ============  ============  =============
GRID, 257, landmarks     92 % (97 %)      0 %, 3 %            75 % (36 %)   95 % (74 %)   99 % (89 %)
rendered, 60, the truth  100 % (100 %)    0 %, 0 %            97 % (8 %)    100 % (99 %)  100 % (100 %)
=======================  ===============  ==================  ============  ============  =============

More shifts: ``docs/results/stages.md``.

Shape legend: T frames at 25 Hz, N samples at 16 kHz, M = 4 T - 3 steps of 10 ms, B bands, L lags.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from df_data.stages.rejection import Rejected
from df_models.settings import FrozenModel
from df_models.time import FPS, SAMPLE_RATE

STEP_S = 0.01
"""Resolution of an offset: a quarter of a frame."""
BANDS_HZ = (300.0, 550.0, 1000.0, 1750.0, 3000.0, 5000.0)
WINDOW_S = 0.032
"""Of the loudness: two periods of a low voice."""
FLOOR_DB = 50.0
"""Audio further than this below the clip's loudest is silence."""
SLOW_S = 0.1
"""Slower changes are left out: they are of the sentence, and fit at any offset."""
MAX_LAG_S = 0.4
"""Offsets looked for; larger ones are not found (a known limit)."""
MIN_FRAMES = 26
"""About one second: a shorter stretch has too few openings of the mouth."""
STEPS_A_FRAME = round(1 / FPS / STEP_S)


class SyncFilter(FrozenModel):
    """When audio and lips are apart.

    Attributes:
        enabled: off, the scores ``mouth_sound_offset``, ``mouth_sound_peak`` and ``mouth_sound_margin`` do not exist.
        max_offset: beyond this offset in seconds a clip is refused (``sound_offset``), if the margin allows.
        min_margin: least margin that a refusal may rest on (the largest of 257 GRID clips, all in sync, has 0.08);
            below it the weight is halved instead.
    """

    enabled: bool = True
    max_offset: float = Field(default=0.1, ge=0, lt=MAX_LAG_S)
    min_margin: float = Field(default=0.1, ge=0)


@dataclass(frozen=True)
class AudioOffset:
    """How audio and lips lie to each other.

    Attributes:
        offset: seconds by which the audio is late, a multiple of 0.01.
        peak: mean correlation there, in [-1, 1].
        margin: the peak less the best correlation within the tolerated offset.
    """

    offset: float
    peak: float
    margin: float

    def scores(self) -> dict[str, float]:
        """Return the scores by name."""
        return {
            "mouth_sound_offset": self.offset,
            "mouth_sound_peak": self.peak,
            "mouth_sound_margin": self.margin,
        }


def mouth_sound_offset(mouth_open_T: np.ndarray, wave_N: np.ndarray, max_offset: float) -> AudioOffset | None:
    """Find the lag of the best correlation within +-0.4 s.

    Returns:
        None where there is nothing to compare: mouth or audio do not change at all, or last less than 26 frames.

    Args:
        mouth_open_T: opening of the mouth, any unit, every frame finite.
        wave_N: the audio of those frames.
        max_offset: the tolerated offset in seconds, for the margin.
    """
    if len(mouth_open_T) < MIN_FRAMES:
        return None
    mouth_M = without_slow_part(np.interp(*_fine_grid(len(mouth_open_T)), mouth_open_T))
    levels_MB = without_slow_part(band_levels(wave_N, len(mouth_M)))
    if mouth_M.std() < 1e-9 or levels_MB.std(axis=0).max() < 1e-9:
        return None
    lags_L = np.arange(-round(MAX_LAG_S / STEP_S), round(MAX_LAG_S / STEP_S) + 1)
    curve_L = np.array([lag_correlation(mouth_M, levels_MB, lag) for lag in lags_L.tolist()])
    best = int(curve_L.argmax())
    tolerated = np.abs(lags_L) <= round(max_offset / STEP_S)
    margin = float(curve_L[best] - curve_L[tolerated].max())
    return AudioOffset(round(float(lags_L[best]) * STEP_S, 2), float(curve_L[best]), margin)


def check_offset(scores: dict[str, float], filters: SyncFilter) -> bool:
    """Refuse a clip whose audio is surely apart from its lips; return whether it is perhaps.

    Raises:
        Rejected: ``sound_offset``.
    """
    offset, margin = scores["mouth_sound_offset"], scores["mouth_sound_margin"]
    if abs(offset) <= filters.max_offset:
        return False
    if margin >= filters.min_margin:
        side = "late" if offset > 0 else "early"
        raise Rejected("sound_offset", f"the audio is {abs(offset) * 1000:.0f} ms {side} for the lips", scores)
    return True


def band_levels(wave_N: np.ndarray, num_steps: int) -> np.ndarray:
    """Return each band's level in dB every 10 ms, float64 ``[M, B]``; 50 dB below the loudest step all is level."""
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


def without_slow_part(tracks: np.ndarray) -> np.ndarray:
    """Subtract the Gaussian mean over 0.1 s from tracks ``[M]`` or ``[M, B]``; their ends go on as mirrors."""
    reach = round(4 * SLOW_S / STEP_S)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * STEP_S / SLOW_S))
    kernel /= kernel.sum()
    columns = tracks.reshape(len(tracks), -1).T
    slow = [np.convolve(np.pad(column, reach, mode="symmetric"), kernel, mode="valid") for column in columns]
    return tracks - np.stack(slow, axis=1).reshape(tracks.shape)


def lag_correlation(mouth_M: np.ndarray, levels_MB: np.ndarray, lag: int) -> float:
    """Return the mean over the bands of Pearson's correlation of ``mouth[i]`` and ``level[i + lag]``."""
    count = len(mouth_M) - abs(lag)
    mouth = mouth_M[max(0, -lag) :][:count]
    levels = levels_MB[max(0, lag) :][:count]
    mouth, levels = mouth - mouth.mean(), levels - levels.mean(axis=0)
    scale = np.sqrt((mouth @ mouth) * np.square(levels).sum(axis=0))
    return float(np.mean(mouth @ levels / np.maximum(scale, 1e-12)))


def _fine_grid(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of the 10 ms steps in frames, and of the frames."""
    steps = STEPS_A_FRAME * (num_frames - 1) + 1
    return np.arange(steps) / STEPS_A_FRAME, np.arange(num_frames, dtype=np.float64)
