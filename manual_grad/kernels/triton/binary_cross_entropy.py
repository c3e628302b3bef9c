"""Written by hand because the inverse hyperbolic tangent of (6) is a series. Notation as in the loss's file."""

from __future__ import annotations

import triton
import triton.language as tl

from manual_grad.kernels.triton.math import log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def _value(inputs, options):  # (2)
    x, t = inputs[0], inputs[1]
    log_x, log_1_x = tl.log(x), log1p(-x)
    log_x, log_1_x = tl.where(log_x < -100, -100.0, log_x), tl.where(log_1_x < -100, -100.0, log_1_x)
    return (t - 1) * log_1_x - t * log_x


@triton.jit
def _slopes(inputs, options):
    x, t = inputs[0], inputs[1]
    slack = x * (1 - x)
    dx = (x - t) / tl.where(slack < 1e-12, 1e-12, slack)  # (4)
    log_x, log_1_x = tl.log(x), log1p(-x)
    log_x, log_1_x = tl.where(log_x < -100, -100.0, log_x), tl.where(log_1_x < -100, -100.0, log_1_x)
    s = 1 - (x + x)
    squared = s * s
    tail = squared * 0.0
    for k in tl.static_range(10):  # artanh(s) = s + s**3 / 3 + s**5 / 5 + …
        tail = tail * squared + 1 / (21 - 2 * k)
    artanh = s + (s * squared) * tail
    dt = tl.where(squared < 0.17 * 0.17, artanh + artanh, log_1_x - log_x)  # (5) (6)
    return dx, dt


LOSS = Loss(inputs=2, options=0, variants={(): (_value, _slopes)})
