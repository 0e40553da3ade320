"""The one way from an audio stream to samples: packets decoded, channels mixed, rates converted, damage told.

Every place that hears a file, in training and at inference, goes through :func:`decoded_frames` and
:func:`audio_blocks`, so all of them hear a file alike.

Shape legend: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from df_models.errors import UserError
from df_models.media.mixing import ANTIPHASE_SHARE, mix, mono_weights
from df_models.media.unnamed import Names

GAP_S = 0.03
"""Audio further than this from where the last piece ended has a time stamp of its own: above the jitter of cameras
and below the 40 ms of a video frame."""
LONGEST_GAP_S = 10.0
"""Where only the audio matters, a hole in the time stamps up to this is silence; a longer one is another clock."""
RATES = (4_000, 768_000)
"""Sample rates that are converted from, in Hz; speech has little below the first, and no recorder the second."""
MOST_CHANNELS = 8
"""Of one stream (7.1); what has more is no recording of a speaker."""
LOUDEST = 10.0
"""Floating-point audio beyond this (20 dB over full scale) is damaged, or integers that were stored as such."""
INTEGERS = 100.0
"""From here on it looks like integers."""
LATEST_S = 1e10
"""Time stamps beyond are damaged: a double no longer tells one frame from the next. (Unix time is 1.7e9.)"""


class BrokenAudio(UserError):
    """Audio whose values, rate or channels no reader can use."""


class BrokenTimeStamps(BrokenAudio):
    """Audio whose time stamps cannot be followed."""


@dataclass
class Heard:
    """What was met on the way through a stream.

    Attributes:
        packets, bad: how many were read, and how many of them could not be decoded and were left out.
        cut_off: the file ended in the middle.
        plain: channels without names were averaged, since by their sound they are no 5.1 or 7.1.
        channel_power, bass_power: sums of squares of the channels in the mono mix and of those left out of it, both by
            the number of all channels.
        mix_power: sum of squares of the mono mix.
    """

    packets: int = 0
    bad: int = 0
    cut_off: bool = False
    plain: bool = False
    channel_power: float = field(default=0.0, repr=False)
    bass_power: float = field(default=0.0, repr=False)
    mix_power: float = field(default=0.0, repr=False)

    def add(self, samples_CN: np.ndarray, names: Sequence[str]) -> None:
        """Count the powers of samples."""
        power_C = np.square(samples_CN, dtype=np.float64).sum(axis=1) / len(samples_CN)
        mixed_C = mono_weights(names) > 0
        self.channel_power += float(power_C[mixed_C].sum())
        self.bass_power += float(power_C[~mixed_C].sum())
        self.mix_power += float(np.square(mix(samples_CN, names, 1), dtype=np.float64).sum())

    @property
    def antiphase(self) -> bool:
        """Whether the channels cancel each other when they are mixed."""
        return self.mix_power < ANTIPHASE_SHARE * self.channel_power

    @property
    def left_out(self) -> bool:
        """Whether nearly all sound is in channels that the mix leaves out."""
        return self.mix_power < ANTIPHASE_SHARE * self.bass_power


class AudioBlock(NamedTuple):
    """Samples at their place on a clock that counts samples.

    Attributes:
        start: number of the first sample: its time in seconds by the rate.
        samples: float32 ``[C, N]``.
    """

    start: int
    samples: np.ndarray


def decoded_frames(container: Any, stream: Any, heard: Heard | None = None) -> Iterator[Any]:
    """Yield an audio stream's frames, passing over packets that cannot be decoded, as players do.

    A file that breaks off ends there. Where nothing at all can be decoded, the decoder's error is raised.

    Raises:
        UserError: another stream begins in the middle of the file, of which PyAV knows nothing (its demuxer looks for
            it among those found at the beginning: IndexError).
        av.FFmpegError: see above.
    """
    import av

    heard, found, last = heard or Heard(), False, None
    packets = _packets(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except av.InvalidDataError as error:
            heard.cut_off, last, packet = True, error, None
        if packet is None:
            break
        heard.packets += 1
        try:
            for frame in packet.decode():
                if frame.samples:
                    found = True
                    yield frame
        except av.InvalidDataError as error:
            heard.bad, last = heard.bad + 1, error
    if last is not None and not found:
        raise last


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    try:
        yield from container.demux(stream)
    except IndexError as error:
        raise UserError("a stream begins in the middle of the file; copy it with ffmpeg to an mp4 or mkv") from error


def frame_samples(frame: Any) -> np.ndarray:
    """Return a PyAV frame's samples as float32 ``[C, N]``; integers are divided by their full scale (2^15 for 16 bits).

    Raises:
        BrokenAudio: values not finite or beyond :data:`LOUDEST`, too many channels, a rate beyond :data:`RATES`.
    """
    if not RATES[0] <= frame.sample_rate <= RATES[1]:
        raise BrokenAudio(f"the audio has a rate of {frame.sample_rate} Hz, not {RATES[0]} to {RATES[1]}")
    channels = frame.layout.nb_channels
    if channels > MOST_CHANNELS:
        raise BrokenAudio(f"the audio has {channels} channels, at most {MOST_CHANNELS} are read; mix it down")
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / 2.0 ** (8 * samples.itemsize - 1)
    return _checked(samples, frame.time)


def _checked(samples_CN: np.ndarray, time: float | None) -> np.ndarray:
    peak = float(np.abs(samples_CN).max(initial=0.0))
    at = "" if time is None else f" at {max(0.0, float(time)):.2f} s"
    if not np.isfinite(peak):
        raise BrokenAudio(f"the audio holds values that are no numbers (NaN or infinite){at}; export it again")
    if peak > LOUDEST:
        scaled = "these look like integers stored as floating point: " if peak > INTEGERS else ""
        raise BrokenAudio(
            f"the audio reaches {peak:.4g}{at}, where full scale is 1; {scaled}save it as 16-bit PCM, or divide it"
        )
    return samples_CN.astype(np.float32)


def audio_blocks(
    frames: Iterable[Any], rate: int, channels: int | None = 1, *, by_stamps: bool, heard: Heard | None = None
) -> Iterator[AudioBlock]:
    """Mix and resample frames, which may change their rate and channels, and place them on a clock of ``rate``.

    Args:
        frames: PyAV's, in file order.
        channels: 1, 2, or None for those of the first frame.
        by_stamps: each frame stands where its time stamp says (to stay with a video); otherwise audio goes on where
            the last frame ended, but for holes of up to :data:`LONGEST_GAP_S`, and begins at 0.
        heard: is told the powers of channels and mix.

    Raises:
        BrokenAudio: see :func:`frame_samples`.
        BrokenTimeStamps: a time stamp of no time of this world.
    """
    run: _Run | None = None
    clock = _Stamps() if by_stamps else _Counted()
    named = Names(frame_samples)
    for frame, samples_CN, names in named.of(frames):
        time = clock.time_of(frame)
        if time is None:
            continue
        channels = channels or len(samples_CN)
        if heard is not None:
            heard.plain = named.plain
            heard.add(samples_CN, names)
        mixed_CN = mix(samples_CN, names, channels)
        if run is None or clock.jumped or run.source_rate != frame.sample_rate:
            if run is not None:
                yield from run.finish()
            run = _Run(time, frame.sample_rate, rate, channels)
        yield from run.add(mixed_CN)
    if run is not None:
        yield from run.finish()


class _Stamps:
    """Time stamps as they are; those within :data:`GAP_S` of the last frame's end are rounded to it."""

    def __init__(self) -> None:
        self.expected: float | None = None
        self.jumped = False

    def time_of(self, frame: Any) -> float | None:
        """Return when a frame begins, in seconds; None for one without a stamp before any has one."""
        stamp, expected = _stamp(frame), self.expected
        if stamp is None and expected is None:
            return None
        near = stamp is None or (expected is not None and abs(stamp - expected) <= GAP_S)
        time = expected if near else stamp
        assert time is not None
        self.jumped = not near
        self.expected = time + frame.samples / frame.sample_rate
        return time


class _Counted:
    """Samples are counted from 0; time stamps only tell of holes."""

    def __init__(self) -> None:
        self.expected = 0.0
        self.jumped = False
        self._stamped_end: float | None = None

    def time_of(self, frame: Any) -> float | None:
        """Return when a frame begins, in seconds from the first one."""
        stamp, seconds = _stamp(frame), frame.samples / frame.sample_rate
        hole = 0.0 if stamp is None or self._stamped_end is None else stamp - self._stamped_end
        self.jumped = GAP_S < hole <= LONGEST_GAP_S
        time = self.expected + (hole if self.jumped else 0.0)
        self._stamped_end = None if stamp is None else stamp + seconds
        self.expected = time + seconds
        return time


def _stamp(frame: Any) -> float | None:
    if frame.time is None:
        return None
    if abs(time := float(frame.time)) > LATEST_S:
        raise BrokenTimeStamps(f"the audio has a time stamp of {time:.2g} s")
    return time


class _Run:
    """Frames of one rate that follow each other, resampled together so that there are no seams."""

    def __init__(self, time: float, source_rate: int, rate: int, channels: int) -> None:
        self.source_rate = source_rate
        self._next = round(time * rate)
        self._resampler = None if source_rate == rate else Resampler(source_rate, rate, channels)

    def add(self, samples_CN: np.ndarray) -> Iterator[AudioBlock]:
        yield from self._placed(samples_CN if self._resampler is None else self._resampler.add(samples_CN))

    def finish(self) -> Iterator[AudioBlock]:
        if self._resampler is not None:
            yield from self._placed(self._resampler.finish())

    def _placed(self, samples_CN: np.ndarray) -> Iterator[AudioBlock]:
        if samples_CN.shape[1]:
            yield AudioBlock(self._next, samples_CN)
            self._next += samples_CN.shape[1]


class Resampler:
    """Converts the rate of float32 audio piece by piece, without delay (libswresample, rate only)."""

    def __init__(self, source_rate: int, rate: int, channels: int) -> None:
        import av

        self._layout = f"{channels} channels" if channels > 2 else ("mono", "stereo")[channels - 1]
        self._source_rate, self._channels = source_rate, channels
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=rate)

    def add(self, samples_CN: np.ndarray) -> np.ndarray:
        """Return what can be told of the pieces so far and was not yet, ``[C, N]``."""
        import av

        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_CN), format="fltp", layout=self._layout)
        frame.sample_rate = self._source_rate
        return self._joined(self._resampler.resample(frame))

    def finish(self) -> np.ndarray:
        """Return the rest."""
        return self._joined(self._resampler.resample(None))

    def _joined(self, frames: list[Any]) -> np.ndarray:
        pieces = [frame.to_ndarray() for frame in frames]
        return np.concatenate(pieces, axis=1) if pieces else np.zeros((self._channels, 0), dtype=np.float32)
