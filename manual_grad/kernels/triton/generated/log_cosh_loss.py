# Written by python -m manual_grad.generate from losses/pointwise/log_cosh_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import expm1, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x - t
    v2 = tl.abs(v1)
    v3 = v2 < 0.75
    v4 = -2.0 * v2
    v5 = expm1(v4)
    v6 = 0.25 * v5
    v7 = v6 * v5
    v8 = 1.0 + v5
    v9 = v7 / v8
    v10 = 0.5 * v5
    v11 = tl.where(v3, v9, v10)
    v12 = log1p(v11)
    v13 = 0.5 * v12
    v14 = v2 + v12
    v15 = tl.where(v3, v13, v14)
    return v15


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x - t
    v2 = v1 < 0.0
    v3 = tl.abs(v1)
    v4 = -2.0 * v3
    v5 = expm1(v4)
    v6 = 2.0 + v5
    v7 = v5 / v6
    v8 = -v7
    v9 = tl.where(v2, v7, v8)
    v10 = -v9
    return v9, v10


LOSS = Loss(
    inputs=2,
    optional=(),
    options=0,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
