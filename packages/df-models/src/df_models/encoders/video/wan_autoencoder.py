"""The network of Wan's video VAE, of Wan 2.1's form and of Wan 2.2's, driven one latent frame at a time.

Settings and names of tensors are those of huggingface/diffusers ``AutoencoderKLWan``, whose files it reads; a test
compares the outputs. That class itself keeps the state of a stream inside the module, so one module serves one stream,
and importing it takes three times as long as importing torch.

Shape legend: B batch, T latent frames, P pixel frames, C latent channels, H, W pixels, h = H/8, w = W/8.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from df_models.encoders.video.wan_layers import (
    CausalConv,
    Downsample,
    Memory,
    MiddleBlock,
    ResidualDownBlock,
    ResidualUpBlock,
    RMSNorm,
    UpBlock,
    residual_blocks,
)
from df_models.time import TEMPORAL_STRIDE

# fmt: off
WAN_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on


@dataclass(frozen=True)
class WanVAEConfig:
    """Settings of a VAE, by the names in diffusers' ``config.json``; the defaults are Wan 2.1's.

    Attributes:
        base_dim, decoder_base_dim: channels of the first scale of encoder and decoder (None: the same).
        z_dim: latent channels.
        dim_mult: of each scale, its channels over ``base_dim``.
        num_res_blocks: residual blocks per scale of the encoder; the decoder has one more.
        temperal_downsample: between which scales time is halved as well.
        latents_mean, latents_std: of each latent channel.
        is_residual: Wan 2.2's form: a shortcut without parameters around each scale.
        in_channels, out_channels: of pixels, all those of a patch.
        patch_size: pixels that are laid along the channels in front, each way; None: 1.
        attn_scales, dropout: no published VAE has them; they must be empty and 0.
        scale_factor_temporal, scale_factor_spatial: what the settings above amount to; nothing reads them.

    Raises:
        ValueError: the settings do not fit together.
    """

    base_dim: int = 96
    decoder_base_dim: int | None = None
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attn_scales: tuple[float, ...] = ()
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    dropout: float = 0.0
    latents_mean: tuple[float, ...] = WAN_MEAN
    latents_std: tuple[float, ...] = WAN_STD
    is_residual: bool = False
    in_channels: int = 3
    out_channels: int = 3
    patch_size: int | None = None
    scale_factor_temporal: int | None = 4
    scale_factor_spatial: int | None = 8

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "latents_mean", tuple(float(value) for value in self.latents_mean))
        object.__setattr__(self, "latents_std", tuple(float(value) for value in self.latents_std))
        if self.attn_scales or self.dropout:
            raise ValueError("attn_scales must be [] and dropout 0")
        sizes = self.base_dim, self.decoder_base_dim or 1, self.z_dim, self.num_res_blocks, *self.dim_mult
        if min(sizes) < 1:
            raise ValueError("base_dim, decoder_base_dim, z_dim, num_res_blocks and dim_mult must be at least 1")
        channels = 3 * (self.patch_size or 1) ** 2
        if self.in_channels != channels or self.out_channels != channels:
            raise ValueError(f"in_channels and out_channels must be {channels}, 3 for each pixel of a patch")
        if len(self.temperal_downsample) != len(self.dim_mult) - 1:
            raise ValueError("temperal_downsample must have one entry less than dim_mult")
        if len(self.latents_mean) != self.z_dim or len(self.latents_std) != self.z_dim:
            raise ValueError("latents_mean and latents_std must have z_dim entries")


class Encoder(nn.Module):
    """Patches of pixels to mean and log variance of the latents, before ``quant_conv``."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.base_dim * times for times in (1, *config.dim_mult)]
        last = len(config.dim_mult) - 1
        self.conv_in = CausalConv(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList()
        for scale, (width, out_width) in enumerate(pairwise(widths)):
            in_time = scale < last and config.temperal_downsample[scale]
            if config.is_residual:
                block = ResidualDownBlock(width, out_width, config.num_res_blocks, in_time=in_time, last=scale == last)
                self.down_blocks.append(block)
                continue
            self.down_blocks.extend(residual_blocks(width, out_width, config.num_res_blocks))
            if scale < last:
                self.down_blocks.append(Downsample(out_width, in_time=in_time))
        self.mid_block = MiddleBlock(widths[-1])
        self.norm_out = RMSNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], 2 * config.z_dim)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, 2 C, T, h, w]`` of patches ``[B, channels, P, rows, columns]``."""
        with memory.passing():
            x = self.conv_in(x, memory)
            for block in self.down_blocks:
                x = block(x, memory)
            x = self.mid_block(x, memory)
            return self.conv_out(F.silu(self.norm_out(x)), memory)


class Decoder(nn.Module):
    """Latents, after ``post_quant_conv``, to patches of pixels."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        times = (config.dim_mult[-1], *config.dim_mult[::-1])
        widths = [(config.decoder_base_dim or config.base_dim) * each for each in times]
        last = len(config.dim_mult) - 1
        self.conv_in = CausalConv(config.z_dim, widths[0])
        self.mid_block = MiddleBlock(widths[0])
        self.up_blocks = nn.ModuleList()
        for scale, (width, out_width) in enumerate(pairwise(widths)):
            in_time = scale < last and config.temperal_downsample[last - 1 - scale]
            block, halved = (ResidualUpBlock, False) if config.is_residual else (UpBlock, scale > 0)
            width = width // 2 if halved else width
            settings = {"in_time": in_time, "last": scale == last}
            self.up_blocks.append(block(width, out_width, config.num_res_blocks + 1, **settings))
        self.norm_out = RMSNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], config.out_channels)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return patches ``[B, channels, P, rows, columns]`` of ``[B, C, T, h, w]``."""
        with memory.passing():
            x = self.mid_block(self.conv_in(x, memory), memory)
            for block in self.up_blocks:
                x = block(x, memory)
            return self.conv_out(F.silu(self.norm_out(x)), memory)


class WanAutoencoder(nn.Module):
    """Encoder and decoder; what a stream has seen is in the :class:`Memory` that it brings, an own one for each."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = CausalConv(2 * config.z_dim, 2 * config.z_dim, 1)
        self.post_quant_conv = CausalConv(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(config)

    def encode_frames(self, video_BCPHW: Tensor, memory: Memory) -> Tensor:
        """Encode a stream's next pixel frames in [-1, 1] to mean and log variance ``[B, 2 C, T, h, w]``.

        The first frame of a stream goes alone, all others four (or a multiple of it) at a time.
        """
        assert video_BCPHW.shape[2] == 1 or not memory.first
        patch = self.config.patch_size or 1
        patches = rearrange(video_BCPHW, "b c t (h p) (w q) -> b (c q p) t h w", p=patch, q=patch)
        return self.quant_conv(self.encoder(patches, memory))

    def decode_frames(self, latents_BCThw: Tensor, memory: Memory) -> Tensor:
        """Decode a stream's next latent frames (not normalised) to ``[B, 3, P, H, W]`` in about [-1, 1].

        The first frame of a stream goes alone and gives 1 pixel frame, every other gives 4.
        """
        assert latents_BCThw.shape[2] == 1 or not memory.first
        patch = self.config.patch_size or 1
        patches = self.decoder(self.post_quant_conv(latents_BCThw), memory)
        return rearrange(patches, "b (c q p) t h w -> b c t (h p) (w q)", p=patch, q=patch)

    def encode_clip(self, video_BCPHW: Tensor, *, at_once: int = 1) -> Tensor:
        """Encode a whole clip in [-1, 1], as :meth:`encode_frames`: 1 frame, then 4 at a time.

        ``at_once`` latent frames share a call after the first: the same values but for rounding, faster, in more
        memory.
        """
        memory = Memory()
        chunks = video_BCPHW[:, :, :1], *video_BCPHW[:, :, 1:].split(TEMPORAL_STRIDE * at_once, dim=2)
        return torch.cat([self.encode_frames(chunk, memory) for chunk in chunks if chunk.shape[2]], dim=2)

    def decode_clip(self, latents_BCThw: Tensor, *, at_once: int = 1) -> Tensor:
        """Decode a whole clip, as :meth:`decode_frames`: the first latent frame alone, then ``at_once`` each."""
        memory = Memory()
        chunks = latents_BCThw[:, :, :1], *latents_BCThw[:, :, 1:].split(at_once, dim=2)
        return torch.cat([self.decode_frames(chunk, memory) for chunk in chunks if chunk.shape[2]], dim=2)
