"""RMSNorm over the last axis, with steps of its own on the CPU.

Torch has no fused kernel for it there: forward and backward fall apart into some thirty element-wise steps in float32.
Here the forward takes five steps, and the backward six and two matrix-vector products: half the time together. On the
meta device, where sizes are counted, they keep as much as CUDA's fused kernel does.

Shape legend: R rows (all leading axes), D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """``x / sqrt(mean(x^2) + eps) * weight``, the norm of Wan's queries and keys; the mean square is float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(dim, eps=eps)
        self.epsilon = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``[..., D]`` in the dtype of ``x``."""
        weight = self.weight.to(x.dtype)
        if x.device.type in ("cpu", "meta") and not torch.compiler.is_compiling():
            return _CpuRMSNorm.apply(x, weight, self.epsilon)  # type: ignore[return-value]
        return F.rms_norm(x, self.normalized_shape, weight, self.epsilon).to(x.dtype)  # autocast widens it


class _CpuRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        inverse = torch.rsqrt(norm.square() / x.shape[-1] + eps)
        unit = x * inverse.to(x.dtype)
        ctx.save_for_backward(unit, weight, inverse)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        unit, weight, inverse = ctx.saved_tensors
        product_RD = (grad * unit).flatten(0, -2)
        grad_weight = torch.mv(product_RD.t(), product_RD.new_ones(product_RD.shape[0]))
        along = torch.mv(product_RD, weight).view(inverse.shape) / -product_RD.shape[1]
        grad_x = torch.addcmul(grad * weight, unit, along).mul_(inverse.to(grad.dtype))
        return grad_x, grad_weight, None
