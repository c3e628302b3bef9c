"""How many digits a case leaves to anybody: what the rounding of an input, or of a term of a sum, does to a result.

A residual such as ``exp(x) - t`` near a fit, or the gradient of an input that broadcasts, where a hundred terms cancel,
has fewer digits than its dtype, however it is computed. Two right ways of computing it then differ by many eps of the
result, but by few of its *scale*: its own size, that of the terms it is the sum of, and what it moves by, over the
relative size of the step, when the inputs take a small one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradcheck.spec import Case, Draw, Named, named

STEP = 2.0**-20  # far above the rounding of float64, and small enough for a straight line
DRAWS = 4


def scales(case: Case, g: Tensor) -> Named:
    """The scale of the value and of each gradient, entry by entry, for the upstream gradient ``g``."""
    wide = apart(case.at({k: t.double() for k, t in case.tensors.items() if t.is_floating_point()}))
    here = results(wide, g)
    moved = [results(step(wide, take), g) for take in range(DRAWS)]
    found: Named = {}
    for what, t in here.items():
        if t is not None:
            steps = torch.stack([(m[what] - t).abs() for m in moved if m[what] is not None] or [torch.zeros_like(t)])
            scale = (t.abs() + steps.amax(0) / STEP).nan_to_num(0.0, 0.0, 0.0)
            shape = case.tensors[what.removeprefix("gradient of ")].shape if what != "value" else t.shape
            found[what] = scale.sum_to_size(shape)
    return found


def results(case: Case, g: Tensor) -> Named:
    return named(*case.differentiate(case.spec.definition, g.double()))


def apart(case: Case) -> Case:
    """With no input that broadcasts, so that the terms of its gradient are seen apart; if that is the same call."""
    try:
        shape = torch.broadcast_shapes(*(t.shape for t in case.differentiable.values()))
        expanded = case.at({k: t.expand(shape).clone() for k, t in case.differentiable.items()})
        before, after = case.call(case.spec.definition), expanded.call(case.spec.definition)
    except (RuntimeError, ValueError):
        return case
    same = before.shape == after.shape and torch.allclose(before, after, rtol=1e-9, atol=0.0, equal_nan=True)
    return expanded if same else case


def step(case: Case, take: int) -> Case:
    """Each entry of each input larger or smaller by ``STEP`` of itself, within its domain."""
    draw = Draw(take, torch.float64, str(next(iter(case.tensors.values())).device))
    inputs = case.spec.by_name
    floating = {k: t for k, t in case.tensors.items() if t.is_floating_point()}
    return case.at({k: (t * (1 + STEP * draw.sign(*t.shape))).clamp(*inputs[k].domain) for k, t in floating.items()})
