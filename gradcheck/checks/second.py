"""Are the second derivative (and higher ones, where promised) those of the function?

Every block of the Hessian, and the derivative by the upstream gradient, against double backward of the definition and
against finite differences of the gradient; torch's gradgradcheck besides, once for every parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from gradcheck.checks.cases import each, in_blocks
from gradcheck.compare import Result, compare, expect, noted
from gradcheck.conditioning import judge, scale_of, widened
from gradcheck.numeric import along, random_direction, room
from gradcheck.spec import Case, Named, Settings, Spec

BOUND = 4096.0  # two passes of autograd through a textbook formula
NOISE = 1e-13  # of the largest derivative: below it a block that vanishes is not told from rounding
NEAR = (1e-5,)  # torch's own takes a step of 1e-6
DIFFERENCES = 1e-8 / 2.2e-16  # of the gradient, whose own rounding they enlarge


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    promised = spec.order >= 2

    def body(case: Case) -> Iterator[Result]:
        if not promised:
            differentiate_through_everything(case)
        for name, v in directions(case).items():
            ours = derivatives(case, v, spec.order)
            if spec.definition is not None:
                size = functools.cache(functools.partial(scale, case, v))
                theirs = derivatives(case, v, spec.order, spec.definition)
                noise = NOISE * largest([*theirs.values(), *case.differentiate()[1].values()])
                for (what, d), expected in zip(ours.items(), theirs.values(), strict=True):
                    if d.isfinite().all() and not expected.isfinite().all():
                        yield noted(f"{what} of d/d{name}", "cannot be judged: that of the definition is not finite")
                        continue
                    result = compare(f"{what} of d/d{name}", d, expected, BOUND, noise=noise)
                    yield judge(result, d, expected, case.dtype, size, what)
            step = room(case, v)
            if step is not None:
                bent = torch.cat([ours[f"d/d{k}"].flatten() for k in case.differentiable])
                yield compare(f"Hessian along {name}", bent, along(gradients, case, v, step), DIFFERENCES)

    def scale(case: Case, v: dict[str, Tensor]) -> Named:
        return scale_of(lambda at, _: {**derivatives(at, v, spec.order, spec.definition)}, widened(case))

    # every sample with every parameter, since what is wrong for one pair of them may be right for all others
    yield from each(spec.cases(settings), body, promised)
    yield from in_blocks(spec, lambda: each(spec.covering(settings), body, promised))
    if promised:
        first = (spec.case(settings, params=params) for params in spec.params)
        yield from each(first, torchs_own)


def largest(tensors: Iterable[Tensor | None]) -> float:
    finite = (t[t.isfinite()].abs() for t in tensors if t is not None)
    return max((float(t.max()) for t in finite if t.numel()), default=0.0)


def directions(case: Case) -> dict[str, dict[str, Tensor]]:
    """One random direction for each differentiable tensor, zero in the others."""
    return {name: {name: random_direction(i, t)} for i, (name, t) in enumerate(case.differentiable.items())}


def derivatives(
    case: Case, along: dict[str, Tensor], order: int, fn: Callable[..., Tensor] | None = None, g: Tensor | None = None
) -> dict[str, Tensor]:
    """The derivatives of orders 2 to ``order``, by every input and by the upstream gradient, ``along`` a direction."""
    leaves = case.leaves()
    value = case.call(fn, **leaves)
    g = (case.upstream(value) if g is None else g.detach()).requires_grad_()
    how: dict[str, Any] = dict(create_graph=True, allow_unused=True, materialize_grads=True)
    by = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values()), g, **how), strict=True))
    leaves["upstream"] = g
    found: dict[str, Tensor] = {}
    for k in range(max(order, 2) - 1):
        d = torch.stack([(u * by[name]).sum() for name, u in along.items()]).sum()
        if d.requires_grad:
            by = dict(zip(leaves, torch.autograd.grad(d, list(leaves.values()), **how), strict=True))
        elif k == 0:
            raise RuntimeError("the gradient has no graph, so that it cannot be differentiated")
        else:  # a constant has no graph, and no slope
            by = {name: torch.zeros_like(t) for name, t in leaves.items()}
        found |= {f"d/d{name}" + k * "'": u.detach() for name, u in by.items()}
    return found


def differentiate_through_everything(case: Case) -> None:
    """Raise if the gradient refuses to be differentiated.

    ``torch.autograd.grad`` visits only what leads to the inputs that it is asked for. The refusal that
    ``once_differentiable`` puts in the way leads to none, so that it would return zeros.
    """
    leaves = case.leaves()
    value = case.call(**leaves)
    g = case.upstream(value).requires_grad_()
    found = torch.autograd.grad(value, list(leaves.values()), g, create_graph=True, allow_unused=True)
    graphs = [d.sum() for d in found if d is not None and d.requires_grad]
    if graphs:
        torch.stack(graphs).sum().backward()


def gradients(case: Case) -> Tensor:
    """The gradient, end to end."""
    _, found = case.differentiate()
    whole = ((torch.zeros_like(t) if found[k] is None else found[k]) for k, t in case.differentiable.items())
    return torch.cat([d.flatten() for d in whole])


def torchs_own(case: Case) -> Iterator[Result]:
    every = {k: random_direction(i, t) for i, (k, t) in enumerate(case.differentiable.items())}
    if room(case, every, NEAR) is None:
        return
    leaves = tuple(case.leaves().values())
    agrees = torch.autograd.gradgradcheck(case.function(), leaves, fast_mode=True)  # along random directions
    yield expect("gradgradcheck", agrees, "torch.autograd.gradgradcheck fails")
