# Written by python -m manual_grad.generate from losses/pointwise/nca_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = x - x0
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = tl.abs(v2)
    v5 = 0.5 * v4
    v6 = tl.where(v3, v4, v5)
    v7 = -v4
    v8 = exp(v7)
    v9 = log1p(v8)
    v10 = 1.5 * v9
    v11 = v6 + v10
    v12 = y - y0
    v13 = beta.to(x.dtype) * v12
    v14 = v13 < 0.0
    v15 = tl.abs(v13)
    v16 = tl.where(v14, 0.0, v15)
    v17 = -v15
    v18 = exp(v17)
    v19 = log1p(v18)
    v20 = v16 + v19
    v21 = 0.5 * v20
    v22 = v11 + v21
    return v22


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = x - x0
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = tl.abs(v2)
    v5 = -v4
    v6 = exp(v5)
    v7 = 0.5 * v6
    v8 = v7 - 1.0
    v9 = 0.5 - v6
    v10 = tl.where(v3, v8, v9)
    v11 = 1.0 + v6
    v12 = v10 / v11
    v13 = beta.to(x.dtype) * v12
    v14 = 0.5 * beta
    v15 = y - y0
    v16 = beta.to(x.dtype) * v15
    v17 = v16 < 0.0
    v18 = tl.abs(v16)
    v19 = -v18
    v20 = exp(v19)
    v21 = tl.where(v17, v20, 1.0)
    v22 = 1.0 + v20
    v23 = v21 / v22
    v24 = v14.to(x.dtype) * v23
    v25 = -v13
    v26 = -v24
    return v13, v24, v25, v26


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
