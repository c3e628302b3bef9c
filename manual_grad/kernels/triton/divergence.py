"""The terms of a divergence and their slopes, as in engine/divergence.py; equation numbers refer to
losses/rowwise/distillation_loss.py. Notation: p student, q teacher, u = log(p / q), h the slope of a term by p."""

from __future__ import annotations

import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, exp_remainder_series, expm1, log1p

# in the order of NAMES in engine/divergence.py
FORWARD_KL, REVERSE_KL, JSD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
EXCHANGED = {0: 1, 1: 0, 2: 2, 3: 3}  # with the roles of student and teacher exchanged
_NEAR = tl.constexpr(0.5)  # beyond, a difference loses a digit or so, which float64 and half precision can spare


@triton.jit
def difference(p, q, u):
    """p - q for p = q e^u."""
    return tl.where(tl.abs(u) < _NEAR, q * (u + exp_remainder_series(u)), p - q)


@triton.jit
def times(c, x):
    """c x, but 0 if c is 0, whatever x."""
    return tl.where(c == 0, 0.0, c * x)


@triton.jit
def _mixture(u, teacher, student):
    """w and v of (4), by the exponential that does not overflow."""
    above = u > 0
    smaller = log1p(tl.where(above, teacher, student) * expm1(tl.where(above, -u, u)))
    return tl.where(above, smaller + u, smaller), tl.where(above, smaller, smaller - u)


@triton.jit
def term(p, q, u, teacher, student, KIND: tl.constexpr):
    """(3). ``teacher`` and ``student`` are their shares of the mixture."""
    near = tl.abs(u) < _NEAR
    if KIND == FORWARD_KL:
        return tl.where(near, q * exp_remainder_series(u), p - q - times(q, u))
    elif KIND == REVERSE_KL:
        return tl.where(near, p * exp_remainder_series(-u), q - p + times(p, u))
    elif KIND == JSD:
        w, v = _mixture(u, teacher, student)
        close = teacher * q * exp_remainder_series(w) + student * p * exp_remainder_series(v)
        return tl.where(near, close, -teacher * times(q, w) - student * times(p, v))
    else:
        return 0.5 * tl.abs(difference(p, q, u))


@triton.jit
def h_ahead(u, lead, teacher, student, KIND: tl.constexpr):
    """How far h is above that of the leader, whose log-ratio is ``lead``, as in engine/divergence.py."""
    if KIND == REVERSE_KL:
        ahead = u - lead
    elif KIND == JSD:
        _w, v = _mixture(lead, teacher, student)
        exponent = tl.log(teacher) - v - tl.where(u < lead, u, lead)
        change = expm1(tl.where(u < lead, u - lead, lead - u))
        near = log1p(exp(tl.where(exponent > 40, 40.0, exponent)) * tl.where(u < lead, -change, change))
        ahead = -student * tl.where((exponent > 40) & (u < lead), exponent, near)
    else:
        ahead = _half_sign(u) - _half_sign(lead)
    return tl.where(u == lead, 0.0, ahead)


@triton.jit
def _half_sign(u):
    return tl.where(u > 0, 0.5, tl.where(u < 0, -0.5, 0.5 * u))  # keeps NaN
