"""Wan's transformer block, the one block of both towers.

``x += g1 SA(mod(norm1 x)); x += CA(norm3 x); x += g2 FFN(mod(norm2 x))``: self-attention and feed-forward are modulated
by the noise level of each latent frame, cross-attention (to text and reference tokens) is neither gated nor
modulated. Parameter names are those of Wan 2.1, with the I2V variant's ``k_img``, ``v_img``, ``norm_k_img`` for the
reference.

Shape legend: B batch, T latent frames, N tokens per frame, L context tokens, D width, H heads, K = D / H.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from df_models.attention.backends import attention
from df_models.model.joined import Joined, products
from df_models.model.layers import computed, modulate, plain_norm, scaled_norm
from df_models.model.norm import RMSNorm


class Attend(Protocol):
    """How self-attention reads its sequence: all at once, or a chunk against a cache."""

    def __call__(self, q_BTNHK: Tensor, k_BTNHK: Tensor, v_BTNHK: Tensor) -> Tensor:
        """Return attention ``[B, T, N, H, K]`` for queries, keys and values before rotation."""
        ...


class Context(NamedTuple):
    """Tokens that cross-attention reads, of the tower's width: text ``[B, L, D]``, reference ``[B, L, D]``."""

    text: Tensor | None
    reference: Tensor | None


KeyValue = tuple[Tensor, Tensor]


class ProjectedContext(NamedTuple):
    """One layer's keys and values of a :class:`Context`, each ``[B, L, H, K]``."""

    text: KeyValue | None
    reference: KeyValue | None


class SelfAttention(nn.Module):
    """Self-attention with RMSNorm on the full width of queries and keys."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    @property
    def readers(self) -> dict[str, nn.Linear]:
        """The layers that read the input."""
        return {"q": self.q, "k": self.k, "v": self.v}

    def forward(self, x_BTND: Tensor, attend: Attend, joined: Joined | None = None) -> Tensor:
        """Return ``[B, T, N, D]``; ``joined``: the parameters of :attr:`readers`, if they lie together."""
        heads = (self.num_heads, -1)
        made = products(x_BTND, self.readers, joined)
        q = self.norm_q(made["q"]).unflatten(-1, heads)
        k = self.norm_k(made["k"]).unflatten(-1, heads)
        v = made["v"].unflatten(-1, heads)
        return self.o(attend(q, k, v).flatten(-2))


class CrossAttention(nn.Module):
    """Cross-attention to text and, with the same queries, to reference tokens; the two results are added."""

    def __init__(self, dim: int, num_heads: int, eps: float, *, text: bool, reference: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        if text:
            self.k = nn.Linear(dim, dim)
            self.v = nn.Linear(dim, dim)
            self.norm_k = RMSNorm(dim, eps)
        if reference:
            self.k_img = nn.Linear(dim, dim)
            self.v_img = nn.Linear(dim, dim)
            self.norm_k_img = RMSNorm(dim, eps)

    def project(self, context: Context) -> ProjectedContext:
        """Return this layer's keys and values of the context."""
        heads = (self.num_heads, -1)
        text = reference = None
        if context.text is not None:
            text = (
                self.norm_k(self.k(context.text)).unflatten(-1, heads),
                self.v(context.text).unflatten(-1, heads),
            )
        if context.reference is not None:
            reference = (
                self.norm_k_img(self.k_img(context.reference)).unflatten(-1, heads),
                self.v_img(context.reference).unflatten(-1, heads),
            )
        return ProjectedContext(text, reference)

    def forward(self, x_BTND: Tensor, context: Context | ProjectedContext) -> Tensor:
        """Return ``[B, T, N, D]``."""
        projected = self.project(context) if isinstance(context, Context) else context
        shape = x_BTND.shape
        q = self.norm_q(self.q(x_BTND.flatten(1, 2))).unflatten(-1, (self.num_heads, -1))
        results = [attention(q, k, v) for pair in projected if pair is not None for k, v in [pair]]
        total = results[0] if len(results) == 1 else results[0] + results[1]
        return self.o(total.flatten(-2)).view(shape)


class Block(nn.Module):
    """One layer of a tower. Without text and reference it has no cross-attention at all."""

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, eps: float, *, text: bool = False, reference: bool = False
    ) -> None:
        super().__init__()
        self.eps = eps
        self.self_attn = SelfAttention(dim, num_heads, eps)
        self.cross_attn: CrossAttention | None = None
        if text or reference:
            self.norm3 = nn.LayerNorm(dim, eps=eps)
            self.cross_attn = CrossAttention(dim, num_heads, eps, text=text, reference=reference)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        x_BTND: Tensor,
        noise_BT6D: Tensor,
        attend: Attend,
        context: Context | ProjectedContext,
        joined: Joined | None = None,
    ) -> Tensor:
        """Return the layer's output ``[B, T, N, D]``.

        The residual stream ``x`` keeps its dtype, float32 or wider (:func:`df_models.model.layers.residual`), and is
        normalised, modulated and added to in it; ``noise_BT6D`` is the noise level's projection, float32; ``joined`` is
        what :meth:`SelfAttention.forward` takes.
        """
        modulation = (self.modulation.float() + noise_BT6D).to(x_BTND.dtype).unsqueeze(3)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(2)
        hidden = computed(modulate(plain_norm(x_BTND, self.eps), shift1, scale1), self.self_attn.q)
        x_BTND = torch.addcmul(x_BTND, gate1, self.self_attn(hidden, attend, joined))
        if self.cross_attn is not None and any(part is not None for part in context):
            hidden = computed(scaled_norm(x_BTND, self.norm3), self.cross_attn.q)
            x_BTND = x_BTND + self.cross_attn(hidden, context)
        hidden = computed(modulate(plain_norm(x_BTND, self.eps), shift2, scale2), self.self_attn.q)
        return torch.addcmul(x_BTND, gate2, self.ffn(hidden))
