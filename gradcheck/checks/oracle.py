"""How many digits are right, in every regime?

Value and every component of the gradient against exact arithmetic, in eps of the dtype, torch's own error beside it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gradcheck import conditioning
from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, distance, noted
from gradcheck.exact import Exact, Row, reduced, rows
from gradcheck.numeric import random_direction
from gradcheck.spec import Case, Named, Settings, Spec, named

# float32 is promised to a few eps in every entry, relative to the sum of the sizes of its terms. float64 has no wider
# type to compute in: an entry in which the derivative itself cancels loses digits, and the exponential of a sum of size
# s has s eps; there the bound is for sanity, and on the slope along one direction, in which every entry takes part.
BOUNDS = {torch.float32: 8.0, torch.float64: 256.0}


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    if spec.oracle is None:
        yield noted("oracle", "no exact formula was given, so that the digits of float32 were not counted")
        return
    if torch.float32 in settings.dtypes:
        body = functools.partial(entries, known={})
        yield from each(spec.covering(settings, torch.float32), body)
        yield from each(spec.cases(settings, torch.float32, spec.regimes), body)  # digits are lost at hard points
    if torch.float64 in settings.dtypes and not settings.quick:
        yield from each(spec.covering(settings, torch.float64, {**spec.samples, **spec.regimes}), slopes)


def entries(case: Case, known: dict[Any, list[Row]]) -> Iterator[Result]:
    value, gradient = case.differentiate()
    g = case.upstream(value)
    key = _without_reduction(case)
    if key not in known:
        known[key] = rows(case)
    ours, theirs = named(value, gradient), of_peer(case, g)
    for what, exact in reduced(case, known[key], g).items():
        expected, size = exact.nearest(ours[what]), exact.scale
        if not case.spec.exact:
            size = size.maximum(conditioning.scales(case, g)[what].cpu())
        result = compare(what, ours[what], expected, BOUNDS[case.dtype], dtype=case.dtype, scale=size)
        peer = theirs.get(what)
        yield result._replace(peer_error=peer_error(peer, exact.nearest(peer), case.dtype, size))


def slopes(case: Case) -> Iterator[Result]:
    value, gradient = case.differentiate()
    g = case.upstream(value)
    along = {k: random_direction(i, t, gradient[k]) for i, (k, t) in enumerate(case.differentiable.items())}
    ours, theirs = named(value, gradient), of_peer(case, g)
    for what, exact in reduced(case, rows(case, along), g).items():
        a, b, u = ours[what], theirs.get(what), along.get(what.removeprefix("gradient of "))
        if u is not None:
            exact, a, b = Exact(*(t.flatten()[0] for t in exact)), _dot(a, u), _dot(b, u)
        result = compare(what, a, exact.nearest(a), BOUNDS[case.dtype], dtype=case.dtype)
        yield result._replace(peer_error=peer_error(b, exact.nearest(b), case.dtype))


def _dot(d: Tensor | None, u: Tensor) -> Tensor | None:
    return None if d is None else (d * u).sum()


def _without_reduction(case: Case) -> Any:
    """What the rows of a case depend on: an oracle that depends on the reduction says so by taking it."""
    takes_it = "reduction" in inspect.signature(case.spec.oracle).parameters
    return case.sample, frozenset((k, v) for k, v in case.params.items() if takes_it or k != "reduction")


def of_peer(case: Case, g: Tensor) -> Named:
    """torch's own value, and the gradients of those inputs that it differentiates."""
    found: Named = {}
    if case.spec.peer is None:
        return found
    try:
        return named(*case.differentiate(case.spec.peer, g))
    except RuntimeError:
        pass  # not differentiable by some input, or not for this dtype
    for name, leaf in case.leaves().items():
        with contextlib.suppress(RuntimeError):
            value = case.call(case.spec.peer, **{name: leaf})
            found["value"] = value.detach()
            (found[f"gradient of {name}"],) = torch.autograd.grad(value, leaf, g, allow_unused=True)
    return found


def peer_error(
    theirs: Tensor | None, expected: Tensor, dtype: torch.dtype, scale: Tensor | None = None
) -> float | None:
    if theirs is None or theirs.shape != expected.shape:
        return None
    return distance(theirs, expected, dtype, scale, nan=True)
