"""Elementary functions whose edges, or whose last digits, torch's own do not give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def size(x: Tensor) -> Tensor:
    """abs(x), with the slope 1 at 0 (torch's abs: 0).

    An even function written in it keeps the derivatives of every order at 0, when torch differentiates it further.
    """
    return torch.where(x < 0, -x, x)


def times(c: Tensor, x: Tensor) -> Tensor:
    """c x, and 0 for a c of 0 and an infinite x."""
    return torch.where((c == 0) & (x.abs() == torch.inf), 0, c * x)


def power(x: Tensor, exponent: float) -> Tensor:
    """x to a constant power, by multiplication where that is shorter. 0 to the power 0 is 1."""
    if exponent == 0:
        return torch.ones_like(x)
    if exponent == 1:
        return x
    if exponent == 2:
        return x * x
    if exponent == 4:
        return (x * x) * (x * x)
    return x.pow(exponent)


def product_error(a: Any, b: Any) -> Any:
    """What the rounding of a b has taken off, for numbers of float64 whose product neither overflows nor underflows.

    By Dekker's product of halves. A kernel is printed with one fused multiply-add in its place.
    """
    if has_torch_function((a, b)):
        return handle_torch_function(product_error, (a, b), a, b)
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return ((a_high * b_high - a * b) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Any) -> tuple[Any, Any]:
    """The upper bits of a number and the rest of it, so that products of them are exact (Veltkamp)."""
    c = (2.0**27 + 1) * a
    high = c - (c - a)
    return high, a - high
