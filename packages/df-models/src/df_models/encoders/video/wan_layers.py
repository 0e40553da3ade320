"""Layers of Wan's video VAE, for streams.

Sources: Wan-Video/Wan2.1 ``wan/modules/vae.py`` and Wan-Video/Wan2.2 ``wan/modules/vae2_2.py``; names and shapes of
parameters are those of huggingface/diffusers ``autoencoder_kl_wan.py``. Those keep what their causal convolutions have
seen inside the module; here each stream has a :class:`Memory` of its own.

Shape legend: B batch, C channels, T frames, H, W rows and columns, all of the scale that a layer works at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn


class Memory:
    """What the causal convolutions of one stream remember, in the order in which they run: their last frames.

    A pass that fails changes nothing.

    Attributes:
        held: of each convolution ``[B, C, T, H, W]``, T of 1 or 2; empty before the stream's first frame.
    """

    def __init__(self, held: list[Tensor] | None = None) -> None:
        self.held: list[Tensor] = held or []
        self._new: list[Tensor] = []

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Go through the network once; what it leaves is kept at the end."""
        try:
            yield
            self.held = self._new
        finally:
            self._new = []

    @property
    def first(self) -> bool:
        """Whether the pass is the stream's first."""
        return not self.held

    def behind(self, x: Tensor, count: int) -> Tensor:
        """Return ``x`` behind the ``count`` frames before it (zeros at the stream's start), and remember its last."""
        past = x.new_zeros(*x.shape[:2], count, *x.shape[3:]) if self.first else self.held[len(self._new)]
        whole = torch.cat([past, x], dim=2)
        self._new.append(whole[:, :, -count:].clone())
        return whole

    def forget(self, x: Tensor, count: int) -> None:
        """Remember ``count`` frames of zeros instead of those of ``x``."""
        self._new.append(x.new_zeros(*x.shape[:2], count, *x.shape[3:]))


class CausalConv(nn.Conv3d):
    """A 3D convolution, 3 or 1 wide each way, that sees its own frame and those before it.

    Torch leaves a 3D convolution of one sample on a CPU to a loop of matrix products (``slow_conv3d``) unless the
    kernel is wider than 3 or batch, channels, frames and rows multiply to more than 20 480 (``use_mkldnn`` in
    ``aten/src/ATen/native/Convolution.cpp``). A stream of small images is all below that, and oneDNN, which torch takes
    elsewhere, is faster (``benchmarks/live.py``), more so with the channels last (:func:`suit_device`).

    Attributes:
        by_onednn: whether oneDNN is taken wherever it can be.
    """

    by_onednn = True

    def __init__(self, width: int, out_width: int, size: int | tuple[int, int, int] = 3, *, stride: int = 1) -> None:
        time, rows, columns = (size,) * 3 if isinstance(size, int) else size
        padding = 0, rows // 2, columns // 2
        super().__init__(width, out_width, (time, rows, columns), stride=(stride, 1, 1), padding=padding)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """Return ``[B, C, T, H, W]``; a kernel of one frame needs no memory."""
        x = x if memory is None else memory.behind(x, self.kernel_size[0] - 1)
        if not (self.by_onednn and _onednn_takes(x, self.weight)):
            return super().forward(x)
        settings = self.padding, self.stride, self.dilation, self.groups
        return torch.ops.aten.mkldnn_convolution(x, self.weight, self.bias, *settings)


def suit_device(network: nn.Module) -> None:
    """Lay out the weights of 3D convolutions for the device that they are on, last channels on a CPU; after a move."""
    for layer in network.modules():
        if isinstance(layer, CausalConv):
            on_cpu = layer.weight.device.type == "cpu"
            layout = torch.channels_last_3d if on_cpu else torch.contiguous_format
            layer.weight.data = layer.weight.data.contiguous(memory_format=layout)


def _onednn_takes(x: Tensor, weight: Tensor) -> bool:
    library = torch.backends.mkldnn
    on_cpu = x.device.type == weight.device.type == "cpu" and library.is_available() and library.enabled
    return on_cpu and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class RMSNorm(nn.Module):
    """Each place's channels over their root mean square, in float32 at least.

    Args:
        axes: dimensions behind the channels.
    """

    def __init__(self, width: int, axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *(1,) * axes))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, ...]`` in the dtype of ``x``."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return F.normalize(wide, dim=1).to(x.dtype) * len(self.gamma) ** 0.5 * self.gamma


class ResidualBlock(nn.Module):
    """Two convolutions with norms, around which the input goes."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width, 3)
        self.conv1 = CausalConv(width, out_width)
        self.norm2 = RMSNorm(out_width, 3)
        self.conv2 = CausalConv(out_width, out_width)
        self.conv_shortcut = CausalConv(width, out_width, 1) if width != out_width else nn.Identity()

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C, T, H, W]``."""
        around = self.conv_shortcut(x)
        x = self.conv1(F.silu(self.norm1(x)), memory)
        return self.conv2(F.silu(self.norm2(x)), memory) + around


def residual_blocks(width: int, out_width: int, count: int) -> nn.ModuleList:
    """Return ``count`` blocks, one after the other, of which the first changes the channels."""
    widths = [width, *[out_width] * count]
    return nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))


class AttentionBlock(nn.Module):
    """Attention of one head among the places of each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width, 2)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, T, H, W]``."""
        frames, rows = rearrange(x, "b c t h w -> (b t) c h w"), x.shape[3]
        qkv = rearrange(self.to_qkv(self.norm(frames)), "b c h w -> b 1 (h w) c").contiguous()
        seen = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        seen = self.proj(rearrange(seen, "b 1 (h w) c -> b c h w", h=rows))
        return rearrange(seen, "(b t) c h w -> b c t h w", b=len(x)) + x


class MiddleBlock(nn.Module):
    """What stands between the two halves of encoder or decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        before, attention, after = ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width)
        self.attentions = nn.ModuleList([attention])
        self.resnets = nn.ModuleList([before, after])

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C, T, H, W]``."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x, memory)), memory)


class Downsample(nn.Module):
    """Half of rows and columns, and of frames if ``in_time``; the stream's first frame stays one."""

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2))
        self.time_conv = CausalConv(width, width, (3, 1, 1), stride=2) if in_time else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C, T / 2, H / 2, W / 2]``."""
        x = _frame_by_frame(self.resample, x)
        if self.time_conv is None:
            return x
        behind = memory.behind(x, 1)
        return x if memory.first else self.time_conv(behind)


class Upsample(nn.Module):
    """Twice the rows, columns and (``in_time``) frames; a stream's first frame stays one, and is not seen later."""

    def __init__(self, width: int, out_width: int, *, in_time: bool) -> None:
        super().__init__()
        twice = nn.Upsample(scale_factor=2.0, mode="nearest-exact")
        self.resample = nn.Sequential(twice, nn.Conv2d(width, out_width, 3, padding=1))
        self.time_conv = CausalConv(width, 2 * width, (3, 1, 1)) if in_time else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C, 2 T, 2 H, 2 W]``."""
        if self.time_conv is not None and memory.first:
            memory.forget(x, 2)
        elif self.time_conv is not None:
            x = rearrange(self.time_conv(x, memory), "b (two c) t h w -> b c (t two) h w", two=2)
        return _frame_by_frame(self.resample, x)


def _frame_by_frame(layer: nn.Module, x: Tensor) -> Tensor:
    out = layer(rearrange(x, "b c t h w -> (b t) c h w"))
    return rearrange(out, "(b t) c h w -> b c t h w", b=len(x))


class ResidualDownBlock(nn.Module):
    """A scale of Wan 2.2's encoder: residual blocks and downsampling, around which means of the input go."""

    def __init__(self, width: int, out_width: int, blocks: int, *, in_time: bool, last: bool) -> None:
        super().__init__()
        self.resnets = residual_blocks(width, out_width, blocks)
        self.downsampler = None if last else Downsample(out_width, in_time=in_time)
        self._factors, self._out_width = (1 + in_time, 1 if last else 2), out_width
        _check_around(width * self._factors[0] * self._factors[1] ** 2, out_width)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C', T', H', W']`` of the next scale."""
        around = self._around(x)
        for block in self.resnets:
            x = block(x, memory)
        return around + (x if self.downsampler is None else self.downsampler(x, memory))

    def _around(self, x: Tensor) -> Tensor:
        """Lay neighbours along the channels, and take means of as many as are too many; frames lack in front."""
        time, space = self._factors
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
        x = rearrange(x, "b c (t p) (h q) (w r) -> b (c p q r) t h w", p=time, q=space, r=space)
        return reduce(x, "b (c n) t h w -> b c t h w", "mean", c=self._out_width)


def _check_around(many: int, few: int) -> None:
    if many % few:
        raise ValueError(f"with is_residual {many} channels must be a multiple of {few}: change dim_mult or base_dim")


class UpBlock(nn.Module):
    """A scale of Wan 2.1's decoder: residual blocks and upsampling, which halves the channels."""

    def __init__(self, width: int, out_width: int, blocks: int, *, in_time: bool, last: bool) -> None:
        super().__init__()
        self.resnets = residual_blocks(width, out_width, blocks)
        upsample = [] if last else [Upsample(out_width, out_width // 2, in_time=in_time)]
        self.upsamplers = nn.ModuleList(upsample)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C', T', H', W']`` of the next scale."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x, memory)
        return x


class ResidualUpBlock(nn.Module):
    """A scale of Wan 2.2's decoder: residual blocks and upsampling, around which repetitions of the input go."""

    def __init__(self, width: int, out_width: int, blocks: int, *, in_time: bool, last: bool) -> None:
        super().__init__()
        self.resnets = residual_blocks(width, out_width, blocks)
        self.upsampler = None if last else Upsample(out_width, out_width, in_time=in_time)
        self._factors, self._out_width = (1 + in_time, 2), out_width
        if not last:
            _check_around(out_width * self._factors[0] * self._factors[1] ** 2, width)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Return ``[B, C', T', H', W']`` of the next scale."""
        begun = x
        for block in self.resnets:
            x = block(x, memory)
        return x if self.upsampler is None else self.upsampler(x, memory) + self._around(begun, first=memory.first)

    def _around(self, x: Tensor, *, first: bool) -> Tensor:
        """Repeat channels as often as needed, and lay them out as neighbours; a stream's first frame stays one."""
        time, space = self._factors
        x = x.repeat_interleave(self._out_width * time * space * space // x.shape[1], dim=1)
        x = rearrange(x, "b (c p q r) t h w -> b c (t p) (h q) (w r)", p=time, q=space, r=space)
        return x[:, :, time - 1 :] if first else x
