"""Derivatives without a rule: extrapolated finite differences in float64, and the room that there is for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.differentiate import derivative
from torch import Tensor

from gradcheck.spec import Case, Draw

STEPS = (0.1, 0.01, 0.002)
NOISE = 1e-10  # of the function's size: a slope below it is the rounding of the differences, and counts as 0


def random_direction(seed: int, t: Tensor, gradient: Tensor | None = None) -> Tensor:
    """One in which every entry of ``t`` takes part; with the signs of a gradient nothing cancels in the slope along it."""
    draw = Draw(seed, t.dtype, str(t.device))
    size, sign = draw.uniform(*t.shape, low=0.5, high=1.0), draw.sign(*t.shape)
    return size * (sign if gradient is None else torch.where(gradient == 0, sign, gradient.sign()))


def along_axes(f: Callable[[Case], float], case: Case, name: str, step: float) -> Tensor:
    """The derivative of ``f(case)`` by each entry of the tensor ``name``."""
    t = case.tensors[name].detach()
    slopes = _derivative(lambda offset, i: f(case.at({name: nudge(t, i, offset)})), t.numel(), step)
    return slopes.reshape(t.shape).to(t)


def along(f: Callable[[Case], Tensor], case: Case, direction: dict[str, Tensor], step: float) -> Tensor:
    """The derivative of the vector ``f(case)`` along ``direction``, entry by entry."""

    @functools.cache
    def at(offset: float) -> Tensor:
        return f(case.at({k: case.tensors[k].detach() + offset * v for k, v in direction.items()})).cpu()

    return _derivative(lambda offset, i: float(at(offset)[i]), at(0.0).numel(), step)


def _derivative(f: Callable[[float, int], float], count: int, step: float) -> Tensor:
    """The slopes at 0 of ``f(·, i)``, by extrapolated central differences of order 8."""

    def shifted(offsets: np.ndarray, indices: np.ndarray) -> np.ndarray:
        pairs = np.broadcast(offsets, indices)
        return np.array([f(float(s), int(i)) for s, i in pairs]).reshape(pairs.shape)

    if count == 0:
        return torch.zeros(0, dtype=torch.float64)
    result = derivative(shifted, np.zeros(count), args=(np.arange(count),), initial_step=step, maxiter=8)
    size = max(abs(f(0.0, i)) for i in range(count))
    return torch.from_numpy(np.where(np.abs(result.df) > NOISE * size, result.df, 0.0))


def room(case: Case, direction: dict[str, Tensor] | None = None) -> float | None:
    """A step that can be taken along every axis (or ``direction``) with no kink or edge of a domain in the way."""
    signs = kink_signs(case)
    if not signs.all():
        return None
    for h in STEPS:
        if all(p.outside is None and torch.equal(kink_signs(p), signs) for p in _neighbours(case, h, direction)):
            return h
    return None


def _neighbours(case: Case, h: float, direction: dict[str, Tensor] | None) -> Iterator[Case]:
    for offset in (-h, h):
        if direction is not None:
            yield case.at({k: case.tensors[k].detach() + offset * v for k, v in direction.items()})
            continue
        for name, t in case.differentiable.items():
            for i in range(t.numel()):
                yield case.at({name: nudge(t.detach(), i, offset)})


def kink_signs(case: Case) -> Tensor:
    """On which side of every kink the point lies."""
    return torch.cat([torch.ones(1), *(d(**case.arguments).flatten().sign().cpu() for d in case.spec.kinks.values())])


def nudge(t: Tensor, index: int, offset: float) -> Tensor:
    moved = t.clone(memory_format=torch.contiguous_format)
    moved.view(-1)[index] += offset
    return moved
