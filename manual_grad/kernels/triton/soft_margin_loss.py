"""Written by hand so that the slopes share one exponential. Notation as in losses/pointwise/soft_margin_loss.py."""

from __future__ import annotations

import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def _value(inputs, options):  # (1) (4)
    x, t = inputs[0], inputs[1]
    m = t * x
    return tl.where(m < 0, -m, 0.0) + log1p(exp(-tl.abs(m)))


@triton.jit
def _slopes(inputs, options):  # (3)
    x, t = inputs[0], inputs[1]
    m = t * x
    u = exp(-tl.abs(m))
    s = tl.where(m < 0, 1 / (1 + u), u * (1 / (1 + u)))
    return tl.where(s == 0, 0.0, -t * s), tl.where(s == 0, 0.0, -x * s)


LOSS = Loss(inputs=2, options=0, variants={(): (_value, _slopes)})
