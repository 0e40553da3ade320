"""Convolutions of a frozen VAE on the CPU.

Torch leaves a 3D convolution of one sample to a loop of matrix products (``slow_conv3d``) unless the kernel is wider
than 3 or batch, channels, frames and rows multiply to more than 20 480 (``use_mkldnn`` in
``aten/src/ATen/native/Convolution.cpp``). A stream of small images is all below that, and oneDNN, which torch takes
elsewhere, is faster (``benchmarks/live.py``), more so with the channels last.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn


def suit_device(module: nn.Module) -> None:
    """Lay out the 3D convolutions of a frozen ``module`` for the device that they are on; call it after each move.

    On a CPU their weights have the channels last, and oneDNN computes them in float32.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d) and layer.padding_mode == "zeros":
            on_cpu = layer.weight.device.type == "cpu"
            layout = torch.channels_last_3d if on_cpu else torch.contiguous_format
            layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
            layer._conv_forward = MethodType(_conv_forward, layer)


def _conv_forward(layer: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _onednn_takes(x, weight):
        return nn.Conv3d._conv_forward(layer, x, weight, bias)
    return torch.ops.aten.mkldnn_convolution(x, weight, bias, layer.padding, layer.stride, layer.dilation, layer.groups)


def _onednn_takes(x: Tensor, weight: Tensor) -> bool:
    on_cpu = x.device.type == weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_cpu and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
