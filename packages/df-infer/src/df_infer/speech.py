"""From a wave of any length to the slots that the model hears, piece by piece.

Shape legend: N samples, P pixel frames, T latent frames, S = 4 slots, D features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from df_models.encoders import AudioEncoder
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
MARGIN = 25
"""Pixel frames encoded on either side of a piece and dropped, so that pieces join without a seam."""


def frames_covering(wave_N: np.ndarray) -> int:
    """Return the smallest valid number of pixel frames (1 + 4 n) that lasts as long as the sound."""
    if wave_N.ndim != 1 or not len(wave_N):
        raise UserError(f"sound must be a non-empty mono wave [N], not {list(wave_N.shape)}")
    return covering_pixel_length(-(-len(wave_N) // SAMPLES_PER_FRAME))


def audio_pieces(encoder: AudioEncoder, wave_N: np.ndarray, num_pixel: int, piece: int = PIECE) -> Iterator[Tensor]:
    """Yield pooled audio ``[1, T', 4, D]`` whose pieces add up to ``num_pixel`` pixel frames.

    A piece is encoded with a margin of sound on both sides: exact for encoders that see less than the margin
    (log-mel), and constant in memory for all.
    """
    latent_length(num_pixel)
    assert piece % TEMPORAL_STRIDE == 0
    yield to_slots(_encode(encoder, wave_N, 0, min(1 + piece, num_pixel), num_pixel))[None]
    for first in range(1 + piece, num_pixel, piece):
        features_PD = _encode(encoder, wave_N, first, min(first + piece, num_pixel), num_pixel)
        yield features_PD.unflatten(0, (-1, SLOTS))[None]


def _encode(encoder: AudioEncoder, wave_N: np.ndarray, first: int, last: int, num_pixel: int) -> Tensor:
    """Encode pixel frames ``first .. last-1`` with margins; return them pooled, ``[P, D]``."""
    begin, end = max(0, first - MARGIN), min(num_pixel, last + MARGIN)
    part = wave_N[begin * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
    pooled_PD = pool_audio(encoder.encode(part, end - begin), encoder.pool)
    return pooled_PD[first - begin : last - begin].to(torch.float32)
