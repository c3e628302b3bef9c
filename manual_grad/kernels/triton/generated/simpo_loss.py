# Written by python -m manual_grad.generate from losses/pointwise/simpo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, expm1, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    gamma = options[1]
    q = options[2]
    v1 = x - y
    v2 = beta.to(x.dtype) * v1
    v3 = v2 - gamma.to(x.dtype)
    v4 = v3 < 0.0
    v5 = 1.0 - q
    v6 = tl.where(v4, v5.to(x.dtype), q.to(x.dtype)).to(x.dtype)
    v7 = v6 == 0.0
    v8 = tl.abs(v3)
    v9 = tl.abs(v8)
    v10 = v9 == float("inf")
    v11 = v7 & v10
    v12 = v6 * v8
    v13 = tl.where(v11, 0.0, v12)
    v14 = -v8
    v15 = exp(v14)
    v16 = log1p(v15)
    v17 = v13 + v16
    return v17


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    gamma = options[1]
    q = options[2]
    v1 = x - y
    v2 = beta.to(x.dtype) * v1
    v3 = v2 - gamma.to(x.dtype)
    v4 = v3 < 0.0
    v5 = tl.abs(v3)
    v6 = -v5
    v7 = exp(v6)
    v8 = v7 > 0.5
    v9 = 2.0 * q
    v10 = v9 - 1.0
    v11 = expm1(v6)
    v12 = q.to(x.dtype) * v11
    v13 = v10.to(x.dtype) + v12
    v14 = q.to(x.dtype) * v7
    v15 = 1.0 - q
    v16 = v14 - v15.to(x.dtype)
    v17 = tl.where(v8, v13, v16)
    v18 = v15.to(x.dtype) * v11
    v19 = v10.to(x.dtype) - v18
    v20 = v15.to(x.dtype) * v7
    v21 = q.to(x.dtype) - v20
    v22 = tl.where(v8, v19, v21)
    v23 = tl.where(v4, v17, v22)
    v24 = 1.0 + v7
    v25 = v23 / v24
    v26 = beta.to(x.dtype) * v25
    v27 = -v26
    return v26, v27


LOSS = Loss(
    inputs=2,
    optional=(),
    options=3,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
