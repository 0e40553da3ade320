"""Reading and writing audio files (needs the package ``av``, imported when used).

What a model hears is mono at 16 kHz (:func:`read_audio`); what a video carries is the file's own rate and channels
(:class:`AudioFile`). Both decode, mix and resample by :mod:`df_models.media.decoding`.

Shape legend: C channels, N samples; float32, full scale is 1.
"""

from __future__ import annotations

import contextlib
import logging
import wave as wave_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from df_models.containers import default_stream, open_media
from df_models.errors import UserError
from df_models.files import atomic_path, require_file
from df_models.media.decoding import AudioBlock, BrokenAudio, Heard, audio_blocks, decoded_frames
from df_models.media.track import AudioTrack
from df_models.time import SAMPLE_RATE

if TYPE_CHECKING:
    import av.container

AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""ISO/IEC 14496-3, table of sampling frequencies."""
AAC_LAYOUTS = {name: name for name in ("mono", "stereo", "3.0", "4.0", "5.0", "5.1")} | {
    "5.0(side)": "5.0",
    "5.1(side)": "5.1",
}
"""Channel configurations 1 to 6 of ISO/IEC 14496-3 by FFmpeg's names, and those of the same order."""
SILENT_POWER = 1e-8
"""Mean square of -80 dB: below it nothing is heard, so nothing can be said of the channels."""

_log = logging.getLogger(__name__)


class AudioSource(Protocol):
    """Audio that a video is given, read forward as the video grows.

    Attributes:
        rate: samples a second.
        layout: FFmpeg's name of the channels' layout.
    """

    rate: int
    layout: str

    def read(self, num_samples: int) -> np.ndarray:
        """Return the next ``[C, num_samples]``; past the end is silence."""
        ...


class Waveform:
    """A mono wave ``[N]`` as an :class:`AudioSource`."""

    layout = "mono"

    def __init__(self, wave_N: np.ndarray, rate: int = SAMPLE_RATE) -> None:
        self.rate = rate
        self._wave_N, self._at = wave_N, 0

    def read(self, num_samples: int) -> np.ndarray:
        """See :class:`AudioSource`."""
        piece_N = np.asarray(self._wave_N[self._at : self._at + num_samples], dtype=np.float32)
        self._at += num_samples
        return np.pad(piece_N, (0, num_samples - len(piece_N)))[None]


class AudioFile:
    """A file's audio at its own rate and channels, as an :class:`AudioSource`; a context manager.

    A rate that AAC does not know becomes the next higher one (at most 96 kHz), channels beyond 5.1 become stereo, more
    than two without names mono. The first sample is that of :func:`read_audio`, and so is the handling of damage.

    Raises:
        UserError: as :func:`read_audio`, when opened or when the damage is met.
    """

    def __init__(self, path: str | Path) -> None:
        self.rate, self.layout = SAMPLE_RATE, "mono"
        self._path, self._at = path, 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            frames = stack.enter_context(_audio_frames(self._path, Heard()))
            first = next(frames)
            self.rate, channels, self.layout = _carried(first.sample_rate, first.layout)
            blocks = audio_blocks(_before(first, frames), self.rate, channels, by_stamps=False)
            self._track = AudioTrack(blocks, self.rate, channels)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, num_samples: int) -> np.ndarray:
        """See :class:`AudioSource`."""
        with _told(self._path):
            samples_CN, _ = self._track.read_at(self._at, num_samples)
        self._at += num_samples
        return samples_CN


def _carried(rate: int, layout: Any) -> tuple[int, int, str]:
    """Return rate, number of channels and layout that AAC carries for a source's."""
    allowed = next((known for known in AAC_RATES if known >= rate), AAC_RATES[-1])
    count = layout.nb_channels
    if layout.name in AAC_LAYOUTS:
        return allowed, count, AAC_LAYOUTS[layout.name]
    named = all(channel.name != "NONE" for channel in layout.channels)
    channels = min(count, 2) if named or count <= 2 else 1
    return allowed, channels, ("mono", "stereo")[channels - 1]


def read_audio(path: str | Path, *, most_s: float | None = None) -> np.ndarray:
    """Return the default audio track of any audio or video file as float32 mono at 16 kHz, ``[N]``.

    Packets that cannot be decoded are left out, as players do, and a warning says how many; so it does when the
    channels cancel each other. The level is the file's own.

    Args:
        most_s: longer audio is refused as soon as so much is decoded: a small file may hold days of silence.

    Raises:
        UserError: no such file, no audio in it, audio that cannot be decoded or is too long, or values that are not
            finite or far beyond full scale.
    """
    heard = Heard()
    with _audio_frames(path, heard) as frames:
        blocks = []
        for block in audio_blocks(frames, SAMPLE_RATE, by_stamps=False, heard=heard):
            blocks.append(block)
            if most_s is not None and block.start + block.samples.shape[1] > most_s * SAMPLE_RATE:
                raise UserError(f"{path} is longer than {most_s:g} s, the most that is read here; give a shorter one")
    if not blocks:
        raise UserError(f"{path} holds no audio")
    _warn(path, heard)
    return join_blocks(blocks)[0]


def join_blocks(blocks: list[AudioBlock]) -> np.ndarray:
    """Return blocks as float32 ``[C, N]`` from sample 0 on; what none covers is silence."""
    end = max(start + samples.shape[1] for start, samples in blocks)
    line_CN = np.zeros((len(blocks[0].samples), end), dtype=np.float32)
    for start, samples_CN in blocks:
        line_CN[:, start : start + samples_CN.shape[1]] = samples_CN
    return line_CN


def _warn(path: str | Path, heard: Heard) -> None:
    if heard.bad:
        _log.warning("%d of %d packets of audio in %s are damaged and were left out", heard.bad, heard.packets, path)
    if heard.cut_off:
        _log.warning("the audio in %s breaks off; what lies before was read", path)
    if heard.plain:
        _log.warning(
            "the channels of %s have no names, and the one that has only low-frequency effects in surround holds more, "
            "so all were averaged; mix the file to mono if that is not meant",
            path,
        )
    if heard.antiphase:
        _log.warning(
            "the channels of %s cancel each other when mixed (one is the other upside down), so the model hears next "
            "to nothing; turn one over, or keep one channel alone",
            path,
        )
    elif heard.left_out:
        _log.warning(
            "nearly all sound in %s is in its channel for low-frequency effects, which the model does not hear; give "
            "it another place if it is speech",
            path,
        )


@contextlib.contextmanager
def _audio_frames(path: str | Path, heard: Heard) -> Iterator[Iterator[Any]]:
    """Open a file and give the frames of its default audio stream; there is at least one."""
    with _told(path), open_file(path, "audio") as container:
        if not container.streams.audio:
            raise UserError(f"{path} has no audio track; give a file with speech, such as a WAV, FLAC or MP4")
        stream = default_stream(container.streams.audio)
        if stream.codec_context is None:
            raise UserError(f"the audio in {path} cannot be decoded (no decoder for it); convert it to WAV")
        frames = decoded_frames(container, stream, heard)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{path} holds no audio")
        yield _before(first, frames)


def _before(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


@contextlib.contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """Turn what decoding raises into one line that names the file."""
    import av

    try:
        yield
    except BrokenAudio as error:
        raise UserError(f"{path}: {error}") from error
    except av.FFmpegError as error:
        raise UserError(f"the audio in {path} cannot be decoded ({reason_of(error)})") from error


def write_wav(path: str | Path, wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write mono audio ``[N]`` in [-1, 1] as 16-bit PCM."""
    pcm = (np.clip(np.asarray(wave, dtype=np.float64), -1.0, 1.0) * 32767.0).round().astype("<i2")
    with atomic_path(path) as temporary, wave_module.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())


WANTED = "give one that players play, such as WAV, FLAC, MP3 or MP4"


def open_file(path: str | Path, what: str) -> av.container.InputContainer:
    """Open a media file.

    Raises:
        UserError: no such file, or none of a kind that is read; ``what`` names what was wanted.
    """
    import av

    require_file(path)
    try:
        return open_media(path)
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path} is no {what} file that can be read ({reason_of(error)}); {WANTED}") from error


def reason_of(error: Exception) -> str:
    """Return the short reason that an error of FFmpeg or the system carries."""
    return getattr(error, "strerror", None) or type(error).__name__
