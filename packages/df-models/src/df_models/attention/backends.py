"""The one attention interface of the model.

``sdpa`` with an additive mask is the reference and runs everywhere. ``flex`` is FlexAttention with a block mask, which
skips what the mask hides; ``auto`` takes it on CUDA for long masked sequences. On a CPU in bfloat16 the fused kernel's
backward is several times slower than two matrix products and a softmax, so short sequences take those.

Shape legend: B batch, T latent frames, N tokens per frame, L = T * N tokens, H heads, K channels of a head.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from df_models.attention.masks import BlockMasks, FrameLayout, additive_mask, causal_table

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

AttentionBackend = Literal["auto", "sdpa", "flex"]
Mask: TypeAlias = "Tensor | BlockMask | None"
"""Who sees whom, as a backend takes it: an additive mask ``[Lq, Lk]``, a block mask, or all see all."""

FLEX_MIN_TOKENS = 1024
EXPLICIT_MAX_SCORES = 1 << 20


def attention(q_BLHK: Tensor, k_BLHK: Tensor, v_BLHK: Tensor, mask: Mask = None) -> Tensor:
    """Return ``[B, Lq, H, K]``; keys and values are ``[B, Lk, H, K]``; scores are scaled by ``K**-0.5``."""
    q_BHLK, k_BHLK, v_BHLK = (x.transpose(1, 2) for x in (q_BLHK, k_BLHK, v_BLHK))
    if mask is None or isinstance(mask, Tensor):
        return biased_attention(q_BHLK, k_BHLK, v_BHLK, mask).transpose(1, 2)
    out_BHLK: Tensor = _flex(q_BHLK.is_cuda)(q_BHLK, k_BHLK, v_BHLK, block_mask=mask)
    return out_BHLK.transpose(1, 2)


def biased_attention(q_BHLK: Tensor, k_BHLK: Tensor, v_BHLK: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax attention ``[B, H, Lq, K]`` with an additive bias that broadcasts to ``[B, H, Lq, Lk]``."""
    if _prefer_explicit(q_BHLK, k_BHLK):
        scores = (q_BHLK * q_BHLK.shape[-1] ** -0.5) @ k_BHLK.transpose(-1, -2)
        return (scores if bias is None else scores + bias).softmax(dim=-1) @ v_BHLK
    if q_BHLK.is_meta and type(q_BHLK) is Tensor:  # sizes alone; SDPA would keep scores there, as no fused kernel does
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q_BHLK, k_BHLK, v_BHLK)[0]
    return F.scaled_dot_product_attention(q_BHLK, k_BHLK, v_BHLK, attn_mask=bias)


def frame_attention(q_BTNHK: Tensor, k_BTMHK: Tensor, v_BTMHK: Tensor, bias_HNM: Tensor | None = None) -> Tensor:
    """Return attention inside each latent frame, ``[B, T, N, H, K]``: a batch of ``B * T`` small problems.

    ``bias_HNM`` is added to the scores, the same in every frame.
    """
    batch, frames = q_BTNHK.shape[:2]
    q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q_BTNHK, k_BTMHK, v_BTMHK))
    bias = None if bias_HNM is None else bias_HNM.to(q.dtype)[None]  # fused kernels take four axes, or two
    return biased_attention(q, k, v, bias).transpose(1, 2).unflatten(0, (batch, frames))


def _prefer_explicit(q_BHLK: Tensor, k_BHLK: Tensor) -> bool:
    short = q_BHLK.shape[-2] * k_BHLK.shape[-2] <= EXPLICIT_MAX_SCORES
    return short and q_BHLK.device.type == "cpu" and q_BHLK.dtype == torch.bfloat16


def causal_mask(
    layout: FrameLayout,
    tokens: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    backend: AttentionBackend,
    blocks: BlockMasks,
) -> Tensor | BlockMask:
    """Return the causal mask of a sequence for the backend; made before the layers run, so that all find the same.

    Args:
        layout: the frames, on both sides.
        tokens: tokens per frame of the queries and of the keys.
        dtype: what attention computes in.
        blocks: where the model keeps its block masks.
    """
    if _use_flex(device, len(layout) * min(tokens), backend):
        return blocks.causal(layout, *tokens, device)
    return additive_mask(causal_table(layout), *tokens, device, dtype)


def _use_flex(device: torch.device, length: int, backend: AttentionBackend) -> bool:
    if backend != "auto":
        return backend == "flex"
    return device.type == "cuda" and length >= FLEX_MIN_TOKENS


@cache
def _flex(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
