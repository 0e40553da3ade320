"""How audio is cut into frames: two features per pixel frame, as HuBERT's convolutions see it.

A feature's frame is 400 samples, one begins every 320, and the first begins 40 samples before the recording does:
feature i covers samples ``320 i - 40 .. 320 i + 360``, and a pixel frame owns exactly two.

Shape legend: N samples.
"""

from __future__ import annotations

import numpy as np

from df_models.time import AUDIO_PADDING, AUDIO_RATE, SAMPLE_RATE

WINDOW = 400
HOP = SAMPLE_RATE // AUDIO_RATE


def cut(wave_N: np.ndarray, first: int, last: int, *, fill: float = 0.0) -> np.ndarray:
    """Return the samples that features ``first .. last - 1`` cover, float64; ``fill`` stands where there are none."""
    begin = HOP * first - AUDIO_PADDING // 2
    samples = np.full(HOP * (last - first) + AUDIO_PADDING, fill)
    inside = wave_N[max(0, begin) : max(0, begin + len(samples))]
    offset = max(0, -begin)
    samples[offset : offset + len(inside)] = inside
    return samples
