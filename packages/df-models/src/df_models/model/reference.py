"""Reference tokens: any number of image features, resampled to a few tokens that video attends to in every layer.

Shape legend: B batch, L feature tokens, R resampled tokens, F feature width, D width of the video tower.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from df_models.attention.backends import attention
from df_models.model.layers import init_linear
from df_models.model.tower import sinusoid

HEAD_DIM = 64


class ReferenceResampler(nn.Module):
    """One layer of learned queries over image features (as the resampler of Flamingo and IP-Adapter, but small)."""

    def __init__(self, feature_dim: int, width: int, num_tokens: int, out_dim: int, eps: float) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_DIM) if width % HEAD_DIM == 0 else 1
        self.norm_features = nn.LayerNorm(feature_dim, eps=eps)
        self.features = nn.Linear(feature_dim, width)
        self.queries = nn.Parameter(torch.empty(num_tokens, width))
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.norm_ffn = nn.LayerNorm(width, eps=eps)
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width))
        self.norm_out = nn.LayerNorm(width, eps=eps)
        self.out = nn.Linear(width, out_dim)
        init_linear(self)
        nn.init.normal_(self.queries)

    def forward(self, features_BLF: Tensor) -> Tensor:
        """Return tokens ``[B, R, D]``; features keep their order through a sinusoidal index."""
        heads = (self.heads, -1)
        hidden = self.features(self.norm_features(features_BLF.to(self.out.weight.dtype)))
        index = torch.arange(hidden.shape[1], device=hidden.device)
        hidden = hidden + sinusoid(index, 2 * -(-hidden.shape[-1] // 2))[:, : hidden.shape[-1]].to(hidden.dtype)
        queries = self.queries.expand(hidden.shape[0], -1, -1)
        mixed = attention(
            self.q(queries).unflatten(-1, heads),
            self.k(hidden).unflatten(-1, heads),
            self.v(hidden).unflatten(-1, heads),
        )
        tokens = queries + self.o(mixed.flatten(-2))
        tokens = tokens + self.ffn(self.norm_ffn(tokens))
        return self.out(self.norm_out(tokens))
