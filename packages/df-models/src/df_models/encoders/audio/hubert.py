"""HuBERT: self-supervised speech features at 50 Hz (Hsu et al. 2021), by transformers' ``HubertModel``.

``last_hidden_state`` is kept: it stands after the last LayerNorm in all versions of transformers, whereas
``hidden_states[-1]`` of HuBERT-large stands before it from version 5 on.

Shape legend: N samples of 16 kHz audio, P pixel frames, F = 2 P features, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from df_models.encoders.audio.framing import HOP, WINDOW, cut
from df_models.encoders.pretrained import (
    PREPROCESSOR,
    FrozenPretrained,
    find_checkpoint,
    load_model,
    read_setting,
)
from df_models.encoders.registry import SPEECH_WINDOW, WINDOW_MARK, AudioWindow, origin_of
from df_models.encoders.weights import Origin, require_files
from df_models.errors import UserError
from df_models.time import SAMPLE_RATE, samples_for

UNUSED = (r"lm_head\.(weight|bias)",)
"""The letters of the fine-tuned checkpoint's speech recognition."""
ABSENT = (r"(hubert\.)?masked_spec_embed",)
"""What masked training puts in the place of features."""

VARIANCE_FLOOR = 1e-7


class Hubert(FrozenPretrained):
    """A frozen HuBERT: see :class:`df_models.encoders.base.AudioEncoder` for the protocol.

    **Framing.** The convolutions have a window of 400 and a stride of 320 samples. Audio gets 40 samples of silence in
    front and 40 behind, so feature i covers samples ``320 i - 40 .. 320 i + 360`` and a pixel frame owns two.

    **Window.** Within a pass every feature sees every other by attention, so what is encoded at once is part of what a
    feature means. A recording is therefore encoded in pieces of ``window.length`` pixel frames on a fixed grid from its
    start, each with ``window.before`` and ``window.after`` of audio around it whose features are dropped. Data and
    generation cut alike, a feature depends on nothing further away, and memory does not grow with the length. How far
    that is from one pass over the whole: ``benchmarks/audio_window.py``.

    **Level.** Where the checkpoint's ``preprocessor_config.json`` asks for it (``do_normalize``), the audio of a pass
    is brought to mean 0 and variance 1, as ``Wav2Vec2FeatureExtractor`` does it. Silence that stands for missing audio
    comes afterwards: counted in, it would make the same words louder the more is missing.

    Attributes:
        window: None encodes the whole in one pass, to compare with.
    """

    pool: Literal["mean", "concat"] = "mean"

    def __init__(
        self, module: Any, origin: Origin, sha256: str, *, normalize: bool, window: AudioWindow | None = SPEECH_WINDOW
    ) -> None:
        super().__init__(module, origin, sha256)
        self.id = origin.name if window is None else f"{origin.name}{WINDOW_MARK}{window}"
        self.dim = int(module.config.hidden_size)
        self.normalize = normalize
        self.window = window

    @property
    def lookahead_s(self) -> float | None:
        """What the first pixel frame of a piece hears of the audio after it."""
        return None if self.window is None else self.window.lookahead_s

    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> Tensor:
        """Encode 16 kHz mono audio to ``[2 * num_pixel_frames, dim]``, float32, on the module's device.

        Audio past the end is not heard, missing audio is silence.

        Raises:
            UserError: the audio has more than one axis.
        """
        return self.encode_span(wave_N, num_pixel_frames, 0, num_pixel_frames)

    @torch.no_grad()
    def encode_span(self, wave_N: np.ndarray, num_pixel_frames: int, first: int, last: int) -> Tensor:
        """Return the features of pixel frames ``first .. last - 1``; every piece they lie in is encoded whole."""
        if wave_N.ndim != 1:
            raise UserError(f"audio must be a mono wave [N], not {list(wave_N.shape)}")
        length, before, after = self.window or AudioWindow(num_pixel_frames, 0, 0)
        features_FD = torch.empty(2 * (last - first), self.dim, device=self.device)
        for begin in range(first - first % length, last, length):
            end = min(begin + length, num_pixel_frames)
            heard_first, heard_last = max(0, begin - before), min(end + after, num_pixel_frames)
            hidden_FD = self._pass(wave_N[: samples_for(num_pixel_frames)], heard_first, heard_last)
            kept_first, kept_last = max(begin, first), min(end, last)
            target = slice(2 * (kept_first - first), 2 * (kept_last - first))
            features_FD[target] = hidden_FD[2 * (kept_first - heard_first) : 2 * (kept_last - heard_first)]
        return features_FD

    def _pass(self, wave_N: np.ndarray, first: int, last: int) -> Tensor:
        """Encode pixel frames ``first .. last - 1`` at once, ``[2 * (last - first), D]``."""
        heard_N = wave_N[samples_for(first) : samples_for(last)]
        mean, deviation = level(heard_N) if self.normalize else (0.0, 1.0)
        samples_N = (cut(wave_N, 2 * first, 2 * last, fill=mean) - mean) / deviation
        wave_1N = self._cast(torch.from_numpy(samples_N.astype(np.float32))[None])
        return self.module(wave_1N).last_hidden_state[0].float()


def level(wave_N: np.ndarray) -> tuple[float, float]:
    """Return the mean of an audio signal and the root of its variance plus 1e-7; of no audio, 0 and 1.

    Source: transformers, ``Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm``.
    """
    if not len(wave_N):
        return 0.0, 1.0
    mean = float(wave_N.mean(dtype=np.float64))
    variance = float(np.square(wave_N - mean, dtype=np.float64).mean())
    return mean, float(np.sqrt(variance + VARIANCE_FLOOR))


def load(name: str, location: str | None, window: AudioWindow | None = SPEECH_WINDOW) -> Hubert:
    """Load ``hubert-large`` (width 1024) or ``hubert-base`` (768), or a checkpoint of that form at a location.

    Raises:
        UserError: a file is missing or damaged, or holds another model, rate or framing.
    """
    origin = origin_of(name)
    directory = find_checkpoint(origin, location)
    from transformers import HubertModel

    require_files(origin, directory, (PREPROCESSOR,))
    normalize = _normalize(directory / PREPROCESSOR)
    module, sha256 = load_model(origin, directory, HubertModel, ("hubert",), unused=UNUSED, absent=ABSENT)
    framing = _framing(module.config)
    if framing != (WINDOW, HOP):
        raise UserError(f"{directory} has windows and strides of {framing} samples, not {(WINDOW, HOP)}: no {name}")
    return Hubert(module, origin, sha256, normalize=normalize, window=window)


def _normalize(path: Path) -> bool:
    rate = read_setting(path, "sampling_rate")
    if rate != SAMPLE_RATE:
        raise UserError(f"{path} asks for audio at {rate} Hz; only models for {SAMPLE_RATE} Hz fit")
    return bool(read_setting(path, "do_normalize"))


def _framing(config: Any) -> tuple[int, int]:
    """Return window and stride, in samples, of a stack of convolutions."""
    window, stride = 1, 1
    for kernel, step in zip(config.conv_kernel, config.conv_stride):
        window, stride = window + (kernel - 1) * stride, stride * step
    return window, stride
