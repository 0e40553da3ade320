"""AdamW over sharded parameters, and its state by parameter name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from df_train.config import OptimConfig

_MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, while vectors (biases, norms, gates) do not."""
    parameters = list(trained(model).values())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True
    )


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Both moments of every parameter by its name, sharded like it; they are made (as zeros) if they are not there.

    The settings of the parameter groups are left out: they come from the configuration and the step.
    """
    state: dict[str, dict[str, Tensor]] = {moment: {} for moment in _MOMENTS}
    for name, parameter in trained(model).items():
        own = optimizer.state[parameter]
        if not own:
            own["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            own |= {moment: torch.zeros_like(parameter) for moment in _MOMENTS}
        for moment in _MOMENTS:
            state[moment][name] = own[moment]
    return state


def optimizer_steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """How many updates each parameter has had, float32, in the model's order."""
    return torch.stack([optimizer.state[parameter]["step"].detach().cpu() for parameter in trained(model).values()])


def set_optimizer_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: Tensor) -> None:
    """Put back what `optimizer_steps` gave."""
    for parameter, step in zip(trained(model).values(), steps, strict=True):
        optimizer.state[parameter]["step"].copy_(step)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
