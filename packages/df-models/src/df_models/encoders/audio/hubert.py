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

from df_models.encoders.pretrained import (
    PREPROCESSOR,
    FrozenPretrained,
    find_checkpoint,
    hub_origin,
    load_model,
    read_setting,
)
from df_models.encoders.weights import Origin, require_files
from df_models.errors import UserError
from df_models.time import AUDIO_PADDING, AUDIO_RATE, SAMPLE_RATE, samples_for

ORIGINS = {
    "hubert-large": hub_origin("hubert-large", "facebook/hubert-large-ls960-ft", "Apache-2.0"),
    "hubert-base": hub_origin("hubert-base", "facebook/hubert-base-ls960", "Apache-2.0"),
}
UNUSED = (r"lm_head\.(weight|bias)",)
"""The letters of the fine-tuned checkpoint's speech recognition."""
ABSENT = (r"(hubert\.)?masked_spec_embed",)
"""What masked training puts in the place of features."""

WINDOW = 400
HOP = SAMPLE_RATE // AUDIO_RATE
VARIANCE_FLOOR = 1e-7
CHUNK = 1000
"""Features that one pass keeps: 20 s."""
MARGIN = 250
"""Features on either side of a chunk that one pass computes and drops: 5 s. A pass hears 30 s at most, which is about
the longest utterance of LibriSpeech; pretraining saw pieces of 15.6 s (fairseq, ``max_sample_size: 250000``)."""


class Hubert(FrozenPretrained):
    """A frozen HuBERT: see :class:`df_models.encoders.base.AudioEncoder` for the protocol.

    **Framing.** The convolutions have a window of 400 and a stride of 320 samples. Audio gets 40 samples of silence in
    front and 40 behind, so feature i covers samples ``320 i - 40 .. 320 i + 360`` and a pixel frame owns two.

    **Level.** Where the checkpoint's ``preprocessor_config.json`` asks for it (``do_normalize``), the audio of one call
    is brought to mean 0 and variance 1, as ``Wav2Vec2FeatureExtractor`` does it. Silence that stands for missing audio
    comes afterwards: counted in, it would make the same words louder the longer the clip is. A recording that is
    handed over in pieces would be levelled piece by piece, so it belongs into one call (``margin`` is None).

    **Length.** Chunks of 20 s are encoded with 5 s of audio on both sides, which are dropped, so that memory grows with
    the length only by the features themselves; up to 20 s this is a single pass. Apart from the level, a feature
    depends on the total length only where its chunk ends no more than 5 s before the clip does; elsewhere it is the
    same to the bit. Within a pass every feature sees every other by attention, and HuBERT-base, whose first
    convolution has a group norm, also the loudness of all. With random weights of the published sizes and a minute of
    noise, chunks and one pass over the whole differ by 2 % of the features' deviation (root mean square, both models);
    with the published weights that has not been measured.
    """

    pool: Literal["mean", "concat"] = "mean"
    margin: int | None = None

    def __init__(self, module: Any, origin: Origin, sha256: str, *, normalize: bool) -> None:
        super().__init__(module, origin, sha256)
        self.dim = int(module.config.hidden_size)
        self.normalize = normalize

    @torch.no_grad()
    def encode(self, wave_N: np.ndarray, num_pixel_frames: int) -> Tensor:
        """Encode 16 kHz mono audio to ``[2 * num_pixel_frames, dim]``, float32, on the module's device.

        Audio past the end is not heard, missing audio is silence.

        Raises:
            UserError: the audio has more than one axis.
        """
        if wave_N.ndim != 1:
            raise UserError(f"audio must be a mono wave [N], not {list(wave_N.shape)}")
        given_N = wave_N[: samples_for(num_pixel_frames)]
        mean, deviation = level(given_N) if self.normalize else (0.0, 1.0)
        count = samples_for(num_pixel_frames) // HOP
        features_FD = torch.empty(count, self.dim, device=self.device)
        for begin in range(0, count, CHUNK):
            end = min(begin + CHUNK, count)
            first, last = max(0, begin - MARGIN), min(end + MARGIN, count)
            piece_N = (cut(given_N, first, last, fill=mean) - mean) / deviation
            hidden_FD = self._forward(torch.from_numpy(piece_N.astype(np.float32)))
            features_FD[begin:end] = hidden_FD[begin - first : end - first]
        return features_FD

    def _forward(self, wave_N: Tensor) -> Tensor:
        return self.module(self._cast(wave_N[None])).last_hidden_state[0].float()


def level(wave_N: np.ndarray) -> tuple[float, float]:
    """Return the mean of an audio signal and the root of its variance plus 1e-7; of no audio, 0 and 1.

    Source: transformers, ``Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm``.
    """
    if not len(wave_N):
        return 0.0, 1.0
    mean = float(wave_N.mean(dtype=np.float64))
    minutes = np.split(wave_N, range(60 * SAMPLE_RATE, len(wave_N), 60 * SAMPLE_RATE))
    variance = sum(float(np.square(minute - mean, dtype=np.float64).sum()) for minute in minutes) / len(wave_N)
    return mean, float(np.sqrt(variance + VARIANCE_FLOOR))


def cut(wave_N: np.ndarray, first: int, last: int, *, fill: float) -> np.ndarray:
    """Return the samples that features ``first .. last - 1`` cover, float64; ``fill`` stands where there are none."""
    begin = HOP * first - AUDIO_PADDING // 2
    samples = np.full(HOP * (last - first) + AUDIO_PADDING, fill)
    inside = wave_N[max(0, begin) : begin + len(samples)]
    offset = max(0, -begin)
    samples[offset : offset + len(inside)] = inside
    return samples


def load(name: str, location: str | None) -> Hubert:
    """Load ``hubert-large`` (width 1024) or ``hubert-base`` (768), or a checkpoint of that form at a location.

    Raises:
        UserError: a file is missing or damaged, or holds another model, rate or framing.
    """
    origin = ORIGINS[name]
    directory = find_checkpoint(origin, location)
    from transformers import HubertModel

    require_files(origin, directory, (PREPROCESSOR,))
    normalize = _normalize(directory / PREPROCESSOR)
    module, sha256 = load_model(origin, directory, HubertModel, ("hubert",), unused=UNUSED, absent=ABSENT)
    framing = _framing(module.config)
    if framing != (WINDOW, HOP):
        raise UserError(f"{directory} has windows and strides of {framing} samples, not {(WINDOW, HOP)}: no {name}")
    return Hubert(module, origin, sha256, normalize=normalize)


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
