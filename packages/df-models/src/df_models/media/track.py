"""Audio that is read forward on a clock, some seconds at a time, in memory that does not grow.

Shape legend: C channels, N samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from df_models.media.decoding import AudioBlock, BrokenTimeStamps

STUCK_S = 60.0
"""Audio held longer than what was asked for, because its time stamps do not advance, is damaged."""


class AudioTrack:
    """Blocks of one rate, placed by their clock; what no block covers is silence, and a later block overwrites.

    Args:
        blocks: in file order; they are asked for only as far as they are needed.
        rate: samples a second.
        channels: C.
    """

    def __init__(self, blocks: Iterator[AudioBlock], rate: int, channels: int = 1) -> None:
        self.rate, self.channels = rate, channels
        self._coming = blocks
        self._held: deque[AudioBlock] = deque()
        self._held_samples = 0
        self._first: int | None = None
        self._ended = False

    def first(self) -> float | None:
        """Return the time at which the audio begins, in seconds; None if there is none."""
        if self._first is None:
            self._take()
        return None if self._first is None else self._first / self.rate

    def read(self, start: float, num_samples: int) -> tuple[np.ndarray, float]:
        """Return audio from time ``start`` in seconds, float32 ``[C, num_samples]``, and the share that is covered.

        ``start`` must not fall from call to call; what lies before it is let go.

        Raises:
            BrokenTimeStamps: the audio's do not advance.
        """
        return self.read_at(round(start * self.rate), num_samples)

    def read_at(self, begin: int, num_samples: int) -> tuple[np.ndarray, float]:
        """Do as :meth:`read`, from sample number ``begin`` on."""
        self._hold(begin, begin + num_samples)
        line_CN = np.zeros((self.channels, num_samples), dtype=np.float32)
        covered_N = np.zeros(num_samples, dtype=bool)
        for start, samples_CN in self._held:
            low, high = max(0, start - begin), min(num_samples, start - begin + samples_CN.shape[1])
            if low < high:
                line_CN[:, low:high] = samples_CN[:, low + begin - start : high + begin - start]
                covered_N[low:high] = True
        return line_CN, float(covered_N.mean()) if num_samples else 1.0

    def _hold(self, begin: int, end: int) -> None:
        """Hold what lies between two samples, and no more than a block of what lies before."""
        self._let_go(begin)
        while not self._ended and (not self._held or self._held[-1].start < end):
            self._take()
            self._let_go(begin)
            if self._held_samples > end - begin + STUCK_S * self.rate:
                raise BrokenTimeStamps(f"more than {STUCK_S:g} s of audio at one time stamp")

    def _take(self) -> None:
        """Hold one block more, if there is one."""
        block = next(self._coming, None)
        if block is None:
            self._ended = True
            return
        self._first = block.start if self._first is None else self._first
        self._held.append(block)
        self._held_samples += block.samples.shape[1]

    def _let_go(self, begin: int) -> None:
        """Drop what ends before a sample."""
        while self._held and self._held[0].start + self._held[0].samples.shape[1] <= begin:
            self._held_samples -= self._held.popleft().samples.shape[1]
