# Written by python -m manual_grad.generate from losses/pointwise/huber_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, at_most
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    delta = options[0]
    v1 = x - t
    v2 = tl.abs(v1)
    v3 = delta.to(x.dtype) < v2
    v4 = 0.5 * delta
    v5 = v2 - v4.to(x.dtype)
    v6 = delta.to(x.dtype) * v5
    v7 = 0.5 * v1
    v8 = v7 * v1
    v9 = tl.where(v3, v6, v8)
    return v9


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    delta = options[0]
    v1 = x - t
    v2 = -delta
    v3 = at_least(v1, v2.to(x.dtype))
    v4 = at_most(v3, delta.to(x.dtype))
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
