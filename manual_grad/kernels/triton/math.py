"""Elementary functions of float32 and float64, accurate to a few ulp."""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts; the product of k and the first is exact for every k that occurs
_LN2_HIGH = tl.constexpr(0.693145751953125)
_LN2_LOW = tl.constexpr(1.428606765330187e-06)


@triton.jit
def at_least(x, least):
    """Like torch's clamp_min: a NaN in x or in the bound is propagated."""
    return tl.where(x < least, least, tl.where(least == least, x, least))


@triton.jit
def at_most(x, most):
    return tl.where(x > most, most, tl.where(most == most, x, most))


@triton.jit
def exp(x):
    """e**x, as 2**k e**r with x = k ln(2) + r.

    The hardware computes a float32 exponential as 2**(x log2(e)), where rounding the product costs |x| eps.
    """
    if x.dtype == tl.float64:
        return tl.exp(x)
    x = tl.where(x < -150.0, -150.0, tl.where(x > 100.0, 100.0, x))  # propagates NaN, which a minimum would not
    k = tl.floor(x * _LOG2E + 0.5)
    r = tl.fma(k, -_LN2_LOW, tl.fma(k, -_LN2_HIGH, x))
    return tl.exp2(k - 1.0) * tl.exp2(r * _LOG2E) * 2.0  # 2**k alone would overflow before the result does


@triton.jit
def expm1(x):
    """exp(x) - 1; for small x with a factor that corrects for what rounding the exponential loses (Kahan)."""
    u = exp(x)
    log_u = tl.log(u)
    return tl.where(tl.abs(x) > 1.0, u - 1.0, tl.where(u == 1.0, x, (u - 1.0) * (x / log_u)))


@triton.jit
def exp_remainder_series(d):
    """e^d - 1 - d for |d| < 1, by its Taylor series."""
    TERMS: tl.constexpr = 16 if d.dtype == tl.float64 else 9
    series = d * 0 + 1.0
    for i in tl.static_range(TERMS):
        series = series * d * (1.0 / (TERMS + 2 - i)) + 1.0
    return 0.5 * d * d * series


@triton.jit
def exp_remainder(d):
    """e^d - 1 - d."""
    u = exp(d)
    far = tl.where(u == float("inf"), u, u - 1.0 - d)
    return tl.where(tl.abs(d) < 1.0, exp_remainder_series(d), far)


@triton.jit
def exp_minus_1(d):
    return tl.where(tl.abs(d) < 1.0, d + exp_remainder_series(d), exp(d) - 1.0)


@triton.jit
def pow(x, exponent):
    """x to a scalar power, for x >= 0; in float64, since the exponential of a product of magnitude s costs s eps."""
    y = exp(exponent.to(tl.float64) * tl.log(x.to(tl.float64))).to(x.dtype)
    return tl.where(x == 0.0, tl.where(exponent > 0.0, 0.0, tl.where(exponent == 0.0, 1.0, float("inf"))), y)


@triton.jit
def log1p(x):
    """log(1 + x) for x > -1, with a factor that corrects for what rounding 1 + x loses of x (Kahan)."""
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.where(y == float("inf"), y, tl.log(y) * (x / (y - 1.0))))
