"""Audio: conditioning that both towers attend to through a window in time, and that is never updated.

Latent frame k hears the slots of pixel frames ``4k-3-audio_past .. 4k+audio_future``. In the flat row of slots
(four per latent frame) those are ``4k-audio_past .. 4k+3+audio_future``. Slots before pixel frame 0 (among them the
three repeats in latent frame 0) and slots after the end of the audio are absent.

Shape legend: B batch, T latent frames, A slots of audio given, W slots of a window, N queries per frame, D width,
H heads, K channels of a head, P = K / 2 pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from df_models.attention import frame_attention
from df_models.layers import init_linear
from df_models.norm import RMSNorm
from df_models.rope import rotate, slot_offsets, time_table
from df_models.time import SLOTS, TEMPORAL_STRIDE


@dataclass(frozen=True)
class AudioWindows:
    """Which of the given slots each latent frame hears, and the rotations of queries and keys.

    Attributes:
        index_TW: place of each heard slot among the given ones (clamped where absent).
        bias_TW: 0, or minus infinity where the slot is absent.
        key_table_WP: rotations by the slot's time relative to the latent frame.
        structure_table_TSP: rotations of the structure tokens by their time relative to the latent frame.
    """

    index_TW: Tensor
    bias_TW: Tensor
    key_table_WP: Tensor
    structure_table_TSP: Tensor


def window_slots(frames: tuple[int, ...], past: int, future: int) -> Tensor:
    """Return the flat slot indices that each latent frame's window spans, int64 ``[T, W]``."""
    offsets_W = torch.arange(-past, SLOTS + future)
    return SLOTS * torch.tensor(frames)[:, None] + offsets_W


def audio_windows(
    frames: tuple[int, ...],
    first_slot: int,
    num_slots: int,
    *,
    past: int,
    future: int,
    head_dim: int,
    theta: float,
    device: torch.device,
) -> AudioWindows:
    """Plan the windows of latent ``frames`` over slots ``first_slot .. first_slot + num_slots - 1``."""
    slots_TW = window_slots(frames, past, future)
    present = (slots_TW >= max(SLOTS - 1, first_slot)) & (slots_TW < first_slot + num_slots)
    bias = torch.zeros(slots_TW.shape).masked_fill_(~present, -torch.inf)
    times_W = (torch.arange(-past, SLOTS + future, dtype=torch.float64) - (SLOTS - 1)) / TEMPORAL_STRIDE
    return AudioWindows(
        (slots_TW - first_slot).clamp(0, num_slots - 1).to(device),
        bias.to(device),
        time_table(times_W, head_dim, theta).to(device),
        time_table(slot_offsets(torch.tensor(frames)), head_dim, theta).to(device),
    )


class AudioEmbedding(nn.Module):
    """A small perceptron over each slot's audio features."""

    def __init__(self, audio_dim: int, width: int, eps: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(audio_dim, width), nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width, eps=eps)
        init_linear(self)

    def forward(self, audio_BAF: Tensor) -> Tensor:
        """Return ``[B, A, D]`` from features ``[B, A, audio_dim]``."""
        return self.norm(self.layers(audio_BAF.to(self.norm.weight.dtype)))


class AudioAttention(nn.Module):
    """Cross-attention from one tower to the audio inside each latent frame's window."""

    def __init__(self, query_dim: int, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(query_dim, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, query_dim)
        self.norm_q = RMSNorm(width, eps)
        self.norm_k = RMSNorm(width, eps)
        init_linear(self)

    def forward(
        self, query_BTND: Tensor, audio_BAD: Tensor, windows: AudioWindows, query_table: Tensor | None
    ) -> Tensor:
        """Return the update of the tower ``[B, T, N, D]``, before its gate.

        Args:
            query_BTND: normalised state of the tower.
            audio_BAD: embedded audio slots.
            windows: the plan of who hears what.
            query_table: rotations ``[T, N, P]`` of queries that do not stand at their latent frame's own time.
        """
        heads = (self.num_heads, -1)
        frames, width = windows.index_TW.shape
        q = self.norm_q(self.q(query_BTND)).unflatten(-1, heads)
        k = self.norm_k(self.k(audio_BAD))
        v = self.v(audio_BAD)
        heard = torch.cat([k, v], dim=-1).index_select(1, windows.index_TW.flatten()).unflatten(1, (frames, width))
        k, v = (part.unflatten(-1, heads) for part in heard.chunk(2, dim=-1))
        if query_table is not None:
            q = rotate(q, query_table)
        return self.o(frame_attention(q, rotate(k, windows.key_table_WP), v, windows.bias_TW).flatten(-2))
