"""Sound that arrives in pieces of any size: what the model hears of it, and what is played beside the frames.

Sound has a rate of its own; the model hears it at 16 kHz. Both are held on one line of time, counted in pixel frames
from the session's start, and only as far back as the session may still return.

Shape legend: N samples, P pixel frames, D features.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from df_infer.hearing.speech import pooled
from df_models.encoders import AudioEncoder, AudioPool
from df_models.errors import UserError
from df_models.media.decoding import LOUDEST, RATES, Resampler
from df_models.time import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, covering_pixel_length

PRIMING = 2
"""Pixel frames of sound before a point from which a resampler is started anew to go on as if it had heard everything:
its filter is 32 samples long at either rate, a frame has 160 or more."""


class SoundState(NamedTuple):
    """What a session's sound is at a moment: samples at both rates from pixel frame ``first`` on.

    Attributes:
        resampled_from: pixel frame at which the resampler began.
        ended: no more comes.
    """

    pushed_N: Tensor
    heard_N: Tensor
    first: int
    resampled_from: int
    ended: bool


class LiveSound:
    """The sound of one session.

    Args:
        encoder: None for a model that hears nothing.
        pool: how the model pools features.
        rate: of the sound that is pushed, samples a second: a multiple of 25.
        gain_db: by how much louder the model hears it.

    Raises:
        UserError: a rate that has no whole number of samples in a pixel frame, or an encoder that hears the future.
    """

    def __init__(self, encoder: AudioEncoder | None, pool: AudioPool, rate: int, *, gain_db: float = 0.0) -> None:
        if rate % FPS or not RATES[0] <= rate <= RATES[1]:
            raise UserError(
                f"live sound at {rate} Hz: give a rate from {RATES[0]} to {RATES[1]} Hz that is a multiple of {FPS}, "
                "such as 16000, 24000, 44100 or 48000"
            )
        if encoder is not None and encoder.lookahead_s is None:
            raise UserError(
                f"the audio encoder {encoder.id!r} hears the whole recording before its first frame; a live session "
                "needs a model whose encoder has a window, such as hubert-base@0.16+4-0.2"
            )
        self.rate, self._gain = rate, 10 ** (gain_db / 20)
        self.ended = False
        self._encoder = encoder
        self._pool: AudioPool = pool
        self._per_frame = rate // FPS
        self._pushed_N = np.zeros(0, np.float32)
        self._heard_N = np.zeros(0, np.float32)
        self._first = 0  # pixel frame at which both begin
        self._begin_resampling(0)

    @property
    def _unit(self) -> int:
        """Pixel frames that are encoded together; what is let go of is a multiple of it, so the grid stays."""
        window = None if self._encoder is None else self._encoder.window
        return 1 if window is None else window.length

    @property
    def _before(self) -> int:
        """Pixel frames of sound before a frame that its features may depend on."""
        window = None if self._encoder is None else self._encoder.window
        return 1 if window is None else window.length + window.before

    def push(self, pcm_N: np.ndarray) -> None:
        """Take the next samples: mono, float32 in [-1, 1] or 16-bit integers.

        Raises:
            UserError: the sound has ended; samples of another kind, that are no numbers or far beyond full scale.
        """
        if self.ended:
            raise UserError("the session's sound has ended (close); nothing can be pushed after it")
        samples_N = checked(pcm_N)
        if not len(samples_N):
            return
        self._pushed_N = np.concatenate([self._pushed_N, samples_N])
        self._hear(samples_N if self._resampler is None else self._resampler.add(samples_N[None])[0])

    def end(self) -> None:
        """Say that no sound will follow; what lacks to whole latent frames is silence."""
        if not self.ended and self._resampler is not None:
            self._hear(self._resampler.finish()[0])
        self.ended = True

    @property
    def samples(self) -> int:
        """Samples pushed since the session's start, less what was cut off."""
        return self._first * self._per_frame + len(self._pushed_N)

    @property
    def known(self) -> int:
        """Pixel frames whose features can be told by now."""
        if self.ended:
            pushed = -(-self.samples // self._per_frame)
            return covering_pixel_length(pushed) if pushed else 0
        if self._encoder is None:
            return self.samples // self._per_frame
        end = self._first * SAMPLES_PER_FRAME + len(self._heard_N)
        assert self._encoder.lookahead_s is not None
        reach = math.ceil(self._encoder.lookahead_s * SAMPLE_RATE)
        if self._encoder.window is None:
            return max(0, (end - reach) // SAMPLES_PER_FRAME)
        length, _, after = self._encoder.window
        own_reach = reach - (length - 1 + after) * SAMPLES_PER_FRAME
        whole = (end - own_reach) // SAMPLES_PER_FRAME
        return max(0, (whole - after) // length * length)

    def features(self, first: int, last: int) -> Tensor:
        """Return what the model hears of pixel frames ``first .. last - 1``, pooled, ``[P, D]``."""
        assert first >= self._first and last <= self.known
        end = self.known if self.ended else self._first + len(self._heard_N) // SAMPLES_PER_FRAME + 1
        span = (first - self._first, last - self._first)
        return pooled(self._encoder, self._heard_N, end - self._first, span, self._pool)

    def played(self, first: int, last: int) -> np.ndarray:
        """Return the sound of pixel frames ``first .. last - 1`` at its own rate; past the end is silence."""
        begin, end = ((frame - self._first) * self._per_frame for frame in (first, last))
        piece_N = self._pushed_N[begin:end]
        return np.pad(piece_N, (0, end - begin - len(piece_N)))

    def cut(self, frame: int) -> None:
        """Forget all sound from a pixel frame on; the next that is pushed stands there, also after the end."""
        if self._resampler is not None and not self.ended:
            self._hear(self._resampler.finish()[0])
        self.ended = False
        count = frame - self._first
        self._pushed_N = _of_length(self._pushed_N, count * self._per_frame)
        self._heard_N = _of_length(self._heard_N, count * SAMPLES_PER_FRAME)
        self._begin_resampling(frame)

    def _kept_from(self, frame: int) -> int:
        """The pixel frame from which sound must be held to return to a pixel frame."""
        return max(0, (frame - max(self._before, PRIMING)) // self._unit * self._unit)

    def let_go(self, frame: int) -> None:
        """Hold no more than is needed to return to a pixel frame."""
        keep_from = self._kept_from(frame)
        if keep_from > self._first:
            dropped = keep_from - self._first
            self._pushed_N = self._pushed_N[dropped * self._per_frame :].copy()
            self._heard_N = self._heard_N[dropped * SAMPLES_PER_FRAME :].copy()
            self._first = keep_from

    @property
    def bytes(self) -> int:
        """Memory of the sound that is held."""
        return self._pushed_N.nbytes + self._heard_N.nbytes

    def state(self) -> SoundState:
        """Return all that is held."""
        pushed, heard = torch.from_numpy(self._pushed_N), torch.from_numpy(self._heard_N)
        return SoundState(pushed, heard, self._first, self._resampled_from, self.ended)

    def restore(self, state: SoundState, made: int) -> None:
        """Go on from a state. The resampler's own cannot be read, so it hears what is held again.

        Args:
            made: pixel frames that are made of it.

        Raises:
            UserError: its parts do not fit together.
        """
        self._pushed_N, self._heard_N = state.pushed_N.numpy(), state.heard_N.numpy()
        self._first, self.ended = state.first, state.ended
        self._begin_resampling(state.resampled_from)
        begin = max(self._first, state.resampled_from) - self._first
        lately_N = self._pushed_N[begin * self._per_frame :]
        if self._resampler is not None and not self.ended and len(lately_N):
            again_N = self._resampler.add(lately_N[None])[0]
            if len(again_N) != len(self._heard_N) - begin * SAMPLES_PER_FRAME:
                raise UserError("the saved session is damaged: as much sound is not heard as was pushed")
        self._check(made)

    def _check(self, made: int) -> None:
        """Refuse sound that does not reach as far as the frames that are made of it, or not as far back."""
        pushed, heard = len(self._pushed_N) / self._per_frame, len(self._heard_N) / SAMPLES_PER_FRAME
        there = self.samples // self._per_frame
        if self.ended and self.samples:
            there = covering_pixel_length(-(-self.samples // self._per_frame))
        if self._first > self._kept_from(made) or self._first % self._unit or made > there:
            held = f"frames {self._first} to {there}"
            raise UserError(f"the saved session is damaged: it holds the sound of {held}, and {made} are made of it")
        if self._resampled_from > self._first + pushed or abs(pushed - heard) > PRIMING:
            raise UserError("the saved session is damaged: as much sound is not heard as was pushed")

    def _hear(self, samples_N: np.ndarray) -> None:
        heard_N = samples_N if self._gain == 1.0 else samples_N * self._gain
        self._heard_N = np.concatenate([self._heard_N, heard_N.astype(np.float32)])

    def _begin_resampling(self, frame: int) -> None:
        self._resampled_from = frame
        self._resampler = None if self.rate == SAMPLE_RATE else Resampler(self.rate, SAMPLE_RATE, 1)


def _of_length(samples_N: np.ndarray, count: int) -> np.ndarray:
    """Return the first samples, or silence after them where there are too few."""
    return np.pad(samples_N[:count], (0, max(0, count - len(samples_N))))


def checked(pcm_N: np.ndarray) -> np.ndarray:
    """Return samples as float32.

    Raises:
        UserError: they are not mono, of another kind, no numbers, or far beyond full scale.
    """
    if isinstance(pcm_N, bytes | bytearray | memoryview):
        raise UserError("live sound must be an array of samples, not bytes; np.frombuffer(data, np.int16) makes one")
    pcm_N = np.asarray(pcm_N)
    if pcm_N.ndim != 1:
        raise UserError(f"live sound must be mono samples [N], not {list(pcm_N.shape)}")
    if pcm_N.dtype == np.int16:
        return pcm_N.astype(np.float32) / 2**15
    if pcm_N.dtype.kind != "f":
        raise UserError(f"live sound must be float32 in [-1, 1] or int16, not {pcm_N.dtype}")
    peak = float(np.abs(pcm_N).max(initial=0.0))
    if not np.isfinite(peak):
        raise UserError("the sound holds values that are no numbers (NaN or infinite)")
    if peak > LOUDEST:
        raise UserError(f"the sound reaches {peak:.4g}, where full scale is 1; divide integers by their full scale")
    return pcm_N.astype(np.float32)
