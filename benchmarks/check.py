"""Check results before timing: a loss is timed only if it is correct."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.cases import Case, Inputs

# The bound on ‖a − b‖ / ‖b‖, in eps of the inputs' dtype, where b is torch's float64 result. manual_grad promises this
# for every component. A single wrong one among the 8 million of a large gradient gives 1/√(8·10⁶), or thousands of eps.
TOLERANCE = 8.0


def error(case: Case, inputs: Inputs, ours: Callable[..., Tensor], upstream: float = 1.0) -> float:
    """The largest error of the value and the gradients, in eps; inf if anything is not finite."""
    exact = tuple(t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t for t in inputs)
    results = _value_and_gradients(case, ours, inputs, upstream)
    expected = _value_and_gradients(case, case.theirs, exact, upstream)
    errors = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(results, expected, strict=True)]
    worst = max(e if e == e else float("inf") for e in errors)
    return worst / torch.finfo(inputs[0].dtype).eps


def _value_and_gradients(case: Case, loss: Callable[..., Tensor], inputs: Inputs, upstream: float) -> list[Tensor]:
    value = loss(*inputs, **case.options)
    wanted = [t for t in inputs if t.requires_grad]
    gradients = torch.autograd.grad(value, wanted, torch.full_like(value, upstream))
    return [value.detach(), *(case.comparable(g, x.detach()) for g, x in zip(gradients, wanted, strict=True))]
