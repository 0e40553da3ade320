"""What both towers share: noise-level embedding, text embedding, a stack of blocks, a modulated head.

Shape legend: B batch, T latent frames, N tokens per frame, L text tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from df_models.attention.backends import AttentionBackend, Mask, causal_mask
from df_models.attention.masks import BlockMasks, FrameLayout
from df_models.device import widest_float
from df_models.errors import UserError
from df_models.model.block import Attend, Block, Context, ProjectedContext
from df_models.model.config import StructureDiTConfig, VideoDiTConfig
from df_models.model.layers import Float32Sequential, compute_dtype, computed, init_linear, modulate, plain_norm
from df_models.text import pad_text

TIMESTEPS = 1000.0


class NoiseEmbedding(NamedTuple):
    """A noise level's embedding ``[B, T, D]`` (for the head) and projection ``[B, T, 6, D]`` (for blocks); float32."""

    embedding_BTD: Tensor
    projection_BT6D: Tensor


class Noise(NamedTuple):
    """The embeddings of a pass's noise levels; None where the model has no such tower."""

    video: NoiseEmbedding | None
    structure: NoiseEmbedding | None


def sinusoid(values: Tensor, dim: int, factor: float = 1.0) -> Tensor:
    """Return Wan's sinusoidal embedding ``[..., dim]`` of ``factor * values``, float32: cosines, then sines.

    Periods go up to 10 000; angles are worked out in float64.
    """
    device = values.device
    if widest_float(device) != torch.float64:  # the host works the angles out
        values = values.cpu()
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float64, device=values.device) / half
    angles = factor * values.double()[..., None] * torch.exp(-math.log(1e4) * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float().to(device)


class Head(nn.Module):
    """Modulated output layer; its weights start at zero, so the model's first velocity is zero."""

    def __init__(self, dim: int, out_features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, x_BTND: Tensor, embedding_BTD: Tensor) -> Tensor:
        """Return ``[B, T, N, out_features]``; each latent frame is modulated by its own noise level."""
        modulation = (self.modulation.float() + embedding_BTD.unsqueeze(2)).to(x_BTND.dtype).unsqueeze(3)
        shift, scale = modulation.unbind(2)
        return self.head(computed(modulate(plain_norm(x_BTND, self.eps), shift, scale), self.head))


class Tower(nn.Module):
    """Base of the video and the structure tower; subclasses add the way in and the way out."""

    def __init__(self, config: VideoDiTConfig | StructureDiTConfig, out_features: int, *, reference: bool) -> None:
        super().__init__()
        dim = config.dim
        self.freq_dim, self.text_dim = config.freq_dim, config.text_dim
        self.text_embedding: nn.Sequential | None = None
        if config.text_dim:
            self.text_embedding = nn.Sequential(
                nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
            )
        self.time_embedding = Float32Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = Float32Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.ffn_dim, config.eps, text=config.text_dim > 0, reference=reference)
            for _ in range(config.num_layers)
        )
        self.head = Head(dim, out_features, config.eps)
        self.attention_backend: AttentionBackend = "auto"
        self._block_masks = BlockMasks()

    def reset_parameters(self) -> None:
        """Give the tower Wan's initial values."""
        init_linear(self)
        for part in (self.text_embedding, self.time_embedding):
            for layer in part or ():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)

    def embed_noise(self, sigma_BT: Tensor) -> NoiseEmbedding:
        """Embed noise levels ``[B, T]`` in [0, 1]; always in float32, since bfloat16 cannot tell timesteps apart."""
        embedding = self.time_embedding(sinusoid(sigma_BT, self.freq_dim, TIMESTEPS))
        return NoiseEmbedding(embedding, self.time_projection(embedding).unflatten(-1, (6, -1)))

    def embed_text(self, text_BLD: Tensor | None) -> Tensor | None:
        """Embed text features ``[B, L, text_dim]``, L <= 512, as Wan does: with zero rows up to 512, all attended.

        Raises:
            UserError: the tower reads no text, or the shape does not fit.
        """
        if text_BLD is None:
            return None
        if self.text_embedding is None:
            raise UserError("text was given, but this model reads no text; build it with a text_dim above 0")
        if text_BLD.shape[-1] != self.text_dim:
            raise UserError(f"text must be [batch, tokens, {self.text_dim}], not {list(text_BLD.shape)}")
        return self.text_embedding(pad_text(text_BLD).to(self.dtype))

    def readers(self) -> Iterator[dict[str, nn.Linear]]:
        """The layers of each block that read the input of its self-attention."""
        for block in self.blocks:
            if isinstance(block, Block):
                yield block.self_attn.readers

    def project_context(self, context: Context) -> list[ProjectedContext]:
        """Return every layer's keys and values of a context, for a cache to keep."""
        if all(part is None for part in context):
            return [ProjectedContext(None, None)] * len(self.blocks)
        return [block.cross_attn.project(context) for block in self.blocks]  # type: ignore[union-attr]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the tower computes in."""
        return self.head.head.weight.dtype

    @property
    def compute_dtype(self) -> torch.dtype:
        """What attention and the layers compute in here and now: autocast's dtype, or else the weights'."""
        return compute_dtype(self.head.head, self.head.head.weight.device)

    def causal_mask(self, frames: int, tokens: int, device: torch.device) -> Mask:
        """Return the mask of a clip of so many frames and tokens per frame that each sees itself and its past."""
        layout = FrameLayout.clip(frames)
        return causal_mask(
            layout, (tokens, tokens), device, self.compute_dtype, self.attention_backend, self._block_masks
        )

    def run_blocks(self, x_BTND: Tensor, noise: NoiseEmbedding, attend: Attend, context: Context) -> Tensor:
        """Run all blocks of the tower, for use without the other tower."""
        for block in self.blocks:
            x_BTND = block(x_BTND, noise.projection_BT6D, attend, context)
        return x_BTND


def check_sigma(name: str, sigma_BT: Tensor, stream: Tensor) -> None:
    """Raise UserError unless ``sigma`` is ``[B, T]`` like the stream's first two axes, float32 and in [0, 1].

    Values are looked at on a CPU only: elsewhere a look would wait for the device.
    """
    if tuple(sigma_BT.shape) != tuple(stream.shape[:2]):
        raise UserError(
            f"{name} must be [batch, latent frames] = {list(stream.shape[:2])}, not {list(sigma_BT.shape)}: "
            "every latent frame has its own noise level"
        )
    if sigma_BT.dtype not in (torch.float32, torch.float64):
        raise UserError(
            f"{name} must be float32, not {sigma_BT.dtype}: in half precision neighbouring noise levels are one number"
        )
    if sigma_BT.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = sigma_BT.aminmax()
        if type(low) is Tensor and not 0.0 <= low <= high <= 1.0:  # a fake tensor has no value
            raise UserError(f"{name} must lie in [0, 1] (0 clean, 1 noise), not in [{low:.3g}, {high:.3g}]")
