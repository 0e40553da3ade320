"""Rotary positions, after Wan: interleaved pairs, tables in float64.

A head's pairs are split over time, height and width (44/42/42 of 128 channels) for video; structure uses time alone.
Temporal positions are real numbers in latent-frame units (:mod:`df_models.time`), so that the streams are aligned.

Shape legend: T latent frames, N tokens per frame, S slots, H heads, K channels of a head, P = K / 2 pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from df_models.time import SLOTS, slot_positions


def pair_split(head_dim: int) -> tuple[int, int, int]:
    """Return how many pairs of a head turn with t, h and w (Wan's rule: height and width get a third each)."""
    spatial = head_dim // 6
    return head_dim // 2 - 2 * spatial, spatial, spatial


def _angles(positions: Tensor, pairs: int, theta: float) -> Tensor:
    steps = torch.arange(pairs, dtype=torch.float64, device=positions.device) / max(pairs, 1)
    return positions.double()[..., None] * theta**-steps


def _table(angles: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def video_table(positions_T: Tensor, grid: tuple[int, int], head_dim: int, theta: float) -> Tensor:
    """Return the rotations of video tokens, complex64 ``[T, N, P]``, for a token grid of ``(rows, columns)``."""
    pairs_t, pairs_h, pairs_w = pair_split(head_dim)
    rows, columns = grid
    device = positions_T.device
    shape = (len(positions_T), rows, columns)
    turn_t = _angles(positions_T, pairs_t, theta)[:, None, None].expand(*shape, pairs_t)
    turn_h = _angles(torch.arange(rows, device=device), pairs_h, theta)[None, :, None].expand(*shape, pairs_h)
    turn_w = _angles(torch.arange(columns, device=device), pairs_w, theta)[None, None].expand(*shape, pairs_w)
    return _table(torch.cat([turn_t, turn_h, turn_w], dim=-1).flatten(1, 2))


def time_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Return the rotations of tokens that only have a time, complex64 ``[..., P]``: every pair turns with it."""
    return _table(_angles(positions, head_dim // 2, theta))


def aligned_time_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Return rotations ``[..., P]`` for a token that meets video tokens: at its time, and at row and column 0."""
    pairs_t, pairs_h, pairs_w = pair_split(head_dim)
    turn_t = _angles(positions, pairs_t, theta)
    return _table(torch.cat([turn_t, turn_t.new_zeros(*turn_t.shape[:-1], pairs_h + pairs_w)], dim=-1))


def slot_offsets(frames_T: Tensor) -> Tensor:
    """Return each slot's time minus its latent frame's, float64 ``[T, S]``; ``frames_T`` are absolute indices."""
    first = slot_positions(1)[0]
    other = slot_positions(1, first=1)[0] - 1.0
    return torch.where(frames_T[:, None] == 0, first.to(frames_T.device), other.to(frames_T.device)).view(-1, SLOTS)


def rotate(x_K: Tensor, table_P: Tensor) -> Tensor:
    """Turn the interleaved pairs of ``x [..., H, K]`` by ``table [..., P]``, in float32; the dtype is kept."""
    pairs = x_K.float().unflatten(-1, (-1, 2))
    table = table_P.unsqueeze(-2)
    if torch.compiler.is_compiling():  # Inductor fuses real arithmetic and leaves complex to single kernels
        cos, sin = torch.view_as_real(table).unbind(-1)
        even, odd = pairs.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * table)
    return turned.flatten(-2).to(x_K.dtype)
