"""The flow's straight path between clean data and noise, and the noise levels on it.

``x_sigma = (1 - sigma) clean + sigma noise``; the velocity is ``noise - clean`` (Wan's sign); timestep = 1000 sigma.
Noise levels are ``[B, T]``, one per latent frame, and broadcast over everything behind those axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from df_models.errors import UserError


def shift_sigma(u: Tensor, shift: float) -> Tensor:
    """Return ``shift * u / (1 + (shift - 1) * u)``: Wan's shift of noise levels in [0, 1]; 1 changes nothing."""
    _check_shift(shift)
    return shift * u / (1 + (shift - 1) * u)


def unshift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Undo :func:`shift_sigma`."""
    _check_shift(shift)
    return sigma / (shift - (shift - 1) * sigma)


def expand_sigma(sigma: Tensor, like: Tensor) -> Tensor:
    """Return noise levels with trailing axes added until they broadcast over ``like``, in its dtype."""
    if sigma.shape != like.shape[: sigma.ndim]:
        raise UserError(f"noise levels {list(sigma.shape)} do not lead the shape {list(like.shape)}")
    return sigma.to(like.dtype).reshape(*sigma.shape, *(1,) * (like.ndim - sigma.ndim))


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the noisy state ``(1 - sigma) clean + sigma noise``."""
    return torch.lerp(clean, noise, expand_sigma(sigma, clean))


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity ``noise - clean``."""
    return noise - clean


def clean_from_velocity(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Return the clean data that a velocity at a noisy state points back to: ``x - sigma v``."""
    return x - expand_sigma(sigma, x) * velocity


def noise_from_velocity(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Return the noise that a velocity at a noisy state points to: ``x + (1 - sigma) v``."""
    return x + (1 - expand_sigma(sigma, x)) * velocity


def inference_sigmas(steps: int, shift: float = 1.0, start: float = 1.0) -> Tensor:
    """Return ``[steps + 1]`` falling noise levels from ``start`` to 0, float32, evenly spaced before the shift.

    A ``start`` below 1 takes the lower part of the same shifted schedule.

    Raises:
        UserError: ``steps`` is below 1, ``start`` is outside (0, 1], or ``shift`` is not positive.
    """
    if steps < 1:
        raise UserError(f"at least 1 denoising step is needed, not {steps}")
    if not 0 < start <= 1:
        raise UserError(f"the first noise level must lie in (0, 1], not {start}")
    first = float(unshift_sigma(torch.tensor(start, dtype=torch.float64), shift))
    sigmas = shift_sigma(torch.linspace(first, 0.0, steps + 1, dtype=torch.float64), shift).float()
    sigmas[0], sigmas[-1] = start, 0.0
    return sigmas


def _check_shift(shift: float) -> None:
    if shift <= 0:
        raise UserError(f"the schedule's shift must be positive, not {shift}")
