"""What six or eight channels without names are: 5.1 or 7.1, as FFmpeg's programs guess, unless they sound otherwise.

Shape legend: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from df_models.media.mixing import UNNAMED, USUAL, mono_weights

LOOK_S = 10.0
"""Seconds of sound that are judged at a time: a speaker says something in them."""
SPEECH_HZ = (300.0, 3400.0)
"""The telephone's band. Low-frequency effects end at 120 Hz (ITU-R BS.775)."""
COMPARABLE = 0.01
"""Share (-20 dB) of the loudest channel's power in that band that low-frequency effects do not reach."""
SILENT_PEAK = 1e-4
"""-80 dB: where no sample is above it, nothing is heard and nothing can be told."""


def is_usual(samples_CN: np.ndarray, rate: int) -> bool:
    """Whether 5.1 or 7.1 leaves out nothing that was said: its low-frequency effects hold no speech and are not all."""
    names = USUAL[len(samples_CN)]
    spectrum_CF = np.abs(np.fft.rfft(samples_CN)) ** 2
    hertz_F = np.fft.rfftfreq(samples_CN.shape[1], 1 / rate)
    speech_C = spectrum_CF[:, (hertz_F >= SPEECH_HZ[0]) & (hertz_F <= SPEECH_HZ[1])].sum(axis=1)
    bass = speech_C[names.index("LFE")]
    if bass > 0 and bass >= COMPARABLE * speech_C.max():
        return False
    heard_C = np.abs(samples_CN).max(axis=1) > SILENT_PEAK
    return bool((heard_C & (mono_weights(names) > 0)).any() or not heard_C.any())


class Names:
    """Gives a stream's frames with their channels' names, :data:`LOOK_S` later where those have to be guessed.

    Once the channels were found to be no surround they stay without names.

    Attributes:
        plain: whether they were.
    """

    def __init__(self, samples_of: Callable[[Any], np.ndarray]) -> None:
        self.plain = False
        self._samples_of = samples_of
        self._held: list[tuple[Any, np.ndarray]] = []

    def of(self, frames: Iterable[Any]) -> Iterator[tuple[Any, np.ndarray, Sequence[str]]]:
        """Yield each frame, its samples float32 ``[C, N]`` and its channels' names."""
        for frame in frames:
            samples_CN = self._samples_of(frame)
            names = [channel.name for channel in frame.layout.channels]
            if self._held and self._differs(frame, samples_CN):
                yield from self._judged()
            if self.plain or len(names) not in USUAL or any(name not in UNNAMED for name in names):
                yield frame, samples_CN, names
            elif not self._held and np.abs(samples_CN).max(initial=0.0) < SILENT_PEAK:
                yield frame, samples_CN, USUAL[len(names)]
            else:
                self._held.append((frame, samples_CN))
                if sum(held.samples for held, _ in self._held) >= LOOK_S * frame.sample_rate:
                    yield from self._judged()
        yield from self._judged()

    def _differs(self, frame: Any, samples_CN: np.ndarray) -> bool:
        held, held_CN = self._held[-1]
        return held.sample_rate != frame.sample_rate or len(held_CN) != len(samples_CN)

    def _judged(self) -> Iterator[tuple[Any, np.ndarray, Sequence[str]]]:
        if not self._held:
            return
        held, self._held = self._held, []
        joined_CN = np.concatenate([samples_CN for _, samples_CN in held], axis=1)
        self.plain = self.plain or not is_usual(joined_CN, held[0][0].sample_rate)
        names = UNNAMED[:1] * len(joined_CN) if self.plain else USUAL[len(joined_CN)]
        yield from ((frame, samples_CN, names) for frame, samples_CN in held)
