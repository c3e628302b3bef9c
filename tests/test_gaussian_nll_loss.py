"""Tests of gaussian_nll_loss only: variances must not be negative, in several forms."""

from __future__ import annotations

import pytest
import torch

import manual_grad.functional as M
from manual_grad import kernels

F = torch.nn.functional
ENTRIES = 100_003  # several blocks, chunks and threads, and a partial last vector


def inputs(
    entries: int = ENTRIES, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, t = torch.randn(2, entries, dtype=dtype)
    return x, t, torch.rand(entries, dtype=dtype)


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "formulas"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("at", [0, 511, 512, 50_000, ENTRIES - 1])
def test_one_negative_variance_is_found(at: int, dtype: torch.dtype, on: bool) -> None:
    x, t, var = inputs(dtype=dtype)
    with kernels.switched(on):
        M.gaussian_nll_loss(x, t, var)
        var[at] = -1e-3
        for requires_grad in (False, True):
            with pytest.raises(ValueError, match="var has negative entry/entries"):
                M.gaussian_nll_loss(x.clone().requires_grad_(requires_grad), t, var)


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "formulas"])
def test_what_is_not_negative_passes(on: bool) -> None:
    var = torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1e-45])
    with kernels.switched(on):
        for n in (1, 7, 100):
            v = var.repeat(n)
            x, t = torch.randn(2, 5 * n)
            ours, torchs = (module.gaussian_nll_loss(x, t, v, reduction="none") for module in (M, F))
            torch.testing.assert_close(ours, torchs, equal_nan=True)


def test_compiled_code_refuses_a_negative_variance_too() -> None:
    x, t, var = inputs(8)
    compiled = torch.compile(M.gaussian_nll_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, t, var), F.gaussian_nll_loss(x, t, var))
    with kernels.switched(True), pytest.raises(ValueError, match="negative"):
        compiled(x, t, -var)


def test_a_negative_variance_that_cannot_be_read_makes_a_nan() -> None:
    x, t, var = inputs(3)
    var[1] = -1
    loss = torch.vmap(M.gaussian_nll_loss)(x, t, var)
    assert loss.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("var", [0.5, 0.0, float("nan")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_one_number_for_all(var: float, dtype: torch.dtype) -> None:
    x, t = torch.randn(2, 3, 4).mul(5).to(dtype)
    ours, torchs = (module.gaussian_nll_loss(x, t, var, reduction="none") for module in (M, F))
    torch.testing.assert_close(ours, torchs, equal_nan=True)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3), (2, 3, 1), (2, 1, 4), (1, 3, 4)])
def test_shapes_of_the_variance(shape: tuple[int, ...]) -> None:
    x, t = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    var = torch.rand(shape, dtype=torch.float64).add_(0.1).requires_grad_()
    ours, torchs = (module.gaussian_nll_loss(x, t, var, full=True) for module in (M, F))
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, var)[0] for loss in (ours, torchs)))


@pytest.mark.parametrize("shape", [(), (3,), (4,), (2, 3, 1, 1), (1, 1, 4), (2, 4)])
def test_other_shapes_are_refused_as_by_torch(shape: tuple[int, ...]) -> None:
    x, t = torch.randn(2, 2, 3, 4)
    for module in (M, F):
        with pytest.raises(ValueError, match="var is of incorrect size"):
            module.gaussian_nll_loss(x, t, torch.ones(shape))


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "formulas"])
def test_a_negative_variance_of_no_element_is_refused_as_in_torch(on: bool) -> None:
    x, var = torch.empty(2, 0), torch.tensor([-1.0, 0.75])
    with kernels.switched(on):
        assert M.gaussian_nll_loss(x, x, -var[:1].expand(2)).isnan()
        for module in (F, M):
            with pytest.raises(ValueError, match="negative"):
                module.gaussian_nll_loss(x, x, var)
