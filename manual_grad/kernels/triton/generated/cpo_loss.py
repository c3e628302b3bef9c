# Written by python -m manual_grad.generate from losses/pointwise/cpo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, expm1, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_alpha_0(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    q = options[1]
    v1 = x - y
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = 1.0 - q
    v5 = tl.where(v3, v4.to(x.dtype), q.to(x.dtype)).to(x.dtype)
    v6 = v5 == 0.0
    v7 = tl.abs(v2)
    v8 = tl.abs(v7)
    v9 = v8 == float("inf")
    v10 = v6 & v9
    v11 = v5 * v7
    v12 = tl.where(v10, 0.0, v11)
    v13 = -v7
    v14 = exp(v13)
    v15 = log1p(v14)
    v16 = v12 + v15
    return v16


@triton.jit
def slopes_alpha_0(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    q = options[1]
    v1 = x - y
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = tl.abs(v2)
    v5 = -v4
    v6 = exp(v5)
    v7 = v6 > 0.5
    v8 = 2.0 * q
    v9 = v8 - 1.0
    v10 = expm1(v5)
    v11 = q.to(x.dtype) * v10
    v12 = v9.to(x.dtype) + v11
    v13 = q.to(x.dtype) * v6
    v14 = 1.0 - q
    v15 = v13 - v14.to(x.dtype)
    v16 = tl.where(v7, v12, v15)
    v17 = v14.to(x.dtype) * v10
    v18 = v9.to(x.dtype) - v17
    v19 = v14.to(x.dtype) * v6
    v20 = q.to(x.dtype) - v19
    v21 = tl.where(v7, v18, v20)
    v22 = tl.where(v3, v16, v21)
    v23 = 1.0 + v6
    v24 = v22 / v23
    v25 = beta.to(x.dtype) * v24
    v26 = -v25
    return v25, v26


@triton.jit
def value_other_alpha(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    q = options[1]
    alpha = options[2]
    v1 = x - y
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = 1.0 - q
    v5 = tl.where(v3, v4.to(x.dtype), q.to(x.dtype)).to(x.dtype)
    v6 = v5 == 0.0
    v7 = tl.abs(v2)
    v8 = tl.abs(v7)
    v9 = v8 == float("inf")
    v10 = v6 & v9
    v11 = v5 * v7
    v12 = tl.where(v10, 0.0, v11)
    v13 = -v7
    v14 = exp(v13)
    v15 = log1p(v14)
    v16 = v12 + v15
    v17 = alpha.to(x.dtype) * x
    v18 = v16 - v17
    return v18


@triton.jit
def slopes_other_alpha(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    q = options[1]
    alpha = options[2]
    v1 = x - y
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = tl.abs(v2)
    v5 = -v4
    v6 = exp(v5)
    v7 = v6 > 0.5
    v8 = 2.0 * q
    v9 = v8 - 1.0
    v10 = expm1(v5)
    v11 = q.to(x.dtype) * v10
    v12 = v9.to(x.dtype) + v11
    v13 = q.to(x.dtype) * v6
    v14 = 1.0 - q
    v15 = v13 - v14.to(x.dtype)
    v16 = tl.where(v7, v12, v15)
    v17 = v14.to(x.dtype) * v10
    v18 = v9.to(x.dtype) - v17
    v19 = v14.to(x.dtype) * v6
    v20 = q.to(x.dtype) - v19
    v21 = tl.where(v7, v18, v20)
    v22 = tl.where(v3, v16, v21)
    v23 = 1.0 + v6
    v24 = v22 / v23
    v25 = beta.to(x.dtype) * v24
    v26 = v25 - alpha.to(x.dtype)
    v27 = -v25
    return v26, v27


LOSS = Loss(
    inputs=2,
    optional=(),
    options=3,
    factor=1,
    choices=(("option", 2, (0.0,)),),
    variants={
        (0.0,): (value_alpha_0, slopes_alpha_0),
        (None,): (value_other_alpha, slopes_other_alpha),
    },
)
