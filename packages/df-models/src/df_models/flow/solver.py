"""Steps along the flow: the ODE ``dx / dsigma = v(x, sigma)``, from noise (sigma 1) to data (sigma 0)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor

from df_models.errors import UserError, nearest
from df_models.flow.schedule import expand_sigma

SOLVERS = ("euler", "heun")


def euler_step(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Return the state at ``sigma_next`` by Euler's first-order step; noise levels lead the shape of ``x``."""
    return x + expand_sigma(sigma_next - sigma, x) * velocity


def heun_step(x: Tensor, velocity: Tensor, velocity_next: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Return the state at ``sigma_next`` by Heun's second-order step.

    ``velocity_next`` is the velocity at the Euler step's end (:func:`euler_step`) and ``sigma_next``.
    """
    return x + expand_sigma(sigma_next - sigma, x) * ((velocity + velocity_next) / 2)


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigmas: Tensor, solver: str = "euler") -> Tensor:
    """Follow ``velocity(x, sigma)`` along ``sigmas`` (one falling row for all of ``x``), by ``euler`` or ``heun``.

    Heun's last step, to sigma 0, is Euler's: it costs one evaluation and a model is not trained at 0.

    Raises:
        UserError: there is no such solver.
    """
    if solver not in SOLVERS:
        raise UserError(f"there is no solver {solver!r}{nearest(solver, SOLVERS)}; there are: {', '.join(SOLVERS)}")
    for sigma, sigma_next in itertools.pairwise(sigmas):
        slope = velocity(x, sigma)
        end = euler_step(x, slope, sigma, sigma_next)
        if solver == "heun" and float(sigma_next) > 0:
            end = heun_step(x, slope, velocity(end, sigma_next), sigma, sigma_next)
        x = end
    return x


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return classifier-free guidance ``unconditional + scale * (conditional - unconditional)``; 1 is no guidance."""
    return unconditional + scale * (conditional - unconditional)
