# Written by python -m manual_grad.generate from losses/pointwise/kto_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    t = inputs[2]
    k = inputs[3]
    beta = options[0]
    desirable = options[1]
    undesirable = options[2]
    v1 = t > 0.0
    v2 = tl.where(v1, desirable.to(x.dtype), undesirable.to(x.dtype)).to(x.dtype)
    v3 = x - x0
    v4 = v3 - k
    v5 = beta.to(x.dtype) * v4
    v6 = -v5
    v7 = tl.where(v1, v6, v5)
    v8 = v7 < 0.0
    v9 = tl.abs(v7)
    v10 = -v9
    v11 = exp(v10)
    v12 = tl.where(v8, v11, 1.0)
    v13 = 1.0 + v11
    v14 = v12 / v13
    v15 = v2 * v14
    return v15


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    t = inputs[2]
    k = inputs[3]
    beta = options[0]
    desirable = options[1]
    undesirable = options[2]
    v1 = t > 0.0
    v2 = -desirable
    v3 = tl.where(v1, v2.to(x.dtype), undesirable.to(x.dtype)).to(x.dtype)
    v4 = beta.to(x.dtype) * v3
    v5 = x - x0
    v6 = v5 - k
    v7 = beta.to(x.dtype) * v6
    v8 = tl.abs(v7)
    v9 = -v8
    v10 = exp(v9)
    v11 = 1.0 + v10
    v12 = v11 * v11
    v13 = v10 / v12
    v14 = v4 * v13
    v15 = -v14
    v16 = tl.zeros_like(x) + 0.0
    return v14, v15, v16, v15


LOSS = Loss(
    inputs=4,
    optional=(),
    options=3,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
