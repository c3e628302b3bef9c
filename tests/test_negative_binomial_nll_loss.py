"""Tests of negative_binomial_nll_loss only: the polynomial in place of Stirling's series, and the Poisson limit."""

from __future__ import annotations

import math

import pytest
import torch
from mpmath import digamma, log, loggamma, mp, mpf, pi, psi, workdps

from manual_grad.losses.pointwise.negative_binomial_nll_loss import (
    BEND,
    SLOPE,
    VALUE,
    NegativeBinomialNLLLossFunction,
    negative_binomial_nll_loss,
)

F = torch.nn.functional


@pytest.mark.parametrize("z", [2.0, 2.01, 2.2, 2.7, 4.0, 9.0, 50.0, 1e4, 1e12])
def test_the_polynomial_stands_for_stirlings_series(z: float) -> None:
    with workdps(80):
        z, w = mpf(z), 1 / mpf(z)
        j = loggamma(z) - (z - 0.5) * log(z) + z - log(2 * pi) / 2
        chi, bend = digamma(z) - log(z), psi(1, z) - w
        assert abs(w * mp.polyval(VALUE[::-1], w) - j) < 5e-17  # it is added to numbers larger than 1
        assert abs(-w / 2 - w**2 * mp.polyval(SLOPE[::-1], w) - chi) < 1e-16 * abs(chi)
        assert abs(w**2 / 2 + w**3 * mp.polyval(BEND[::-1], w) - bend) < 1.5e-16 * bend


def test_torchs_distribution_has_this_probability() -> None:
    x, r = torch.randn(2, 1000, dtype=torch.float64)
    t, r = torch.poisson((2 * x).exp()), (2 * r).exp()
    distribution = torch.distributions.NegativeBinomial(r, logits=x - r.log())
    ours = negative_binomial_nll_loss(x, t, r, "none", full=True)
    torch.testing.assert_close(ours, -distribution.log_prob(t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("log_input", [True, False])
@pytest.mark.parametrize("r", [1e20, math.inf])
def test_the_limit_is_poissons(r: float, log_input: bool) -> None:
    x, t = torch.rand(100, dtype=torch.float64) + 1, torch.randint(20, (100,))
    x.requires_grad_()
    ours = negative_binomial_nll_loss(x, t, r, log_input=log_input)
    limit = F.poisson_nll_loss(x, t, log_input=log_input) + (0 if log_input else 1e-8)  # it adds no eps to the mean
    torch.testing.assert_close(ours, limit, rtol=1e-13, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(e, x)[0] for e in (ours, limit)), rtol=1e-7, atol=1e-13)


def test_a_negative_total_count_that_cannot_be_read_makes_a_nan() -> None:
    x, t, r = torch.randn(3), torch.ones(3), torch.tensor([1.0, -1.0, 2.0])
    loss = torch.vmap(negative_binomial_nll_loss)(x, t, r)
    assert loss.isnan().tolist() == [False, True, False]
    with pytest.raises(ValueError, match="total_count has negative"):
        negative_binomial_nll_loss(x, t, r)


def test_no_counts_at_all_and_next_to_none() -> None:
    """log(target!) of a small count is small, and 0 for a count of 0; it must not absorb the rest of the loss."""
    x = torch.full((3,), -40.0, dtype=torch.float64)
    t = torch.tensor([0.0, 1e-12, 1e-6], dtype=torch.float64)
    for r in (0.3, 5.0, 1e9):
        ours = negative_binomial_nll_loss(x, t, r, "none", full=True)
        with workdps(60):
            for e, k in zip(ours.tolist(), map(mpf, t.tolist()), strict=True):
                mu, q = mp.exp(-40), k + mpf(r)
                exact = q * log(mu + r) + 40 * k - r * log(mpf(r)) - loggamma(q) + loggamma(mpf(r)) + loggamma(k + 1)
                assert abs(e - exact) < 1e-15 * exact


def test_a_tiny_mean_of_a_tiny_total_keeps_its_digits() -> None:
    """log u is near 0, although log(mean) is far from it: their difference would be that of rounded numbers."""
    x = torch.linspace(-30, -18, 50, dtype=torch.float64)
    r = torch.full_like(x, 2e-8)
    t = (1 + r / x.exp()).round()
    dt = NegativeBinomialNLLLossFunction.first(x, t, r, True, False, 1e-8)[1]
    with workdps(60):
        for slope, y, k in zip(dt.tolist(), map(mpf, x.tolist()), map(mpf, t.tolist()), strict=True):
            exact = log(mp.exp(y) + mpf(2e-8)) - y - digamma(k + mpf(2e-8))
            assert abs(slope - exact) < 1e-15
