# Written by python -m manual_grad.generate from losses/pointwise/smooth_l1_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, at_most
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    beta = options[0]
    v1 = x - t
    v2 = tl.abs(v1)
    v3 = beta.to(x.dtype) > v2
    v4 = v1 / beta.to(x.dtype)
    v5 = 0.5 * v4
    v6 = v5 * v1
    v7 = 0.5 * beta
    v8 = v2 - v7.to(x.dtype)
    v9 = tl.where(v3, v6, v8)
    return v9


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    beta = options[0]
    v1 = x - t
    v2 = v1 / beta.to(x.dtype)
    v3 = at_least(v2, -1.0)
    v4 = at_most(v3, 1.0)
    v5 = -v4
    return v4, v5


LOSS = Loss(
    inputs=2,
    optional=(),
    options=1,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
