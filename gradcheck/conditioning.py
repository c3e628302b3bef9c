"""How many digits a case leaves to anybody: what the rounding of an input, or of a term of a sum, does to a result.

A residual such as ``exp(x) - t`` near a fit, or the gradient of an input that broadcasts, where a hundred terms cancel,
has fewer digits than its dtype, however it is computed. Two right ways of computing it then differ by many eps of the
result, but by few of its *scale*: its own size, that of the terms it is the sum of, and what it moves by, over the
relative size of the step, when the inputs take a small one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradcheck.compare import Result, compare, distance, noted
from gradcheck.spec import Case, Draw, Named, named

STEP = 2.0**-20  # far above the rounding of float64, and small enough for a straight line
DRAWS = 4
LEAST = 8.0  # eps of the scale: a few roundings
GRADIENT_OF = "gradient of "


def judge(
    result: Result, a: Tensor | None, b: Tensor | None, dtype: torch.dtype, scale: Callable[[], Named], what: str
) -> Result:
    """``result`` of comparing ``a`` with ``b``; if it failed, what comes of the scale of ``what``.

    That is a note where the case leaves so few digits that a wrong answer could not be told from a right one.
    """
    if result.ok or result.note or a is None or b is None or a.shape != b.shape:
        return result
    if a.dtype is not torch.float64 and overflows(a, b, dtype):
        return noted(result.what, f"cannot be judged: it is too large or too small for {result.dtype} there")
    bound = max(result.bound, LEAST)
    size = scale().get(what)
    if size is None or size.shape != b.shape or not b.isfinite().any():
        return result
    size = size.maximum(b.abs()[b.isfinite()].max().to(size))  # no less than without a scale
    if not distance(a, b, dtype, size) <= bound:
        return result
    again = compare(result.what, a, b, bound, dtype=dtype, scale=size)
    return (
        again
        if again.ok
        else noted(result.what, f"cannot be judged: so much cancels there that {result.dtype} has no digit left")
    )


def overflows(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether ``a`` is right but for what is too large, or too small, for ``dtype``."""
    info, b = torch.finfo(dtype), b.to(a.device)
    outside = b.abs() > info.max / 4
    if outside.any():
        return not a.isnan().logical_xor(b.isnan()).any() and bool((a.isfinite() | outside).all())
    return bool(b.abs().max() < info.tiny) and bool(a.abs().max() <= 2 * info.tiny) if b.numel() else False


def scales(case: Case, g: Tensor) -> Named:
    """The scale of the value and of each gradient, entry by entry, for the upstream gradient ``g``."""

    def evaluate(at: Case, take: int | None) -> Named:
        return named(*at.differentiate(at.spec.definition, g.double() if take is None else moved(g.double(), take)))

    wide = apart(widened(case))
    found = scale_of(evaluate, wide)
    for what, size in found.items():
        name = what.removeprefix(GRADIENT_OF)
        if size is not None and name in case.tensors:
            found[what] = size.sum_to_size(case.tensors[name].shape)
    return found


def scale_of(evaluate: Callable[[Case, int | None], Named], case: Case) -> Named:
    """Of whatever ``evaluate(case, None)`` makes of a case in float64, and ``evaluate(case, take)`` of one close by."""
    here = evaluate(case, None)
    near = [evaluate(step(case, take), take) for take in range(DRAWS)]
    found: Named = {}
    for what, t in here.items():
        if t is not None:
            steps = [(m[what] - t).abs() for m in near if m.get(what) is not None and m[what].shape == t.shape]
            change = torch.stack(steps).amax(0) if steps else torch.zeros_like(t)
            found[what] = (t.abs() + change / STEP).nan_to_num(0.0, 0.0, 0.0).detach()
    return found


def widened(case: Case) -> Case:
    return case.at({k: t.double() for k, t in case.tensors.items() if t.is_floating_point()})


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
    inputs = case.spec.by_name
    floating = {k: t for k, t in case.tensors.items() if t.is_floating_point()}
    return case.at({k: moved(t, take + i).clamp(*inputs[k].domain) for i, (k, t) in enumerate(floating.items())})


def moved(t: Tensor, seed: int) -> Tensor:
    return t * (1 + STEP * Draw(seed, torch.float64, str(t.device)).sign(*t.shape))
