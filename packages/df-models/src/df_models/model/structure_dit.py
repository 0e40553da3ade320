"""The structure tower: the same block over four structure vectors per latent frame.

Shape legend: B batch, T latent frames, S = 4 slots, V structure vector, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from df_models.errors import UserError
from df_models.model.config import StructureDiTConfig
from df_models.model.layers import residual
from df_models.model.tower import Tower
from df_models.time import SLOTS


class StructureDiT(Tower):
    """A transformer over structure vectors; positions turn with time alone, at 25 Hz steps of a quarter."""

    def __init__(self, config: StructureDiTConfig) -> None:
        super().__init__(config, config.vector_dim, reference=False)
        self.config = config
        self.vector_embedding = nn.Linear(config.vector_dim, config.dim)
        self.slot_embedding = nn.Parameter(torch.empty(SLOTS, config.dim))
        self.reset_parameters()
        nn.init.normal_(self.slot_embedding, std=0.02)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.config.dim // self.config.num_heads

    def embed(self, structure_BTSV: Tensor) -> Tensor:
        """Turn normalised structure ``[B, T, 4, V]`` into tokens ``[B, T, 4, D]``.

        Raises:
            UserError: the last two axes are not four slots of the tower's vector width.
        """
        wanted = (SLOTS, self.config.vector_dim)
        if structure_BTSV.ndim != 4 or tuple(structure_BTSV.shape[2:]) != wanted:
            raise UserError(
                f"structure must be [batch, latent frames, {wanted[0]}, {wanted[1]}], not {list(structure_BTSV.shape)}"
            )
        return residual(self.vector_embedding(structure_BTSV.to(self.dtype))) + self.slot_embedding
