# Written by python -m manual_grad.generate from losses/pointwise/orpo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, expm1, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_alpha_0(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    v1 = x < y
    v2 = y - x
    v3 = tl.where(v1, v2, 0.0)
    v4 = x > 0.0
    v5 = tl.where(v4, float("nan"), x)
    v6 = tl.abs(v5)
    v7 = -v6
    v8 = expm1(v7)
    v9 = 0.0 - v8
    v10 = y > 0.0
    v11 = tl.where(v10, float("nan"), y)
    v12 = tl.abs(v11)
    v13 = -v12
    v14 = expm1(v13)
    v15 = 0.0 - v14
    v16 = v9 / v15
    v17 = v16 - 1.0
    v18 = x - y
    v19 = tl.abs(v18)
    v20 = -v19
    v21 = exp(v20)
    v22 = v17 + v21
    v23 = v21 * v16
    v24 = tl.where(v1, v22, v23)
    v25 = log1p(v24)
    v26 = v3 + v25
    v27 = beta.to(x.dtype) * v26
    return v27


@triton.jit
def slopes_alpha_0(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    v1 = x < y
    v2 = x - y
    v3 = tl.abs(v2)
    v4 = -v3
    v5 = exp(v4)
    v6 = tl.where(v1, 1.0, v5)
    v7 = tl.where(v1, v5, 1.0)
    v8 = y > 0.0
    v9 = tl.where(v8, float("nan"), y)
    v10 = tl.abs(v9)
    v11 = -v10
    v12 = expm1(v11)
    v13 = 0.0 - v12
    v14 = x > 0.0
    v15 = tl.where(v14, float("nan"), x)
    v16 = tl.abs(v15)
    v17 = -v16
    v18 = expm1(v17)
    v19 = 0.0 - v18
    v20 = v19 * v6
    v21 = tl.fma(v7, v13, v20)
    v22 = v6 / v21
    v23 = beta.to(x.dtype) * v22
    v24 = -v23
    v25 = v19 / v13
    v26 = v23 * v25
    return v24, v26


@triton.jit
def value_other_alpha(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    alpha = options[1]
    v1 = x < y
    v2 = y - x
    v3 = tl.where(v1, v2, 0.0)
    v4 = x > 0.0
    v5 = tl.where(v4, float("nan"), x)
    v6 = tl.abs(v5)
    v7 = -v6
    v8 = expm1(v7)
    v9 = 0.0 - v8
    v10 = y > 0.0
    v11 = tl.where(v10, float("nan"), y)
    v12 = tl.abs(v11)
    v13 = -v12
    v14 = expm1(v13)
    v15 = 0.0 - v14
    v16 = v9 / v15
    v17 = v16 - 1.0
    v18 = x - y
    v19 = tl.abs(v18)
    v20 = -v19
    v21 = exp(v20)
    v22 = v17 + v21
    v23 = v21 * v16
    v24 = tl.where(v1, v22, v23)
    v25 = log1p(v24)
    v26 = v3 + v25
    v27 = beta.to(x.dtype) * v26
    v28 = alpha.to(x.dtype) * x
    v29 = v27 - v28
    return v29


@triton.jit
def slopes_other_alpha(inputs, options):
    x = inputs[0]
    y = inputs[1]
    beta = options[0]
    alpha = options[1]
    v1 = x < y
    v2 = x - y
    v3 = tl.abs(v2)
    v4 = -v3
    v5 = exp(v4)
    v6 = tl.where(v1, 1.0, v5)
    v7 = tl.where(v1, v5, 1.0)
    v8 = y > 0.0
    v9 = tl.where(v8, float("nan"), y)
    v10 = tl.abs(v9)
    v11 = -v10
    v12 = expm1(v11)
    v13 = 0.0 - v12
    v14 = x > 0.0
    v15 = tl.where(v14, float("nan"), x)
    v16 = tl.abs(v15)
    v17 = -v16
    v18 = expm1(v17)
    v19 = 0.0 - v18
    v20 = v19 * v6
    v21 = tl.fma(v7, v13, v20)
    v22 = v6 / v21
    v23 = beta.to(x.dtype) * v22
    v24 = -v23
    v25 = v24 - alpha.to(x.dtype)
    v26 = v19 / v13
    v27 = v23 * v26
    return v25, v27


LOSS = Loss(
    inputs=2,
    optional=(),
    options=2,
    factor=1,
    choices=(("option", 1, (0.0,)),),
    variants={
        (0.0,): (value_alpha_0, slopes_alpha_0),
        (None,): (value_other_alpha, slopes_other_alpha),
    },
)
