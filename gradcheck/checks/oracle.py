"""How many digits are right, in every regime?

Value and every component of the gradient against exact arithmetic, in eps of the dtype, torch's own error beside it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, distance, noted
from gradcheck.exact import Row, reduced, rows
from gradcheck.spec import Case, Settings, Spec

# float32 is promised to a few eps in every entry. float64 has no wider type to compute in: an entry in which the
# derivative itself cancels loses digits, and the exponential of a sum of size s has s eps; there the bound is on the
# largest entry, and for sanity.
BOUNDS = {torch.float32: 8.0, torch.float64: 256.0}


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    if spec.oracle is None:
        yield noted("oracle", "none is given")
        return
    samples = {**spec.samples, **spec.regimes}
    for dtype in (d for d in BOUNDS if d in settings.dtypes and not (settings.quick and d is torch.float64)):
        known: dict[Any, list[Row]] = {}

        def body(case: Case, dtype: torch.dtype = dtype, known: dict[Any, list[Row]] = known) -> Iterator[Result]:
            value, gradient = case.differentiate()
            g = case.upstream(value)
            key = _without_reduction(case)
            if key not in known:
                known[key] = rows(case)
            exact = reduced(case, known[key], case.arguments.get("reduction", "none"), g)
            ours = {"value": value, **{f"gradient of {k}": d for k, d in gradient.items()}}
            theirs = of_peer(case, g)
            for what, (expected, size) in exact.items():
                scale = size if dtype is torch.float32 else None
                result = compare(what, ours[what], expected, BOUNDS[dtype], dtype=dtype, scale=scale)
                yield replace(result, peer_error=peer_error(theirs.get(what), expected, scale, dtype))

        cases = spec.cases if dtype is torch.float32 else spec.covering
        yield from each(cases(settings, dtype, samples), body)


def _without_reduction(case: Case) -> Any:
    """What the rows of a case depend on: an oracle that depends on the reduction says so by taking it."""
    takes_it = "reduction" in inspect.signature(case.spec.oracle).parameters
    return case.sample, frozenset((k, v) for k, v in case.params.items() if takes_it or k != "reduction")


def of_peer(case: Case, g: Tensor) -> dict[str, Tensor | None]:
    """torch's own value, and the gradients of those inputs that it differentiates."""
    found: dict[str, Tensor | None] = {}
    if case.spec.peer is None:
        return found
    for name, leaf in case.leaves().items():
        with contextlib.suppress(RuntimeError):  # not differentiable by this input, or not for this dtype
            value = case.call(case.spec.peer, **{name: leaf})
            found["value"] = value.detach()
            (found[f"gradient of {name}"],) = torch.autograd.grad(value, leaf, g, allow_unused=True)
    return found


def peer_error(theirs: Tensor | None, expected: Tensor, scale: Tensor | None, dtype: torch.dtype) -> float | None:
    if theirs is None or theirs.shape != expected.shape:
        return None
    return distance(theirs.detach().to("cpu", torch.float64), expected, dtype, scale, nan=True)
