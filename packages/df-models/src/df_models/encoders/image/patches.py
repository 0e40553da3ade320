"""Pooled patches of the reference latent: the embedded reference encoder, with no weights."""

from __future__ import annotations

import hashlib

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from df_models.encoders.weights import refuse_location

GRID = 4
"""16 tokens, as many as the resampler makes of DINOv2's."""
PATCH = 2


class LatentPatches:
    """Pool the reference latent to an 8x8 grid and give its sixteen 2x2 patches as tokens of width 64.

    At 64x64 pixels the latent is 8x8 already and nothing is lost.
    """

    id = "patches"
    licence = "Apache-2.0"
    num_tokens = GRID * GRID
    dim = 16 * PATCH * PATCH
    sha256 = hashlib.sha256(f"patches {GRID} {PATCH}".encode()).hexdigest()

    def encode(self, image_BCHW: Tensor, latent_BChw: Tensor) -> Tensor:
        """Encode latents ``[B, 16, h, w]`` to ``[B, 16 tokens, 64]`` in raster order, float32.

        The images themselves are not looked at.
        """
        pooled = F.adaptive_avg_pool2d(latent_BChw.float(), GRID * PATCH)
        return rearrange(pooled, "b c (i p) (j q) -> b (i j) (c p q)", p=PATCH, q=PATCH)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LatentPatches:
        """Return itself: there are no weights to move."""
        return self


def load(name: str, location: str | None) -> LatentPatches:
    """Return the encoder; it has no weights to locate."""
    refuse_location(name, location)
    return LatentPatches()
