# Written by python -m manual_grad.generate from losses/pointwise/slic_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = 1.0 - v4
    v6 = at_least(v5, 0.0)
    return v6


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = v4 < 1.0
    v6 = -beta
    v7 = tl.where(v5, v6.to(x.dtype), 0.0).to(x.dtype)
    v8 = -v7
    v9 = -v8
    return v7, v8, v8, v9


LOSS = Loss(
    inputs=4,
    optional=(),
    options=1,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
