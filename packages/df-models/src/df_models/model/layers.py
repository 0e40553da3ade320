"""Small pieces that several parts share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def residual(x_D: Tensor) -> Tensor:
    """Return the start of a residual stream: at least float32, whatever the weights are.

    Every layer adds to it, and in bfloat16 each addition rounds all that came before to 8 bits. Wan's own code keeps it
    in float32 too (``wan/modules/model.py``, ``WanAttentionBlock.forward``). Layers read it through their norm, and
    compute in the weights' dtype.
    """
    return x_D.to(torch.promote_types(x_D.dtype, torch.float32))


def compute_dtype(layer: nn.Linear, device: torch.device) -> torch.dtype:
    """Return what a linear layer computes in: autocast's dtype, or else its weights'."""
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return layer.weight.dtype


def computed(x_D: Tensor, layer: nn.Linear) -> Tensor:
    """Return ``x`` in the dtype that ``layer`` computes in, cast once for all layers that read it."""
    return x_D.to(compute_dtype(layer, x_D.device))


def plain_norm(x_D: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis without learned scale or shift."""
    return F.layer_norm(x_D, x_D.shape[-1:], eps=eps)


def scaled_norm(x_D: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm with learned scale and shift, which take the dtype of ``x``."""
    return F.layer_norm(x_D, x_D.shape[-1:], norm.weight.to(x_D.dtype), norm.bias.to(x_D.dtype), norm.eps)


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
        kind = x_D.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
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
        """Return ``x + gate * update`` in the dtype of ``x``, the wider one."""
        return torch.addcmul(x_D, update_D, self.weight * self.gain)
