"""Elementary functions that torch lacks or gets wrong in edge cases or in the last digits.

Generated kernels have their own :func:`exp_remainder`, :func:`exp_minus_1` and :func:`product_error`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


def size(x: Tensor) -> Tensor:
    """abs(x) with slope 1 at 0 (torch's abs has slope 0).

    With it, an even function keeps its derivatives of all orders at 0 when torch differentiates it further.
    """
    return torch.where(x < 0, -x, x)


def times(c: Tensor, x: Tensor) -> Tensor:
    """c x, but 0 if c is 0 and x is infinite."""
    return torch.where((c == 0) & (x.abs() == torch.inf), 0, c * x)


def power(x: Tensor, exponent: float) -> Tensor:
    """x to a constant power, by multiplication where that is cheaper. 0 to the power 0 is 1."""
    if exponent == 0:
        return torch.ones_like(x)
    if exponent == 1:
        return x
    if exponent == 2:
        return x * x
    if exponent == 4:
        return (x * x) * (x * x)
    return x.pow(exponent)


def exp_remainder(d: Tensor) -> Tensor:
    """e^d - 1 - d. Near 0 that is d^2 / 2, of which the difference would keep no digit; there, by its Taylor series."""
    if has_torch_function((d,)):
        return handle_torch_function(exp_remainder, (d,), d)
    near = size(d) < 1
    x = torch.where(near, d, 0)
    series = torch.ones_like(d)
    for n in range(18, 2, -1):  # the next term is below 1e-17 of the sum
        series = 1 + x * series * (1 / n)
    grown = d.exp()
    return torch.where(near, 0.5 * d * d * series, torch.where(grown == torch.inf, grown, grown - 1 - d))


def exp_minus_1(d: Tensor) -> Tensor:
    """e^d - 1, of any sign and in terms of the remainder; kernels have torch's expm1 for negative numbers only."""
    if has_torch_function((d,)):
        return handle_torch_function(exp_minus_1, (d,), d)
    return torch.where(size(d) < 1, d + exp_remainder(d), d.exp() - 1)


def product_error(a: Any, b: Any) -> Any:
    """The rounding error of a b, for float64 numbers whose product neither overflows nor underflows.

    Uses Dekker's product; kernels use one fused multiply-add instead.
    """
    if has_torch_function((a, b)):
        return handle_torch_function(product_error, (a, b), a, b)
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return ((a_high * b_high - a * b) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Any) -> tuple[Any, Any]:
    """Split a number into high and low bits whose products are exact (Veltkamp)."""
    c = (2.0**27 + 1) * a
    high = c - (c - a)
    return high, a - high
