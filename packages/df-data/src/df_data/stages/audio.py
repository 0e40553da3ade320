"""A file's audio on the clip's clock, as 16 kHz mono, piece by piece in memory that does not grow.

Shape legend: N samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from df_data.stages.rejection import Rejected
from df_models.time import SAMPLE_RATE

GAP_S = 0.03
"""Audio frames further than this from where the last one ended leave silence, or overwrite, by their time stamp."""
MARGIN_S = 0.05
"""Audio on either side of a piece that the rate conversion hears, so that pieces join without an edge."""

RATES = (4_000, 768_000)
"""Sample rates that audio is converted from, in Hz; speech has little below the first, and no recorder the second."""
LOUDEST = 100.0
"""Floating-point audio beyond this (40 dB over full scale) is damaged."""
STUCK_S = 60.0
"""Audio held longer than what was asked for, because its time stamps do not advance, is damaged."""

Chunk = tuple[float, np.ndarray]
"""Time stamp in seconds, and mono float32 samples."""


class AudioTrack:
    """Audio that is read forward, some seconds at a time.

    Args:
        chunks: in file order; they are asked for only as far as they are needed.
        rate: their sample rate.

    Raises:
        Rejected: ``broken_sound``, a rate beyond :data:`RATES`.
    """

    def __init__(self, chunks: Iterator[Chunk], rate: int) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise Rejected("broken_sound", f"a sample rate of {rate} Hz, not {RATES[0]} to {RATES[1]}")
        self.rate = rate
        self._held_samples = 0
        self.start: float | None = None
        self._coming = _joined(chunks, rate)
        self._held: deque[Chunk] = deque()
        self._ended = False

    def first(self) -> float | None:
        """Return the time at which the audio begins, None if there is none."""
        if self.start is None:
            self._take()
        return self.start

    def read(self, start: float, num_samples: int) -> tuple[np.ndarray, float]:
        """Return 16 kHz audio from time ``start``, float32 ``[num_samples]``, and the share of it that is not missing.

        ``start`` must not fall from call to call; what lies before it is let go.

        Raises:
            Rejected: ``broken_time_stamps``, the audio's do not advance.
        """
        begin, end = start - MARGIN_S, start + num_samples / SAMPLE_RATE + MARGIN_S
        self._hold(begin, end)
        return place_audio(list(self._held), self.rate, start, num_samples)

    def _hold(self, begin: float, end: float) -> None:
        """Hold what lies between two times, and no more than a chunk of what lies before."""
        self._let_go(begin)
        while not self._ended and (not self._held or self._held[-1][0] < end):
            self._take()
            self._let_go(begin)
            if self._held_samples > (end - begin + STUCK_S) * self.rate:
                raise Rejected("broken_time_stamps", f"more than {STUCK_S:g} s of audio at one time stamp")

    def _take(self) -> None:
        """Hold one chunk more, if there is one."""
        chunk = next(self._coming, None)
        if chunk is None:
            self._ended = True
            return
        self.start = chunk[0] if self.start is None else self.start
        self._held.append(chunk)
        self._held_samples += len(chunk[1])

    def _let_go(self, begin: float) -> None:
        """Drop what ends before a time."""
        while self._held and self._held[0][0] + len(self._held[0][1]) / self.rate < begin:
            self._held_samples -= len(self._held.popleft()[1])


def checked_audio(samples_N: np.ndarray) -> np.ndarray:
    """Return samples as they are.

    Raises:
        Rejected: ``broken_sound``, some are not finite or louder than :data:`LOUDEST`.
    """
    peak = float(np.abs(samples_N).max(initial=0.0))
    if not peak <= LOUDEST:  # NaN too
        raise Rejected("broken_sound", f"samples of {peak:g}, where 1 is full scale")
    return samples_N


def _joined(chunks: Iterator[Chunk], rate: int) -> Iterator[Chunk]:
    """Give each chunk the time at which the one before it ended, unless its stamp is too far from it."""
    expected: float | None = None
    for time, samples in chunks:
        begin = time if expected is None or abs(time - expected) > GAP_S else expected
        expected = begin + len(samples) / rate
        yield begin, samples


def place_audio(chunks: list[Chunk], rate: int, start: float, num_samples: int) -> tuple[np.ndarray, float]:
    """Lay audio on a clock and resample it to 16 kHz.

    Args:
        chunks: audio by the time at which it begins.
        rate: its sample rate.
        start: time of the first sample wanted, on the same clock.
        num_samples: length of the result.

    Returns:
        float32 ``[num_samples]`` and the share of it that audio covers; the rest is silence.
    """
    before = round(MARGIN_S * rate)
    wanted = int(np.ceil(num_samples * rate / SAMPLE_RATE))
    line = np.zeros(before + wanted + before, dtype=np.float32)
    covered = np.zeros(len(line), dtype=bool)
    for time, samples in chunks:
        first = before + round((time - start) * rate)
        low, high = max(0, first), min(len(line), first + len(samples))
        if low < high:
            line[low:high] = samples[low - first : high - first]
            covered[low:high] = True
    skipped = round(before / rate * SAMPLE_RATE)
    wave = resample_audio(line, rate)[skipped : skipped + num_samples]
    return np.pad(wave, (0, num_samples - len(wave))), float(covered[before : before + wanted].mean())


def resample_audio(wave_N: np.ndarray, rate: int) -> np.ndarray:
    """Resample mono float32 audio from ``rate`` to 16 kHz, without delay."""
    import av

    if rate == SAMPLE_RATE:
        return wave_N
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave_N[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    pieces = [out.to_ndarray()[0] for given in (frame, None) for out in resampler.resample(given)]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
