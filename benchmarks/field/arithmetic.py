"""One formula, two arithmetics: torch's, which autograd differentiates, and mpmath's with 120 digits.

A formula is written once, as a function of ``m`` and of the inputs. ``m`` is :data:`TORCH` for tensors, or
:data:`EXACT` for NumPy arrays of mpmath numbers, which have the same operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mpmath import mp, mpf
from torch import Tensor

DIGITS, STEP = 120, "1e-40"
Formula = Callable[..., Any]


class Torch:
    """Tensors."""

    exp, log, log1p, sqrt, abs = torch.exp, torch.log, torch.log1p, torch.sqrt, torch.abs
    sigmoid, where, cos, acos = torch.sigmoid, torch.where, torch.cos, torch.acos
    relu = staticmethod(torch.relu)
    maximum, minimum = torch.maximum, torch.minimum

    @staticmethod
    def softplus(x: Tensor) -> Tensor:
        return torch.logaddexp(x, torch.zeros_like(x))

    @staticmethod
    def logsumexp(x: Tensor, axis: int = -1) -> Tensor:
        return x.logsumexp(axis)

    @staticmethod
    def amax(x: Tensor, axis: int = -1) -> Tensor:
        return x.amax(axis)

    @staticmethod
    def stack(xs: list[Tensor]) -> Tensor:
        return torch.stack(xs)

    @staticmethod
    def concat(xs: list[Tensor], axis: int = 0) -> Tensor:
        return torch.cat(xs, axis)

    @staticmethod
    def one_hot(t: Tensor, x: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(t, x.shape[-1]).to(x)


class Exact:
    """NumPy arrays of mpmath numbers."""

    exp, log, log1p, sqrt = (np.vectorize(f, otypes=[object]) for f in (mp.exp, mp.log, mp.log1p, mp.sqrt))
    cos, acos = (np.vectorize(f, otypes=[object]) for f in (mp.cos, mp.acos))
    abs = staticmethod(np.abs)
    maximum, minimum = staticmethod(np.maximum), staticmethod(np.minimum)
    where = staticmethod(np.where)

    @staticmethod
    def relu(x: Any) -> Any:
        return np.maximum(x, mpf(0))

    @staticmethod
    def sigmoid(x: Any) -> Any:
        return 1 / (1 + Exact.exp(-x))

    @staticmethod
    def softplus(x: Any) -> Any:
        return Exact.log1p(Exact.exp(x))

    @staticmethod
    def logsumexp(x: Any, axis: int = -1) -> Any:
        return Exact.log(np.asarray(Exact.exp(x).sum(axis)))

    @staticmethod
    def amax(x: Any, axis: int = -1) -> Any:
        return x.max(axis)

    @staticmethod
    def stack(xs: list[Any]) -> Any:
        return np.array(xs, dtype=object)

    @staticmethod
    def concat(xs: list[Any], axis: int = 0) -> Any:
        return np.concatenate(xs, axis)

    @staticmethod
    def one_hot(t: Any, x: Any) -> Any:
        return np.eye(x.shape[-1], dtype=int)[t]


TORCH, EXACT = Torch(), Exact()


def exactly(t: Tensor) -> Any:
    """The numbers of a tensor, as they are."""
    values = t.detach().cpu().numpy()
    if not t.is_floating_point():
        return values
    numbers = np.empty(values.shape, dtype=object)
    numbers[...] = np.vectorize(lambda v: mpf(float(v)), otypes=[object])(values)
    return numbers


def scalar(value: Any) -> Any:
    """What is differentiated: a function of many values is summed with the weights 1, 2, 3, …"""
    flat = value.reshape(-1)
    if len(flat) == 1:
        return flat[0]
    if isinstance(flat, Tensor):
        return (flat * torch.arange(1, len(flat) + 1).to(flat)).sum()
    return (flat * np.arange(1, len(flat) + 1)).sum()


def evaluate(
    formula: Formula, inputs: Mapping[str, Tensor], params: Mapping[str, Any], by: tuple[str, ...], curved: bool = False
) -> dict[str, list[Any]]:
    """The value of a formula and its slope by every entry of the inputs ``by``, to some 80 digits.

    With ``curved`` also the curvature: the slope of what the gradient adds up to with the weights 1, 2, 3, …
    """
    with mp.workdps(DIGITS):
        numbers = {k: exactly(t) for k, t in inputs.items()}

        def value(**changed: Any) -> Any:
            return np.asarray(formula(EXACT, **{**numbers, **changed}, **params), dtype=object)

        found = {"value": list(value().reshape(-1))}
        step = mpf(STEP)
        for name in by:
            slopes = []
            for i in range(numbers[name].size):
                ends = []
                for h in (step, -step):
                    moved = numbers[name].copy()
                    moved.reshape(-1)[i] += h
                    ends.append(scalar(value(**{name: moved})))
                slopes.append((ends[0] - ends[1]) / (2 * step))
            found[f"gradient of {name}"] = slopes
            if curved:
                found[f"curvature by {name}"] = [_bent(value, name, numbers[name], i) for i in range(len(slopes))]
        return found


def _bent(value: Any, name: str, x: Any, i: int) -> Any:
    step, total = mpf("1e-30"), mpf(0)
    weights = np.arange(1, x.size + 1).reshape(x.shape)
    for a in (1, -1):
        for b in (1, -1):
            moved = x + b * step * weights
            moved.reshape(-1)[i] += a * step
            total += a * b * scalar(value(**{name: moved}))
    return total / (4 * step**2)
