"""Log-mel features at 50 Hz: the embedded audio encoder, with no weights to download.

Shape legend: N samples, F features of 50 Hz, M mel bands, K frequency bins.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from df_models.encoders.audio.framing import HOP, WINDOW, cut
from df_models.encoders.registry import AudioWindow
from df_models.encoders.weights import refuse_location
from df_models.time import AUDIO_PADDING, FPS, SAMPLE_RATE, samples_for

N_FFT = 512
FLOOR = 1e-5
CENTRE, SPREAD = -4.0, 3.0


class LogMel:
    """64 mel bands of 40-7600 Hz, window 25 ms, hop 20 ms, natural logarithm, scaled to about unit range.

    The framing is HuBERT's (kernel 400, stride 320, 80 samples of padding), so feature i covers samples
    ``320 i - 40 .. 320 i + 360`` and a pixel frame owns exactly two features. The mel scale is O'Shaughnessy's
    ``2595 log10(1 + f/700)``, with triangular filters of peak 1.
    """

    id = "logmel"
    licence = "Apache-2.0"
    dim = 64
    pool: Literal["mean", "concat"] = "concat"
    lookahead_s: float | None = AUDIO_PADDING / 2 / SAMPLE_RATE
    window: AudioWindow | None = None

    def __init__(self) -> None:
        self._window = torch.hann_window(WINDOW, periodic=True)
        self._filters_KM = mel_filters(self.dim)
        self.sha256 = hashlib.sha256(self._filters_KM.numpy().tobytes()).hexdigest()

    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> Tensor:
        """Encode 16 kHz mono audio to ``[2 * num_pixel_frames, 64]``; audio past the end is silence."""
        return self.encode_span(wave_N, num_pixel_frames, 0, num_pixel_frames)

    def encode_span(self, wave_N: np.ndarray, num_pixel_frames: int, first: int, last: int) -> Tensor:
        """Encode pixel frames ``first .. last - 1`` of a recording to ``[2 * (last - first), 64]``."""
        heard_N = cut(wave_N[: samples_for(num_pixel_frames)], 2 * first, 2 * last)
        frames_FN = torch.from_numpy(heard_N.astype(np.float32)).unfold(0, WINDOW, HOP)
        power_FK = torch.fft.rfft(frames_FN * self._window, n=N_FFT).abs().square()
        return ((power_FK @ self._filters_KM).clamp_min(FLOOR).log() - CENTRE) / SPREAD

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LogMel:
        """Return itself: there are no weights to move."""
        return self


def mel_filters(bands: int, low: float = 40.0, high: float = 7600.0) -> Tensor:
    """Return triangular mel filters, float32 ``[N_FFT/2 + 1, bands]``."""
    edges = np.linspace(_mel(low), _mel(high), bands + 2)
    edges_hz = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    bins_hz = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
    rising = (bins_hz[:, None] - edges_hz[None, :-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[None, 2:] - bins_hz[:, None]) / (edges_hz[2:] - edges_hz[1:-1])
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))


def _mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def load(name: str, location: str | None) -> LogMel:
    """Return the encoder; it has no weights to locate."""
    refuse_location(name, location)
    return LogMel()


assert SAMPLE_RATE // FPS == 2 * HOP
