"""Small pieces that several parts share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain_norm(x_D: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis without learned scale or shift."""
    return F.layer_norm(x_D, x_D.shape[-1:], eps=eps)


def modulate(x_D: Tensor, shift_D: Tensor, scale_D: Tensor) -> Tensor:
    """Return ``x * (1 + scale) + shift``."""
    return torch.addcmul(shift_D, x_D, 1 + scale_D)


class Float32Sequential(nn.Sequential):
    """Layers that keep float32 parameters, and compute in float32, when the model around them is cast or autocast.

    Noise levels go through it: bfloat16 cannot tell neighbouring timesteps apart.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Sequential:
        super()._apply(lambda tensor: _at_least_float32(tensor, fn(tensor)), recurse)
        return self

    def forward(self, x_D: Tensor) -> Tensor:
        """Return float32; parameters that a sharded model lends in a shorter type are widened first."""
        with torch.autocast(x_D.device.type, enabled=False):
            for layer in self:
                if isinstance(layer, nn.Linear):
                    bias = None if layer.bias is None else layer.bias.float()
                    x_D = F.linear(x_D.float(), layer.weight.float(), bias)
                else:
                    x_D = layer(x_D)
        return x_D


def _at_least_float32(before: Tensor, after: Tensor) -> Tensor:
    if before.is_floating_point() and after.dtype.itemsize < torch.float32.itemsize:
        return before.to(device=after.device, dtype=torch.promote_types(before.dtype, torch.float32))
    return after


def init_linear(module: nn.Module) -> None:
    """Give every linear layer inside ``module`` Wan's initial values: Xavier-uniform weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Gate(nn.Module):
    """A learned gate per channel that starts closed: ``gain * weight`` with ``weight = 0``.

    The gradient reaches the gate at once, because what it multiplies is not zero. An optimiser of Adam's kind moves
    ``weight`` by about the learning rate per step, hence the gain.
    """

    def __init__(self, dim: int, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x_D: Tensor, update_D: Tensor) -> Tensor:
        """Return ``x + gate * update``."""
        return torch.addcmul(x_D, update_D, self.weight * self.gain)
