"""Where a sound is speech, by Silero VAD, and how loud it is.

Source: snakers4/silero-vad (MIT). Stretches of speech are found as by its ``get_speech_timestamps`` with the defaults,
which are the constants below, and rounded to 0.1 s as its seconds are; frames as in THEval (lip_sync.py).

Shape suffixes: T pixel frames, N samples at 16 kHz, W windows of 512 samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from df_data.stages.voice import WINDOW, SileroVAD
from df_eval.metrics.theval import volume
from df_models.time import FPS, SAMPLE_RATE

SPEECH, NO_SPEECH = 0.5, 0.35
"""Probabilities from which speech begins, and below which it may end."""
SHORTEST_SPEECH = SAMPLE_RATE // 4
SHORTEST_PAUSE = SAMPLE_RATE // 10
MARGIN = SAMPLE_RATE * 30 // 1000


def speech_stretches(probability_W: Sequence[float] | np.ndarray, samples: int) -> list[tuple[int, int]]:
    """Beginnings and ends of speech, in samples.

    Speech begins at `SPEECH`, and ends where the probability fell below `NO_SPEECH` and did not come back to `SPEECH`
    for `SHORTEST_PAUSE`. Stretches of `SHORTEST_SPEECH` or less are left out; the others are widened by `MARGIN`, or by
    half the pause between two of them.
    """
    found, start, quiet = [], None, None
    for place, probability in enumerate(probability_W):
        at = place * WINDOW
        if probability >= SPEECH:
            start, quiet = (at if start is None else start), None
        elif start is not None and probability < NO_SPEECH:
            quiet = at if quiet is None else quiet
            if at - quiet >= SHORTEST_PAUSE:
                found.append((start, quiet))
                start = quiet = None
    if start is not None:
        found.append((start, samples))
    return _widened([(start, end) for start, end in found if end - start > SHORTEST_SPEECH], samples)


def _widened(found: list[tuple[int, int]], samples: int) -> list[tuple[int, int]]:
    pauses = [later[0] - earlier[1] for earlier, later in pairwise(found)]
    between = [MARGIN if pause >= 2 * MARGIN else pause // 2 for pause in pauses]
    before, after = [MARGIN, *between], [*between, MARGIN]
    return [(max(0, s - b), min(samples, e + a)) for (s, e), b, a in zip(found, before, after)]


def speech_frames(stretches: Sequence[tuple[int, int]], samples: int, frames: int) -> np.ndarray:
    """Frames with speech, bool ``[T]``: from the one in which a stretch begins to that in which it ends."""
    speech_T = np.zeros(frames, bool)
    for stretch in stretches:
        start, end = (round(at / SAMPLE_RATE, 1) for at in stretch)
        speech_T[int(start * FPS) : int(min(end, samples / SAMPLE_RATE) * FPS) + 1] = True
    return speech_T


def sound_signals(detector: SileroVAD, wave_N: np.ndarray, frames: int) -> dict[str, np.ndarray]:
    """Speech and volume of a clip's sound by the names of :class:`~df_eval.reading.readings.FaceReadings`."""
    stretches = speech_stretches(detector.probabilities(wave_N), len(wave_N))
    return {"speech_T": speech_frames(stretches, len(wave_N), frames), "volume_T": volume(wave_N, frames)}
