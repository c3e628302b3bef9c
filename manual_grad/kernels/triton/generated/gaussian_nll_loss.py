# Written by python -m manual_grad.generate from losses/pointwise/gaussian_nll_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    a = inputs[2]
    eps = options[1]
    v1 = a < 0.0
    v2 = at_least(a, eps.to(x.dtype))
    v3 = tl.where(v1, float("nan"), v2)
    v4 = tl.log(v3)
    v5 = x - t
    v6 = 1.0 / v3
    v7 = v5 * v6
    v8 = tl.fma(v5, v7, v4)
    v9 = 0.5 * v8
    v10 = v9 + 0.9189385332046727
    return v10


@triton.jit
def slopes_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    a = inputs[2]
    eps = options[1]
    v1 = x - t
    v2 = a < 0.0
    v3 = at_least(a, eps.to(x.dtype))
    v4 = tl.where(v2, float("nan"), v3)
    v5 = 1.0 / v4
    v6 = v1 * v5
    v7 = -v6
    v8 = v4 == float("inf")
    v9 = 0.0 * v1
    v10 = tl.fma(-v1, v1, v4)
    v11 = v10 * v5
    v12 = tl.where(v8, v9, v11)
    v13 = 0.5 * v12
    v14 = v13 * v5
    return v6, v7, v14


@triton.jit
def value_no_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    a = inputs[2]
    eps = options[1]
    v1 = a < 0.0
    v2 = at_least(a, eps.to(x.dtype))
    v3 = tl.where(v1, float("nan"), v2)
    v4 = tl.log(v3)
    v5 = x - t
    v6 = 1.0 / v3
    v7 = v5 * v6
    v8 = tl.fma(v5, v7, v4)
    v9 = 0.5 * v8
    return v9


@triton.jit
def slopes_no_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    a = inputs[2]
    eps = options[1]
    v1 = x - t
    v2 = a < 0.0
    v3 = at_least(a, eps.to(x.dtype))
    v4 = tl.where(v2, float("nan"), v3)
    v5 = 1.0 / v4
    v6 = v1 * v5
    v7 = -v6
    v8 = v4 == float("inf")
    v9 = 0.0 * v1
    v10 = tl.fma(-v1, v1, v4)
    v11 = v10 * v5
    v12 = tl.where(v8, v9, v11)
    v13 = 0.5 * v12
    v14 = v13 * v5
    return v6, v7, v14


LOSS = Loss(
    inputs=3,
    optional=(),
    options=2,
    factor=1,
    choices=(("option", 0, ()),),
    variants={
        (True,): (value_full, slopes_full),
        (False,): (value_no_full, slopes_no_full),
    },
)
