"""The structure tower: the same block over four structure vectors per latent frame.

Shape legend: B batch, T latent frames, S = 4 slots, V structure vector, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from df_models.attention.rope import time_table
from df_models.errors import UserError
from df_models.model.block import Context
from df_models.model.config import StructureDiTConfig
from df_models.model.layers import residual
from df_models.model.pretrained import Pretrained, called_like
from df_models.model.sequence import WholeSequence
from df_models.model.tower import Tower, check_sigma
from df_models.time import SLOTS, slot_positions


class StructureDiT(Tower, Pretrained):
    """A transformer over structure vectors; positions turn with time alone, at 25 Hz steps of a quarter."""

    model_type = "structure-dit"
    config_type = StructureDiTConfig
    config: StructureDiTConfig

    def __init__(self, config: StructureDiTConfig) -> None:
        super().__init__(config, config.vector_dim, reference=False)
        self.config = config
        self.vector_embedding = nn.Linear(config.vector_dim, config.dim)
        self.slot_embedding = nn.Parameter(torch.empty(SLOTS, config.dim))
        self.known_embedding = nn.Parameter(torch.zeros(config.dim, config.vector_dim)) if config.known else None
        self.reset_parameters()
        nn.init.normal_(self.slot_embedding, std=0.02)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.config.dim // self.config.num_heads

    def embed(self, structure_BTSV: Tensor, known_BTSV: Tensor | None = None) -> Tensor:
        """Turn normalised structure ``[B, T, 4, V]`` into tokens ``[B, T, 4, D]``.

        Args:
            known_BTSV: bool, entries that are given clean whatever their frame's noise level; None: there is none.

        Raises:
            UserError: the last two axes are not four slots of the tower's vector width, or the tower has no input for
                known entries.
        """
        wanted = (SLOTS, self.config.vector_dim)
        if structure_BTSV.ndim != 4 or tuple(structure_BTSV.shape[2:]) != wanted:
            raise UserError(
                f"structure must be [batch, latent frames, {wanted[0]}, {wanted[1]}], not {list(structure_BTSV.shape)}"
            )
        tokens = residual(self.vector_embedding(structure_BTSV.to(self.dtype))) + self.slot_embedding
        return tokens if known_BTSV is None else tokens + self._embed_known(known_BTSV, structure_BTSV.shape)

    def _embed_known(self, known_BTSV: Tensor, shape: torch.Size) -> Tensor:
        if self.known_embedding is None:
            raise UserError("known entries were named, but this model is not told any; build it with structure_known")
        if known_BTSV.shape != shape:
            raise UserError(f"known must be {list(shape)} like the structure, not {list(known_BTSV.shape)}")
        return F.linear(known_BTSV.to(self.dtype), self.known_embedding)

    def forward(
        self,
        structure: Tensor,
        sigma: Tensor,
        text: Tensor | None = None,
        causal: bool = True,
        first_frame: int = 0,
        known: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity (noise minus clean) of every slot: a motion model by itself, without video or audio.

        Args:
            structure: ``[B, T, 4, V]``, normalised.
            sigma: ``[B, T]`` in [0, 1], the noise level of each latent frame (float32 or float64).
            text: as for :class:`df_models.VideoDiT`, for a tower with a ``text_dim``.
            causal: each frame sees itself and earlier frames; False lets all see all.
            first_frame: latent index of the first frame; only frame 0 repeats pixel frame 0 in its four slots.
            known: bool ``[B, T, 4, V]``, entries that are clean whatever ``sigma`` says, for a tower with ``known``.

        Returns:
            ``[B, T, 4, V]`` in the dtype of ``structure``.

        Raises:
            UserError: a shape does not fit the configuration.
        """
        check_sigma("sigma", sigma, structure)
        x, noise = self.embed(structure, known), self.embed_noise(sigma)
        positions = slot_positions(x.shape[1], first_frame)
        table = time_table(positions, self.head_dim, self.config.rope_theta, x.device)
        attend = WholeSequence(table, table, self.causal_mask(x.shape[1], SLOTS, x.device) if causal else None)
        x = self.run_blocks(x, noise, attend, Context(self.embed_text(text), None))
        return self.head(x, noise.embedding_BTD).to(structure.dtype)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
