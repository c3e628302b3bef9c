"""Tests of tweedie_loss only: powers that reduce to other losses, and products in exponents."""

from __future__ import annotations

import pytest
import torch
from mpmath import exp, mpf, workdps

from manual_grad.losses.pointwise.tweedie_loss import tweedie_loss

F = torch.nn.functional


@pytest.mark.parametrize("log_input", [True, False])
def test_powers_that_are_other_losses(log_input: bool) -> None:
    x, t = torch.rand(2, 100, dtype=torch.float64) + 1
    mean = x.exp() if log_input else x
    others = {
        0.0: F.mse_loss(mean, t) / 2 - (t**2).mean() / 2,
        1.0: F.poisson_nll_loss(x, t, log_input=log_input, eps=0.0),
        2.0: (mean.log() + t / mean).mean(),
        3.0: (t / (2 * mean**2) - 1 / mean).mean(),
    }
    for power, other in others.items():
        ours = tweedie_loss(x, t, power=power, log_input=log_input, eps=0.0)
        torch.testing.assert_close(ours, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("power", [0.0, 1.3, 2.7, 3.0])
def test_what_makes_it_half_the_deviance(power: float) -> None:
    """The deviance is 0 with slope 0 where the mean equals the target, and positive elsewhere."""
    t = torch.rand(100, dtype=torch.float64) + 0.5
    half = t ** (2 - power) / ((1 - power) * (2 - power))
    x = t.clone().requires_grad_()
    fitted = tweedie_loss(x, t, "none", power=power, log_input=False, eps=0.0)
    assert (fitted + half).abs().max() < 1e-14
    assert (torch.autograd.grad(fitted.sum(), x)[0] == 0).all()
    assert (tweedie_loss(1.01 * t, t, "none", power=power, log_input=False, eps=0.0) + half > 0).all()


@pytest.mark.parametrize("power", [1.001, 1.1, 1.5, 1.9, 1.999])
def test_the_rounding_of_a_product_is_not_an_error_in_its_exponential(power: float) -> None:
    x = torch.linspace(-300, 300, 1201, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 3.0], dtype=torch.float64).repeat(601)[:1201]
    loss = tweedie_loss(x, t, "none", power=power)
    (dx,) = torch.autograd.grad(loss.sum(), x)
    with workdps(60):
        p = mpf(power)
        for e, d, v, y in zip(loss.tolist(), dx.tolist(), x.tolist(), t.tolist(), strict=True):
            upper, lower = exp((2 - p) * v), y * exp((1 - p) * v)
            assert abs(e - (upper / (2 - p) + lower / (p - 1))) < 9e-16 * abs(e)
            assert abs(d - (upper - lower)) < 9e-16 * (upper + lower)
