"""Regressions with infinities, NaNs and sizes, found by tests/test_fuzz.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import manual_grad.functional as M
from manual_grad.engine import older_torch

F = torch.nn.functional
INF, NAN = math.inf, math.nan

pytestmark = pytest.mark.usefixtures("route")
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])


def value_and_gradients(function: Any, **arguments: Any) -> list[torch.Tensor | None]:
    tensors = {k: t for k, t in arguments.items() if torch.is_tensor(t)}
    leaves = {k: t.clone().requires_grad_() for k, t in tensors.items() if t.is_floating_point()}
    value = function(**{**arguments, **leaves})
    return [value.detach(), *torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)]


def assert_as_torch(name: str, **arguments: Any) -> None:
    ours, torchs = (value_and_gradients(loss, **arguments) for loss in (getattr(M, name), older_torch.loss(name)))
    torch.testing.assert_close(ours, torchs, equal_nan=True)


@dtypes
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("row", [[INF], [NAN], [-INF], [INF, 1.0], [NAN, 1.0], [-INF, -INF], [INF, INF], [1.0, -INF]])
def test_a_row_without_a_leader_is_nan(row: list[float], reduction: str, dtype: torch.dtype) -> None:
    scores, y = torch.tensor([row, [0.5] * len(row)], dtype=dtype), torch.tensor([0, 0])
    assert_as_torch("cross_entropy", input=scores, target=y, reduction=reduction)
    x, W = torch.ones(1, 1, dtype=dtype), torch.ones(len(row), 1, dtype=dtype)
    b = torch.tensor(row, dtype=dtype) - 1
    options = dict(linear_weight=W, linear_bias=b, reduction=reduction)
    assert_as_torch("linear_cross_entropy", input=x, target=torch.tensor([0]), **options)


@pytest.mark.parametrize("target", [torch.zeros(1, 2), torch.tensor([0])])
def test_a_nan_is_not_lost_in_a_row_that_weighs_nothing(target: torch.Tensor) -> None:
    x = torch.tensor([[NAN, 1.0]])
    assert M.cross_entropy(x, target, weight=torch.zeros(2), reduction="sum").isnan()
    assert M.cross_entropy(x, torch.tensor([0]), ignore_index=0, reduction="sum") == 0


@dtypes
@pytest.mark.parametrize("rate", [INF, -INF, NAN])
@pytest.mark.parametrize("count", [1.0, 2.0])
def test_poisson_with_an_infinite_rate(rate: float, count: float, dtype: torch.dtype) -> None:
    x, t = torch.tensor([rate, 0.5], dtype=dtype).repeat(9), torch.tensor([count, 1.0], dtype=dtype).repeat(9)
    assert_as_torch("poisson_nll_loss", input=x, target=t, reduction="none")


@dtypes
@pytest.mark.parametrize("target", [INF, -INF])
def test_binary_cross_entropy_with_an_infinite_target(target: float, dtype: torch.dtype) -> None:
    x, t = torch.tensor([1.5, -0.5], dtype=dtype), torch.tensor([target, 0.25], dtype=dtype)
    assert_as_torch("binary_cross_entropy_with_logits", input=x, target=t, reduction="none")


@pytest.mark.parametrize("target", [torch.tensor(0), torch.tensor(0, dtype=torch.int32), torch.tensor(0.5)])
def test_errors_of_a_single_logit(target: torch.Tensor) -> None:
    errors = []
    for module in (M, F):
        with pytest.raises(Exception) as raised:
            module.cross_entropy(torch.tensor(0.5), target)
        errors.append(raised.type)
    assert errors[0] is errors[1]


@pytest.mark.parametrize("dims", [17, 64])
def test_many_dimensions(dims: int) -> None:
    shape = [2, 3, *[1] * (dims - 3), 2]
    x, t = torch.linspace(0.1, 0.9, 12).reshape(shape), torch.linspace(0.2, 0.8, 12).reshape(shape)
    for name in ("mse_loss", "binary_cross_entropy", "kl_div", "multilabel_soft_margin_loss"):
        assert_as_torch(name, input=x, target=t)
        assert_as_torch(name, input=x.transpose(0, 1), target=t.transpose(0, 1))
    y = torch.arange(4).reshape([2, *shape[2:]]) % 3
    for name in ("cross_entropy", "nll_loss"):
        assert_as_torch(name, input=x, target=y)


def test_a_nan_is_not_lost_in_a_norm() -> None:
    """A gradient scaler must find the NaN in the gradient; the sign of NaN would be 0."""
    p = torch.tensor([[math.nan, 0.5, -0.5]])
    for norm in (1.0, 2.0, 3.0, math.inf, -math.inf):
        _, da, dp, _ = value_and_gradients(
            M.triplet_margin_loss, anchor=torch.ones(1, 3), positive=p, negative=torch.zeros(1, 3), **{"p": norm}
        )
        assert da[0, 0].isnan() and dp[0, 0].isnan()


def test_expanded_vectors_of_no_features() -> None:
    """Tensors with a stride of 0 may have no memory to read."""
    x = torch.empty(0).as_strided((2, 0), (1, 0))
    assert M.triplet_margin_loss(x, x, x, reduction="none").tolist() == [1, 1]
    assert M.triplet_margin_loss(x, x, x, swap=True) == 1
    assert_as_torch("cosine_embedding_loss", input1=x, input2=x, target=torch.ones(2), reduction="none")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_row_of_halves_is_rounded_once(dtype: torch.dtype) -> None:
    """Weights of both signs make the labels' losses cancel: if each were rounded, nothing would be left."""
    x = torch.linspace(-2, 2, 40)
    rows = [u.to(dtype)[None] for u in (x, torch.full_like(x, 0.4), torch.tensor([1.0, -1.0]).repeat(20))]
    exact = F.multilabel_soft_margin_loss(*(u.double() for u in rows), reduction="none")
    ours = M.multilabel_soft_margin_loss(*rows, reduction="none")
    torch.testing.assert_close(ours.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)
