"""Rotary positions, after Wan: interleaved pairs, angles in float64.

A head's pairs are split over time, height and width (44/42/42 of 128 channels) for video; structure uses time alone.
Temporal positions are real numbers in latent-frame units (:mod:`df_models.time`), so that the streams are aligned.

Angles are worked out on the host, where there always is float64 (Apple's MPS has none); a device gets their cosines and
sines in float32.

Shape legend: T latent frames, N tokens per frame, S slots, H heads, K channels of a head, P = K / 2 pairs,
2 = cosine, sine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from df_models.time import SLOTS, slot_positions

COMPLEX_DEVICES = ("cpu", "cuda")
"""Where products of complex numbers are known to be fast; elsewhere they are written out."""


def pair_split(head_dim: int) -> tuple[int, int, int]:
    """Return how many pairs of a head turn with t, h and w (Wan's rule: height and width get a third each)."""
    spatial = head_dim // 6
    return head_dim // 2 - 2 * spatial, spatial, spatial


def video_table(
    positions_T: Tensor, grid: tuple[int, int], head_dim: int, theta: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the rotations of video tokens, float32 ``[T, N, P, 2]``, for a token grid of ``(rows, columns)``."""
    pairs_t, pairs_h, pairs_w = pair_split(head_dim)
    rows, columns = grid
    shape = (len(positions_T), rows, columns)
    turn_t = _turns(positions_T, pairs_t, theta).to(device)[:, None, None].expand(*shape, -1, -1)
    turn_h = _turns(torch.arange(rows), pairs_h, theta).to(device)[None, :, None].expand(*shape, -1, -1)
    turn_w = _turns(torch.arange(columns), pairs_w, theta).to(device)[None, None].expand(*shape, -1, -1)
    return torch.cat([turn_t, turn_h, turn_w], dim=-2).flatten(1, 2)


def time_table(positions: Tensor, head_dim: int, theta: float, device: torch.device | str = "cpu") -> Tensor:
    """Return the rotations of tokens that only have a time, ``[..., P, 2]``: every pair turns with it."""
    return _turns(positions, head_dim // 2, theta).to(device)


def aligned_time_table(positions: Tensor, head_dim: int, theta: float, device: torch.device | str = "cpu") -> Tensor:
    """Return rotations ``[..., P, 2]`` for a token that meets video tokens: at its time, and at row and column 0."""
    pairs_t, pairs_h, pairs_w = pair_split(head_dim)
    still = _turns(torch.zeros_like(positions), pairs_h + pairs_w, theta)
    return torch.cat([_turns(positions, pairs_t, theta), still], dim=-2).to(device)


def _turns(positions: Tensor, pairs: int, theta: float) -> Tensor:
    """Return cosines and sines of the angles of positions on the host, ``[..., pairs, 2]``."""
    steps = torch.arange(pairs, dtype=torch.float64) / max(pairs, 1)
    angles = positions.double()[..., None] * theta**-steps
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float()


def slot_offsets(frames: tuple[int, ...]) -> Tensor:
    """Return each slot's time minus its latent frame's, float64 ``[T, S]``; ``frames`` are absolute indices."""
    first = slot_positions(1)[0]
    other = slot_positions(1, first=1)[0] - 1.0
    return torch.stack([first if frame == 0 else other for frame in frames]).view(-1, SLOTS)


def rotate(x_K: Tensor, table_P2: Tensor) -> Tensor:
    """Turn the interleaved pairs of ``x [..., H, K]`` by ``table [..., P, 2]``, in float32; the dtype is kept."""
    pairs = x_K.float().unflatten(-1, (-1, 2))
    table = table_P2.unsqueeze(-3)
    if torch.compiler.is_compiling() or x_K.device.type not in COMPLEX_DEVICES:
        cos, sin = table.unbind(-1)  # Inductor fuses real arithmetic and leaves complex to single kernels
        even, odd = pairs.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return turned.flatten(-2).to(x_K.dtype)
