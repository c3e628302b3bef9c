"""Numerical derivatives: extrapolated finite differences in float64, with steps that cross no kink."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradcheck.spec import Case, Draw

STEPS = (0.1, 0.01, 0.002)
LEVELS = 9  # each halves the step, so the last step is 1/256 of the first
ENOUGH = 1e-12  # relative to the size of the function: an error below it ends the extrapolation
NOISE = 1e-10  # relative to the size of the function: a slope below it is rounding error, and counts as 0


def random_direction(seed: int, t: Tensor, gradient: Tensor | None = None) -> Tensor:
    """A direction without zeros. With a gradient, it takes the signs of that, so that nothing cancels in the slope."""
    draw = Draw(seed, t.dtype, str(t.device))
    size, sign = draw.uniform(*t.shape, low=0.5, high=1.0), draw.sign(*t.shape)
    return size * (sign if gradient is None else torch.where(gradient == 0, sign, gradient.sign()))


def along_axes(f: Callable[[Case], Tensor], case: Case, name: str, step: float) -> Tensor:
    """The derivative of the scalar ``f(case)`` with respect to each entry of the tensor ``name``."""
    t = case.tensors[name].detach()

    def moved(i: int, s: float) -> Tensor:
        return f(case.at({name: nudge(t, i, s)}))

    slopes = [slope(functools.partial(moved, i), step) for i in range(t.numel())]
    return torch.stack(slopes).reshape(t.shape).to(t)


def along(f: Callable[[Case], Tensor], case: Case, direction: dict[str, Tensor], step: float) -> Tensor:
    """The derivative of ``f(case)`` along ``direction``, entry by entry."""
    return slope(lambda s: f(case.at({k: case.tensors[k].detach() + s * v for k, v in direction.items()})), step)


def slope(f: Callable[[float], Tensor], step: float) -> Tensor:
    """The derivative of ``f`` at 0, entry by entry, by Ridders' method.

    The step of a central difference is halved repeatedly, and each result is extrapolated with the previous ones to a
    step of 0. Each entry gets the estimate that differs least from its neighbours; beyond it, rounding errors grow.
    """

    def at(s: float) -> np.ndarray[Any, Any]:
        return np.asarray(f(s).detach().cpu().numpy())

    size = np.abs(at(0.0)).max(initial=0.0)
    found: np.ndarray[Any, Any] = np.zeros_like(at(0.0))
    error = np.full_like(found, np.inf)
    before: list[np.ndarray[Any, Any]] = []
    for level in range(LEVELS):
        h = step / 2**level
        estimates = [(at(h) - at(-h)) / (2 * h)]
        for order, coarse in enumerate(before, 1):
            fine = estimates[-1]
            estimates.append(fine + (fine - coarse) / (4**order - 1))
            apart = np.maximum(np.abs(estimates[-1] - fine), np.abs(estimates[-1] - coarse))
            found, error = np.where(apart < error, estimates[-1], found), np.minimum(apart, error)
        before = estimates
        if (error <= ENOUGH * size).all():
            break
    return torch.from_numpy(np.where(np.abs(found) > NOISE * size, found, 0.0))


def room(case: Case, direction: dict[str, Tensor], steps: Sequence[float] = STEPS) -> float | None:
    """The first of ``steps`` along ``direction`` that crosses no kink and no edge of the domain, or None."""
    signs = kink_signs(case)
    if not signs.all():
        return None
    for h in steps:
        points = (case.at({k: case.tensors[k].detach() + s * v for k, v in direction.items()}) for s in (-h, h))
        if all(p.outside is None and torch.equal(kink_signs(p), signs) for p in points):
            return h
    return None


def kink_signs(case: Case) -> Tensor:
    """The side of each kink on which the point lies."""
    return torch.cat([torch.ones(1), *(d(**case.arguments).flatten().sign().cpu() for d in case.spec.kinks.values())])


def nudge(t: Tensor, index: int, offset: float) -> Tensor:
    moved = t.clone(memory_format=torch.contiguous_format)
    moved.view(-1)[index] += offset
    return moved
