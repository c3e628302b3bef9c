"""Tests of poisson_nll_loss only: integer and complex inputs."""

from __future__ import annotations

import itertools

import pytest
import torch

import manual_grad.functional as M

F = torch.nn.functional
DTYPES = (torch.int64, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("log_input", [False, True])
@pytest.mark.parametrize(("of_input", "of_target"), list(itertools.product(DTYPES, DTYPES)))
def test_dtypes_meet_as_in_torch(of_input: torch.dtype, of_target: torch.dtype, log_input: bool, full: bool) -> None:
    x, t = torch.tensor([1, 2, 3]).to(of_input), torch.tensor([4, 0, 1]).to(of_target)
    for reduction in ("none", "mean", "sum"):
        options = dict(log_input=log_input, full=full, reduction=reduction)
        ours, torchs = (module.poisson_nll_loss(x, t, **options) for module in (M, F))
        assert ours.dtype is torchs.dtype
        exact = F.poisson_nll_loss(x.double(), t.double(), **options)
        torch.testing.assert_close(ours, exact.to(ours.dtype))


@pytest.mark.parametrize("log_input", [False, True])
def test_complex_rates_have_torchs_derivatives(log_input: bool) -> None:
    x, t = torch.randn(2, 5, dtype=torch.complex128)
    x.requires_grad_()
    ours, torchs = (module.poisson_nll_loss(x, t, log_input=log_input) for module in (M, F))
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(*(torch.autograd.grad(loss.abs(), x)[0] for loss in (ours, torchs)))
