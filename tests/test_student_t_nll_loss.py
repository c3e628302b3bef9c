"""Tests of student_t_nll_loss only: degrees of freedom from near 0 to the normal limit."""

from __future__ import annotations

import math

import pytest
import torch
from mpmath import log, loggamma, mpf, pi, workdps

from manual_grad.losses.pointwise.student_t_nll_loss import _constant, student_t_nll_loss

F = torch.nn.functional


@pytest.mark.parametrize("df", [1e-300, 1e-3, 0.7, 1.0, 2.0, 31.9, 32.0, 33.0, 1e3, 1e8, 1e16, 1e300])
def test_the_logarithms_of_the_constant_do_not_cancel(df: float) -> None:
    with workdps(400):
        half = mpf(df) / 2
        exact = loggamma(half) - loggamma(half + 0.5) + log(half * 2 * pi) / 2
        assert abs(_constant(df) - exact) < 5e-16 * exact


@pytest.mark.parametrize("df", [0.5, 1.0, 3.0, 100.0])
def test_torchs_distribution_has_this_density(df: float) -> None:
    x, t, s = torch.randn(3, 1000, dtype=torch.float64).mul(3)
    s = s.exp()
    ours = student_t_nll_loss(x, t, s, df, "none", full=True)
    torch.testing.assert_close(ours, -torch.distributions.StudentT(df, x, s).log_prob(t), rtol=1e-12, atol=1e-12)


def test_the_limit_is_normal() -> None:
    x, t, s = torch.randn(3, 1000, dtype=torch.float64)
    x.requires_grad_()
    ours = student_t_nll_loss(x, t, s.exp(), 1e20, full=True)
    limit = F.gaussian_nll_loss(x, t, (2 * s).exp(), full=True, eps=1e-12)
    torch.testing.assert_close(ours, limit, rtol=1e-14, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(e, x)[0] for e in (ours, limit)), rtol=1e-14, atol=0)


def test_nothing_is_squared() -> None:
    x = torch.tensor([1e200, -1e290], dtype=torch.float64, requires_grad=True)
    s = torch.tensor([1.0, 1e-5], dtype=torch.float64, requires_grad=True)
    loss = student_t_nll_loss(x, torch.zeros_like(x), s, 1.0, "none")
    expected = [400 * math.log(10), (2 * 290 + 5) * math.log(10)]
    torch.testing.assert_close(loss.tolist(), expected, rtol=1e-15, atol=0)
    dx, ds = torch.autograd.grad(loss.sum(), (x, s))
    torch.testing.assert_close(dx.tolist(), [2e-200, -2e-290], rtol=1e-15, atol=0)
    torch.testing.assert_close(ds.tolist(), [-1.0, -1e5], rtol=1e-15, atol=0)


def test_a_negative_scale_that_cannot_be_read_makes_a_nan() -> None:
    x, t, s = torch.randn(3), torch.ones(3), torch.tensor([1.0, -1.0, 2.0])
    loss = torch.vmap(lambda *tensors: student_t_nll_loss(*tensors, 3.0))(x, t, s)
    assert loss.isnan().tolist() == [False, True, False]
    compiled = torch.compile(student_t_nll_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, t, s.abs(), 3.0), student_t_nll_loss(x, t, s.abs(), 3.0))
    with pytest.raises(ValueError, match="scale has negative"):
        student_t_nll_loss(x, t, s, 3.0)
