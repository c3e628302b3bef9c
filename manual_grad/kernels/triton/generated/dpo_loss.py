# Written by python -m manual_grad.generate from losses/pointwise/dpo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, expm1, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    q = options[1]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = v4 < 0.0
    v6 = 1.0 - q
    v7 = tl.where(v5, v6.to(x.dtype), q.to(x.dtype)).to(x.dtype)
    v8 = v7 == 0.0
    v9 = tl.abs(v4)
    v10 = tl.abs(v9)
    v11 = v10 == float("inf")
    v12 = v8 & v11
    v13 = v7 * v9
    v14 = tl.where(v12, 0.0, v13)
    v15 = -v9
    v16 = exp(v15)
    v17 = log1p(v16)
    v18 = v14 + v17
    return v18


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    q = options[1]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = v4 < 0.0
    v6 = tl.abs(v4)
    v7 = -v6
    v8 = exp(v7)
    v9 = v8 > 0.5
    v10 = 2.0 * q
    v11 = v10 - 1.0
    v12 = expm1(v7)
    v13 = q.to(x.dtype) * v12
    v14 = v11.to(x.dtype) + v13
    v15 = q.to(x.dtype) * v8
    v16 = 1.0 - q
    v17 = v15 - v16.to(x.dtype)
    v18 = tl.where(v9, v14, v17)
    v19 = v16.to(x.dtype) * v12
    v20 = v11.to(x.dtype) - v19
    v21 = v16.to(x.dtype) * v8
    v22 = q.to(x.dtype) - v21
    v23 = tl.where(v9, v20, v22)
    v24 = tl.where(v5, v18, v23)
    v25 = 1.0 + v8
    v26 = v24 / v25
    v27 = beta.to(x.dtype) * v26
    v28 = -v27
    v29 = -v28
    return v27, v28, v28, v29


LOSS = Loss(
    inputs=4,
    optional=(),
    options=2,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
