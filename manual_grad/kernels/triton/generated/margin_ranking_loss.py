# Written by python -m manual_grad.generate from losses/pointwise/margin_ranking_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x1 = inputs[0]
    x2 = inputs[1]
    t = inputs[2]
    margin = options[0]
    v1 = -t
    v2 = x1 - x2
    v3 = v1 * v2
    v4 = v3 + margin.to(x1.dtype)
    v5 = at_least(v4, 0.0)
    return v5


@triton.jit
def slopes(inputs, options):
    x1 = inputs[0]
    x2 = inputs[1]
    t = inputs[2]
    margin = options[0]
    v1 = x1 - x2
    v2 = t * v1
    v3 = margin.to(x1.dtype) - v2
    v4 = v3 >= 0.0
    v5 = -t
    v6 = v3 < 0.0
    v7 = 0.0 * v5
    v8 = tl.where(v6, 0.0, v7)
    v9 = tl.where(v4, v5, v8)
    v10 = 0.0 * t
    v11 = tl.where(v6, 0.0, v10)
    v12 = tl.where(v4, t, v11)
    v13 = -v1
    v14 = 0.0 * v13
    v15 = tl.where(v6, 0.0, v14)
    v16 = tl.where(v4, v13, v15)
    return v9, v12, v16


LOSS = Loss(
    inputs=3,
    optional=(),
    options=1,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
