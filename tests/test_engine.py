"""Properties of the engine for every loss, beyond what gradcheck checks for any function."""

from __future__ import annotations

import pytest
import torch

from gradcheck.spec import Case, Settings
from manual_grad import specs
from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.losses.pointwise.mse_loss import MSELossFunction

BY_REDUCTION = [(name, reduction) for name in specs.NAMES for reduction in ("none", "mean", "sum")]


def case(name: str, reduction: str, dtype: torch.dtype = torch.float64) -> Case:
    spec = specs.load(name)
    return spec.case(Settings(), params={**spec.params[0], "reduction": reduction}, dtype=dtype)


@pytest.mark.parametrize(("name", "reduction"), BY_REDUCTION)
def test_a_gradient_belongs_to_the_caller(name: str, reduction: str) -> None:
    """Modifying one gradient changes neither the inputs of the loss nor the next gradient."""
    this = case(name, reduction)
    _, expected = this.differentiate(g=torch.ones_like(this.call()))
    leaves = this.leaves()
    loss = this.call(**leaves)
    for _ in range(3):
        found = torch.autograd.grad(loss, list(leaves.values()), torch.ones_like(loss), retain_graph=True)
        for d, wanted in zip(found, expected.values(), strict=True):
            torch.testing.assert_close(d, wanted, rtol=1e-12, atol=0)
            d.fill_(float("nan"))


def test_loss_scaling_saves_half_gradients_from_underflow() -> None:
    """With torch.amp.GradScaler, the scaled gradient must not come from an unscaled float16 gradient."""
    x = torch.full((1 << 16,), 1e-3, dtype=torch.float16, requires_grad=True)
    loss = specs.load("mse_loss").fn(x, torch.zeros_like(x))
    (scaled,) = torch.autograd.grad(loss, x, torch.tensor(2.0**15, dtype=torch.float16))
    exact = 2 * x.detach().double() / x.numel() * 2**15
    torch.testing.assert_close(scaled.double(), exact, rtol=2**-10, atol=0)


def test_a_functional_of_a_user_is_compiled_even_after_others_were() -> None:
    from manual_grad.engine import in_graph  # noqa: F401 - what the first compiled call imports

    @arguments.functional
    def square(input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return evaluate(MSELossFunction, input, target, None, "sum")

    x, t = torch.arange(3.0).requires_grad_(), torch.ones(3)
    torch.compile(square, fullgraph=True, backend="aot_eager")(x, t).backward()
    assert x.grad is not None and x.grad.tolist() == [-2.0, 0.0, 2.0]
