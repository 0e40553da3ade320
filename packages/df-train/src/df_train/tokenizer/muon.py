"""Muon for the tokenizer: momentum whose matrix is orthogonalised, with AdamW for what is no matrix.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with its quintic
Newton-Schulz coefficients. ``torch.optim.Muon`` takes matrices only; convolutions are matrices of (out, in * kernel).
On this VAE it reaches in 150 steps the error that AdamW needs several times as many steps for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SMALLEST_MATRIX = 600


def orthogonalise(matrix_MN: Tensor) -> Tensor:
    """Return about the nearest matrix with all singular values near 1 (between about 0.7 and 1.2), float32."""
    a, b, c = _COEFFICIENTS
    tall = matrix_MN.shape[0] > matrix_MN.shape[1]
    x = matrix_MN.float().T if tall else matrix_MN.float()
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised as a matrix of (out, everything else) and scaled by its shape."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("momentum", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(average, group["momentum"]).flatten(1))
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the convolutions that are worth orthogonalising, and all other parameters."""
    matrices = [p for p in module.parameters() if p.ndim >= 4 and p.numel() > _SMALLEST_MATRIX]
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in module.parameters() if id(p) not in chosen]
