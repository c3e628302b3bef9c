# Written by python -m manual_grad.generate from losses/pointwise/hinge_embedding_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    margin = options[0]
    v1 = t == 1.0
    v2 = t == -1.0
    v3 = margin.to(x.dtype) - x
    v4 = at_least(v3, 0.0)
    v5 = at_least(x, margin.to(x.dtype))
    v6 = tl.where(v2, v4, v5)
    v7 = tl.where(v1, x, v6)
    return v7


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    margin = options[0]
    v1 = t == 1.0
    v2 = t == -1.0
    v3 = margin.to(x.dtype) >= x
    v4 = tl.where(v3, 1.0, 0.0).to(x.dtype)
    v5 = -v4
    v6 = 1.0 - v4
    v7 = tl.where(v2, v5, v6)
    v8 = tl.where(v1, 1.0, v7)
    v9 = tl.zeros_like(x) + 0.0
    return v8, v9


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
