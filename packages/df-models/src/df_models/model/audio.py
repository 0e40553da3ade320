"""Audio: conditioning that both towers attend to through a window in time, and that is never updated.

Latent frame k hears the slots of pixel frames ``4k-3-audio_past .. 4k+audio_future``. In the flat row of slots
(four per latent frame) those are ``4k-audio_past .. 4k+3+audio_future``. Slots before pixel frame 0 (among them the
three repeats in latent frame 0) and slots after the end of the audio are absent, as are those beyond a shorter future
that a model is told to hear.

The window as a whole becomes four tokens, one for each of the frame's slots, once per pass; every layer attends to
them. Speech audio become mouth shapes through their neighbours and their order, and an MLP over the ordered window has
both at once, where attention over single slots would have to learn them layer by layer. Windows flattened into a few
tokens are how Wan-based talking heads condition on audio (the audio projection of Hallo, 2024, and of MultiTalk, 2025).

Shape legend: B batch, T latent frames, A slots of audio given, W slots of a window, S = 4 tokens of a window, F audio
features, N queries per frame, D width, H heads, K channels of a head, P = K / 2 pairs, 2 = cosine,
sine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from df_models.attention.backends import frame_attention
from df_models.attention.rope import rotate, slot_offsets, time_table
from df_models.model.layers import init_linear
from df_models.model.norm import RMSNorm
from df_models.time import SLOTS

OWN_SLOT_BIAS = 3.0


@dataclass(frozen=True)
class AudioWindows:
    """Which of the given slots each latent frame hears, and the rotations of queries and keys.

    Attributes:
        index_TW: place of each heard slot among the given ones (clamped where absent).
        present_BTW: 1, or 0 where the slot is absent; B is 1 where all samples hear alike.
        table_TSP2: rotations of the tokens, and of structure queries, by their time relative to the latent frame.
    """

    index_TW: Tensor
    present_BTW: Tensor
    table_TSP2: Tensor


KeyValue = tuple[Tensor, Tensor]


class LayerKeys(NamedTuple):
    """One layer's keys and values of what is heard, rotated, each ``[B, T, S, H, K]``, for both towers' queries.

    None where a layer has no such attention, or is to make them itself.
    """

    video: KeyValue | None = None
    structure: KeyValue | None = None


NO_KEYS = LayerKeys()


@dataclass(frozen=True)
class HeardAudio:
    """What each latent frame hears.

    Attributes:
        tokens_BTSD: of the windows.
        windows: that they come from.
        keys: of every fusion layer, made once for all denoising steps of a chunk; None: each layer makes its own.
    """

    tokens_BTSD: Tensor
    windows: AudioWindows
    keys: tuple[LayerKeys, ...] | None = None

    def layer(self, index: int) -> LayerKeys:
        """Keys and values of one layer."""
        return NO_KEYS if self.keys is None else self.keys[index]


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
    heard: Tensor | int | None = None,
) -> AudioWindows:
    """Plan the windows of latent ``frames`` over slots ``first_slot .. first_slot + num_slots - 1``.

    Args:
        heard: of the ``future`` slots, how many each sample ``[B]`` (or all) hears; the others count as absent.
    """
    slots_TW = window_slots(frames, past, future)
    present_TW = (slots_TW >= max(SLOTS - 1, first_slot)) & (slots_TW < first_slot + num_slots)
    present_BTW = present_TW[None].to(device)
    if heard is not None:
        offsets_W = torch.arange(-past, SLOTS + future, device=device)
        heard_B11 = torch.as_tensor(heard, device=device).reshape(-1, 1, 1)
        present_BTW = present_BTW & (offsets_W < SLOTS + heard_B11)
    return AudioWindows(
        (slots_TW - first_slot).clamp(0, num_slots - 1).to(device),
        present_BTW.float(),
        time_table(slot_offsets(frames), head_dim, theta, device),
    )


class AudioWindowEmbedding(nn.Module):
    """An MLP over each latent frame's whole window: its slots' features in order, and which are present."""

    def __init__(self, audio_dim: int, window: int, width: int, eps: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(window * (audio_dim + 1), 2 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * width, SLOTS * width),
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        init_linear(self)

    def forward(self, audio_BAF: Tensor, windows: AudioWindows) -> Tensor:
        """Return tokens ``[B, T, S, D]`` from features ``[B, A, audio_dim]``."""
        frames, width = windows.index_TW.shape
        heard = audio_BAF.index_select(1, windows.index_TW.flatten()).unflatten(1, (frames, width))
        present = windows.present_BTW[..., None].to(heard.dtype)
        marked = torch.cat([heard * present, present.expand(len(heard), -1, -1, -1)], dim=-1)
        tokens = self.layers(marked.flatten(2).to(self.norm.weight.dtype)).unflatten(-1, (SLOTS, -1))
        return self.norm(tokens)


class AudioAttention(nn.Module):
    """Cross-attention from one tower to the audio tokens of each latent frame.

    Args:
        slots: the queries are the frame's four slots, each turned to its own slot's token by a learned bias
            ``[H, S, S]``; without it the queries are the video's, which stand at the latent frame as a whole.
    """

    def __init__(self, query_dim: int, width: int, num_heads: int, eps: float, *, slots: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(query_dim, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, query_dim)
        self.norm_q = RMSNorm(width, eps)
        self.norm_k = RMSNorm(width, eps)
        self.slot_bias: nn.Parameter | None = None
        if slots:
            self.slot_bias = nn.Parameter(OWN_SLOT_BIAS * torch.eye(SLOTS).repeat(num_heads, 1, 1))
        init_linear(self)

    def project(self, audio: HeardAudio) -> KeyValue:
        """Return the keys and values of what is heard."""
        heads = (self.num_heads, -1)
        k = rotate(self.norm_k(self.k(audio.tokens_BTSD)).unflatten(-1, heads), audio.windows.table_TSP2)
        return k, self.v(audio.tokens_BTSD).unflatten(-1, heads)

    def forward(self, q_BTND: Tensor, audio: HeardAudio, keys: KeyValue | None = None) -> Tensor:
        """Return the update of the tower ``[B, T, N, D]``, before its gate; the queries are what :attr:`q` makes of its
        normalised state."""
        q = self.norm_q(q_BTND).unflatten(-1, (self.num_heads, -1))
        k, v = self.project(audio) if keys is None else keys
        if self.slot_bias is not None:
            q = rotate(q, audio.windows.table_TSP2)
        return self.o(frame_attention(q, k, v, self.slot_bias).flatten(-2))
