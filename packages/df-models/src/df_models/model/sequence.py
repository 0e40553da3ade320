"""Ways for queries to read keys and values without a cache: the whole clip at once, or each latent frame alone.

Both rotate queries and keys themselves and are an :class:`df_models.model.block.Attend`.

Shape legend: B batch, T latent frames, N tokens per frame, H heads, K channels of a head, P = K / 2 pairs,
2 = cosine, sine.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from df_models.attention.backends import Mask, attention, frame_attention
from df_models.attention.rope import rotate


@dataclass(frozen=True)
class WholeSequence:
    """Attention over all latent frames under one mask (None: everything sees everything)."""

    query_table_TNP2: Tensor
    key_table_TNP2: Tensor
    mask: Mask

    def __call__(self, q_BTNHK: Tensor, k_BTNHK: Tensor, v_BTNHK: Tensor) -> Tensor:
        """Return ``[B, T, N, H, K]``."""
        q = rotate(q_BTNHK, self.query_table_TNP2).flatten(1, 2)
        k = rotate(k_BTNHK, self.key_table_TNP2).flatten(1, 2)
        out = attention(q, k, v_BTNHK.flatten(1, 2), self.mask)
        return out.unflatten(1, q_BTNHK.shape[1:3])


@dataclass(frozen=True)
class SameFrame:
    """Attention inside each latent frame; a table broadcasts over frames, or has one row per frame."""

    query_table_TNP2: Tensor
    key_table_TNP2: Tensor

    def __call__(self, q_BTNHK: Tensor, k_BTNHK: Tensor, v_BTNHK: Tensor) -> Tensor:
        """Return ``[B, T, N, H, K]``."""
        return frame_attention(rotate(q_BTNHK, self.query_table_TNP2), rotate(k_BTNHK, self.key_table_TNP2), v_BTNHK)
