"""ResNet-50 without a classifier: the trunk of DECA's and EMOCA's encoders, with torchvision's parameter names.

Shape legend: B batch, H, W pixels (of the image or of a stage), C channels of a stage.

It is the "v1.5" form: a bottleneck strides in its 3x3 convolution, not in its first 1x1. Source: yfeng95/DECA
(formerly YadiraF/DECA), ``decalib/models/resnet.py``, the same as radekd91/emoca, ``gdl/models/ResNet.py``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4
FEATURES = WIDTHS[-1] * EXPANSION


class ResNet50(nn.Module):
    """Stem and four stages of bottlenecks, of strides 4, 8, 16 and 32, averaged over the last stage's positions.

    DECA averages with a fixed 7x7 window: at its 224x224 images that is all positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], DEPTHS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0] * EXPANSION, WIDTHS[1], DEPTHS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1] * EXPANSION, WIDTHS[2], DEPTHS[2], stride=2)
        self.layer4 = _stage(WIDTHS[2] * EXPANSION, WIDTHS[3], DEPTHS[3], stride=2)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Return ``[B, 2048]``."""
        x_BCHW = F.relu(self.bn1(self.conv1(image_B3HW)))
        x_BCHW = F.max_pool2d(x_BCHW, kernel_size=3, stride=2, padding=1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_BCHW = stage(x_BCHW)
        return x_BCHW.mean(dim=(2, 3))


class Bottleneck(nn.Module):
    """1x1, 3x3 (here the stride), 1x1 to four times the width; added to the input, or to its projection."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            projection = nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return ``[B, 4 * width, H / stride, W / stride]``."""
        y_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        y_BCHW = F.relu(self.bn2(self.conv2(y_BCHW)))
        return F.relu(self.bn3(self.conv3(y_BCHW)) + self.downsample(x_BCHW))


def _stage(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride)
    return nn.Sequential(first, *[Bottleneck(width * EXPANSION, width, 1) for _ in range(depth - 1)])
