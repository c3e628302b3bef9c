"""Written by hand so that the slopes share one exponential. Notation as in the loss's file."""

from __future__ import annotations

import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def _times(c, x):  # 0 where c is 0, even if x is infinite
    return tl.where(c == 0, 0.0, c * x)


@triton.jit
def _value(inputs, options):  # (4)
    x, t, a = inputs[0], inputs[1], inputs[2]  # an absent weight is 1
    at = a * t
    return _times(tl.where(x < 0, -at, 1 - t), x) + (1 - t + at) * log1p(exp(-tl.abs(x)))


@triton.jit
def _slopes(inputs, options):
    x, t, a = inputs[0], inputs[1], inputs[2]
    u = exp(-tl.abs(x))
    large = 1 / (1 + u)
    small = u * large
    sigmoid, sigmoid_minus = tl.where(x < 0, small, large), tl.where(x < 0, large, small)  # (6)
    softplus_minus = tl.where(x < 0, -x, 0) + log1p(u)  # (3) of -x
    dt = (a - 1) * log1p(u) - _times(tl.where(x < 0, a, 1.0), x)
    return (1 - t) * sigmoid - a * t * sigmoid_minus, dt, _times(t, softplus_minus)  # (5)


LOSS = Loss(inputs=3, options=0, optional=(2,), variants={(): (_value, _slopes)})
