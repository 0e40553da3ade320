"""From a wave of any length to the slots that the model hears, piece by piece.

Shape legend: N samples, P pixel frames, T latent frames, S = 4 slots, D features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from df_models.encoders import AudioEncoder, AudioPool
from df_models.errors import UserError
from df_models.time import (
    SAMPLES_PER_FRAME,
    SLOTS,
    TEMPORAL_STRIDE,
    covering_pixel_length,
    latent_length,
    pool_audio,
    to_slots,
)

PIECE = 1500
"""Pixel frames encoded at a time (one minute); a multiple of the temporal stride."""


def frames_covering(wave_N: np.ndarray) -> int:
    """Return the smallest valid number of pixel frames (1 + 4 n) that lasts as long as the audio."""
    if wave_N.ndim != 1 or not len(wave_N):
        raise UserError(f"audio must be a non-empty mono wave [N], not {list(wave_N.shape)}")
    return covering_pixel_length(-(-len(wave_N) // SAMPLES_PER_FRAME))


def audio_pieces(
    encoder: AudioEncoder | None, wave_N: np.ndarray, num_pixel: int, pool: AudioPool, piece: int = PIECE
) -> Iterator[Tensor]:
    """Yield pooled audio ``[1, T', 4, D]`` whose pieces add up to ``num_pixel`` pixel frames.

    A piece has the features that the whole recording has there, and is encoded when it is asked for, in constant
    memory. An encoder that needs the whole recording (``lookahead_s`` is None) gets it in one call, and its features
    are then handed out in pieces.

    Args:
        encoder: None for a model that hears nothing: the pieces have width 0.
        pool: how the model pools features (``model.config.audio_pool``).
    """
    latent_length(num_pixel)
    assert piece % TEMPORAL_STRIDE == 0
    whole_PD = None
    if encoder is not None and encoder.lookahead_s is None:
        with record_function("df: hear"):
            whole_PD = pool_audio(encoder.encode(wave_N, num_pixel), pool)

    def encode(first: int, last: int) -> Tensor:
        return pooled(encoder, wave_N, num_pixel, (first, last), pool) if whole_PD is None else whole_PD[first:last]

    yield to_slots(encode(0, min(1 + piece, num_pixel)))[None]
    for first in range(1 + piece, num_pixel, piece):
        yield encode(first, min(first + piece, num_pixel)).unflatten(0, (-1, SLOTS))[None]


def pooled(
    encoder: AudioEncoder | None, wave_N: np.ndarray, num_pixel: int, span: tuple[int, int], pool: AudioPool
) -> Tensor:
    """Return the pooled audio ``[P, D]`` of pixel frames ``span[0] .. span[1] - 1`` of a recording.

    It is the same to the bit however a recording is divided into spans: where no grid says what is encoded together,
    every pixel frame is encoded by itself (a matrix product of more rows rounds otherwise).
    """
    first, last = span
    if encoder is None:
        return torch.zeros(last - first, 0)
    spans = [span] if encoder.window is not None else [(frame, frame + 1) for frame in range(first, last)]
    with record_function("df: hear"):
        return pool_audio(torch.cat([encoder.encode_span(wave_N, num_pixel, *one) for one in spans]), pool)
