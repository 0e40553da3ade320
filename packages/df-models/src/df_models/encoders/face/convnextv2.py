"""ConvNeXt V2: the trunk of LivePortrait's motion extractor, with the parameter names of its checkpoint.

Shape legend: B batch, H, W pixels (of the image or of a stage), C channels of a stage, D = 768 features.

Source of the layout, the constants and the order of the layers: KwaiVGI/LivePortrait, ``src/modules/convnextv2.py`` and
``src/modules/util.py`` (after facebookresearch/ConvNeXt-V2, ``models/convnextv2.py``; paper arXiv:2301.00808).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (3, 3, 9, 3)
WIDTHS = (96, 192, 384, 768)
FEATURES = WIDTHS[-1]
EPS = 1e-6


class ConvNeXtV2(nn.Module):
    """ConvNeXt V2 "tiny" without a classifier: four stages of strides 4, 8, 16 and 32, pooled to one vector."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], kernel_size=4, stride=4), ChannelNorm(WIDTHS[0], eps=EPS))
        halvings = [
            nn.Sequential(ChannelNorm(before, eps=EPS), nn.Conv2d(before, after, kernel_size=2, stride=2))
            for before, after in pairwise(WIDTHS)
        ]
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(*[Block(width) for _ in range(depth)]) for depth, width in zip(DEPTHS, WIDTHS)
        )
        self.norm = nn.LayerNorm(FEATURES, eps=EPS)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Return the normalised mean ``[B, 768]`` over the last stage's positions."""
        x_BCHW = image_B3HW
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x_BCHW = stage(downsample(x_BCHW))
        return self.norm(x_BCHW.mean(dim=(2, 3)))


class Block(nn.Module):
    """Depthwise 7x7, LayerNorm, widening, GELU, global response norm, narrowing; added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = GlobalResponseNorm(4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``[B, C, H, W]``."""
        x_BHWC = self.norm(self.dwconv(x_BCHW).permute(0, 2, 3, 1))
        x_BHWC = self.pwconv2(self.grn(F.gelu(self.pwconv1(x_BHWC))))
        return x_BCHW + x_BHWC.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its norm over the image, relative to the mean of all channels' norms.

    ``y = gamma * (x * n) + beta + x`` with ``n = |x_c| / (mean over c of |x_c| + 1e-6)``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return ``[B, H, W, C]``."""
        norm_B11C = torch.linalg.vector_norm(x_BHWC, dim=(1, 2), keepdim=True)
        relative_B11C = norm_B11C / (norm_B11C.mean(dim=-1, keepdim=True) + EPS)
        return self.gamma * (x_BHWC * relative_B11C) + self.beta + x_BHWC


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``[B, C, H, W]``, at each position by itself."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, C, H, W]``."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
