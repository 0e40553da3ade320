"""The bridge: video and structure attend to each other, each frame to itself (or, as an option, to the past).

Both directions read the states from before either is updated. The two towers may differ in width: queries, keys and
values meet in ``bridge_width``. Structure tokens stand at their time and at row and column 0 of the video's rotary
grid, so that structure can tell the image's regions apart.

Shape legend: B batch, T latent frames, N queries and M keys per frame, D query width, E key width, H heads,
W their width.
"""

from __future__ import annotations

from torch import Tensor, nn

from df_models.model.block import Attend
from df_models.model.layers import init_linear
from df_models.model.norm import RMSNorm


class BridgeAttention(nn.Module):
    """Cross-attention from one tower (queries) to the other (keys and values)."""

    def __init__(self, query_dim: int, key_dim: int, width: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(query_dim, width)
        self.k = nn.Linear(key_dim, width)
        self.v = nn.Linear(key_dim, width)
        self.o = nn.Linear(width, query_dim)
        self.norm_q = RMSNorm(width, eps)
        self.norm_k = RMSNorm(width, eps)
        init_linear(self)

    def forward(self, q_BTNW: Tensor, k_BTMW: Tensor, v_BTMW: Tensor, attend: Attend) -> Tensor:
        """Return the update of the query tower ``[B, T, N, D]``, before its gate.

        Args:
            q_BTNW: what :attr:`q` makes of the normalised state of the query tower.
            k_BTMW, v_BTMW: what :attr:`k` and :attr:`v` make of the other's.
        """
        heads = (self.num_heads, -1)
        q = self.norm_q(q_BTNW).unflatten(-1, heads)
        k = self.norm_k(k_BTMW).unflatten(-1, heads)
        return self.o(attend(q, k, v_BTMW.unflatten(-1, heads)).flatten(-2))
