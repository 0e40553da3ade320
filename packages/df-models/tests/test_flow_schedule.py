"""The path, the schedule and the solvers."""

from __future__ import annotations

import math

import pytest
import torch

from df_models import UserError
from df_models.flow import (
    clean_from_velocity,
    euler_step,
    expand_sigma,
    guided,
    heun_step,
    inference_sigmas,
    integrate,
    interpolate,
    noise_from_velocity,
    shift_sigma,
    unshift_sigma,
    velocity_target,
)


def test_velocity_points_from_clean_to_noise_and_back():
    clean, noise = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5)
    sigma = torch.rand(2, 3)
    noisy, velocity = interpolate(clean, noise, sigma), velocity_target(clean, noise)
    torch.testing.assert_close(noisy[1, 2], (1 - sigma[1, 2]) * clean[1, 2] + sigma[1, 2] * noise[1, 2])
    assert torch.equal(velocity, noise - clean)
    torch.testing.assert_close(clean_from_velocity(noisy, velocity, sigma), clean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(noise_from_velocity(noisy, velocity, sigma), noise, rtol=1e-4, atol=1e-5)


def test_the_ends_of_the_path_are_exact():
    clean, noise = torch.randn(1, 2, 7), torch.randn(1, 2, 7)
    found = interpolate(clean, noise, torch.tensor([[0.0, 1.0]]))
    assert torch.equal(found[:, 0], clean[:, 0]) and torch.equal(found[:, 1], noise[:, 1])


def test_shift_follows_its_formula_and_is_undone():
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(shift_sigma(u, 1.0), u)
    shifted = shift_sigma(u, 5.0)
    torch.testing.assert_close(shifted[5], torch.tensor(2.5 / 3, dtype=torch.float64))
    assert shifted[0] == 0 and shifted[-1] == 1
    torch.testing.assert_close(unshift_sigma(shifted, 5.0), u)


def test_inference_levels_fall_to_zero():
    torch.testing.assert_close(inference_sigmas(4), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    sigmas = inference_sigmas(7, shift=3.0, start=0.7)
    assert len(sigmas) == 8 and sigmas[0] == torch.tensor(0.7) and sigmas[-1] == 0
    assert bool((sigmas.diff() < 0).all())
    whole = inference_sigmas(10, shift=3.0)
    torch.testing.assert_close(inference_sigmas(6, shift=3.0, start=float(whole[4])), whole[4:])


@pytest.mark.parametrize("arguments", [(0,), (4, 0.0), (4, 1.0, 0.0), (4, 1.0, 1.1)])
def test_impossible_schedules_are_told(arguments):
    with pytest.raises(UserError):
        inference_sigmas(*arguments)


def test_levels_must_lead_the_shape():
    with pytest.raises(UserError, match="do not lead"):
        expand_sigma(torch.rand(2, 4), torch.rand(2, 3, 5))


def _error(solver, steps):
    """dx/dsigma = x from x(1) = 1 ends at exp(-1)."""
    end = integrate(lambda x, _sigma: x, torch.ones(1, dtype=torch.float64), inference_sigmas(steps).double(), solver)
    return abs(float(end) - math.exp(-1))


def test_euler_is_of_first_and_heun_of_second_order():
    assert _error("euler", 20) / _error("euler", 40) == pytest.approx(2, rel=0.1)
    levels = torch.linspace(1, 0.1, 21, dtype=torch.float64)

    def heun(sigmas):
        end = integrate(lambda x, _sigma: x, torch.ones(1, dtype=torch.float64), sigmas, "heun")
        return abs(float(end) - math.exp(-0.9))

    assert heun(levels) / heun(torch.linspace(1, 0.1, 41, dtype=torch.float64)) == pytest.approx(4, rel=0.1)


def test_a_straight_flow_is_solved_in_one_step():
    clean, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    sigma, end = torch.ones(2, 3), torch.zeros(2, 3)
    velocity = velocity_target(clean, noise)
    torch.testing.assert_close(euler_step(noise, velocity, sigma, end), clean, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(heun_step(noise, velocity, velocity, sigma, end), clean, atol=1e-6, rtol=1e-5)


def test_an_unknown_solver_is_told():
    with pytest.raises(UserError, match="did you mean 'euler'"):
        integrate(lambda x, _sigma: x, torch.ones(1), inference_sigmas(2), "eular")


def test_guidance_of_one_is_the_conditional():
    conditional, unconditional = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guided(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(guided(conditional, unconditional, 2.0), 2 * conditional - unconditional)
