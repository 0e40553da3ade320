"""The video tower: Wan 2.1's transformer with a noise level per latent frame.

Shape legend: B batch, T latent frames, C channels, h and w latent height and width, N = h/2 * w/2 tokens per frame,
L text tokens, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from df_models.attention.rope import video_table
from df_models.errors import UserError
from df_models.model.block import Context
from df_models.model.config import VideoDiTConfig
from df_models.model.layers import residual
from df_models.model.pretrained import Pretrained, called_like
from df_models.model.sequence import WholeSequence
from df_models.model.tower import Tower, check_sigma
from df_models.time import video_positions


class VideoDiT(Tower, Pretrained):
    """Wan's video transformer; ``in_dim`` 16 is text-to-video, 36 adds 4 mask and 16 reference channels.

    Parameter names are those of Wan 2.1's own checkpoints; :mod:`df_models.convert.wan` loads them.
    """

    model_type = "video-dit"
    config_type = VideoDiTConfig
    config: VideoDiTConfig

    def __init__(self, config: VideoDiTConfig) -> None:
        patch_volume = config.patch_size[1] * config.patch_size[2]
        super().__init__(config, config.out_dim * patch_volume, reference=config.reference)
        self.config = config
        self.patch_embedding = nn.Conv3d(config.in_dim, config.dim, config.patch_size, config.patch_size)
        self.reset_parameters()
        nn.init.xavier_uniform_(self.patch_embedding.weight.view(config.dim, -1))
        nn.init.zeros_(self._patch_bias)

    @property
    def _patch_bias(self) -> Tensor:
        bias = self.patch_embedding.bias
        assert bias is not None
        return bias

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.config.dim // self.config.num_heads

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of tokens of a latent of ``height`` x ``width``.

        Raises:
            UserError: the latent is not a whole number of patches.
        """
        _, rows, columns = self.config.patch_size
        if height % rows or width % columns or height < rows or width < columns:
            raise UserError(
                f"a latent of {height} x {width} does not divide into patches of {rows} x {columns}; "
                f"use images whose sides are multiples of {8 * rows} and {8 * columns} pixels"
            )
        return height // rows, width // columns

    def embed(self, video_BTChw: Tensor) -> Tensor:
        """Turn latents ``[B, T, in_dim, h, w]`` into tokens ``[B, T, N, D]`` (the patch convolution as a product)."""
        if video_BTChw.ndim != 5 or video_BTChw.shape[2] != self.config.in_dim:
            raise UserError(
                f"video must be [batch, frames, {self.config.in_dim}, height, width], not {list(video_BTChw.shape)}"
            )
        self.grid(*video_BTChw.shape[-2:])
        _, p, q = self.config.patch_size
        patches = rearrange(video_BTChw.to(self.dtype), "b t c (y p) (x q) -> b t (y x) (c p q)", p=p, q=q)
        return residual(F.linear(patches, self.patch_embedding.weight.flatten(1), self._patch_bias))

    def unembed(self, tokens_BTNF: Tensor, height: int, width: int) -> Tensor:
        """Turn the head's output ``[B, T, N, patch * out_dim]`` into ``[B, T, out_dim, h, w]``."""
        rows, _ = self.grid(height, width)
        _, p, q = self.config.patch_size
        return rearrange(tokens_BTNF, "b t (y x) (p q c) -> b t c (y p) (x q)", y=rows, p=p, q=q)

    def forward(
        self,
        video: Tensor,
        sigma: Tensor,
        text: Tensor | None = None,
        causal: bool = True,
        reference: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity (noise minus clean) of every latent frame.

        Args:
            video: ``[B, T, in_dim, h, w]``, normalised latents with any conditioning channels behind them.
            sigma: ``[B, T]`` in [0, 1], the noise level of each latent frame (float32 or float64).
            text: ``[B, L, text_dim]``, L <= 512, zero rows past its length: it is read as 512 rows, as Wan reads it;
                None leaves text cross-attention out.
            causal: each frame sees itself and earlier frames; False is Wan's own full attention.
            reference: ``[B, L, dim]`` image tokens, for a tower built with ``reference=True``.

        Returns:
            ``[B, T, out_dim, h, w]`` in the dtype of ``video``.

        Raises:
            UserError: a shape does not fit the configuration.
        """
        check_sigma("sigma", sigma, video)
        x = self.embed(video)
        noise = self.embed_noise(sigma)
        frames, tokens = x.shape[1:3]
        height, width = video.shape[-2:]
        grid = self.grid(height, width)
        table = video_table(video_positions(frames), grid, self.head_dim, self.config.rope_theta, x.device)
        attend = WholeSequence(table, table, self.causal_mask(frames, tokens, x.device) if causal else None)
        if reference is not None and not self.config.reference:
            raise UserError("reference tokens were given, but this tower has reference=False")
        context = Context(self.embed_text(text), None if reference is None else reference.to(self.dtype))
        x = self.run_blocks(x, noise, attend, context)
        return self.unembed(self.head(x, noise.embedding_BTD), height, width).to(video.dtype)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
