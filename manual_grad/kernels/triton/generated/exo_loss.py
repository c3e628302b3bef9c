# Written by python -m manual_grad.generate from losses/pointwise/exo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, exp_remainder, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    right = options[1]
    wrong = options[2]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = v4 < 0.0
    v6 = wrong - right
    v7 = v6.to(x.dtype) - v4
    v8 = -v7
    v9 = tl.where(v5, v7, v8)
    v10 = tl.abs(v9)
    v11 = v10 < 0.5
    v12 = tl.abs(v4)
    v13 = -v12
    v14 = exp(v13)
    v15 = 1.0 + v14
    v16 = v14 / v15
    v17 = tl.where(v11, v9, 0.0)
    v18 = exp_remainder(v17)
    v19 = v17 + v18
    v20 = v16 * v19
    v21 = log1p(v20)
    v22 = exp_remainder(v21)
    v23 = tl.fma(v16, v18, -v22)
    v24 = tl.where(v5, wrong.to(x.dtype), right.to(x.dtype)).to(x.dtype)
    v25 = log1p(v14)
    v26 = v24 - v25
    v27 = v16 == 0.0
    v28 = v10 == float("inf")
    v29 = v27 & v28
    v30 = v16 * v9
    v31 = tl.where(v29, 0.0, v30)
    v32 = v26 - v31
    v33 = tl.where(v11, v23, v32)
    return v33


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    right = options[1]
    wrong = options[2]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = beta.to(x.dtype) * v3
    v5 = tl.abs(v4)
    v6 = -v5
    v7 = exp(v6)
    v8 = 1.0 + v7
    v9 = v8 * v8
    v10 = v7 / v9
    v11 = v10 == 0.0
    v12 = wrong - right
    v13 = v4 - v12.to(x.dtype)
    v14 = tl.abs(v13)
    v15 = v14 == float("inf")
    v16 = v11 & v15
    v17 = v10 * v13
    v18 = tl.where(v16, 0.0, v17)
    v19 = beta.to(x.dtype) * v18
    v20 = -v19
    v21 = -v20
    return v19, v20, v20, v21


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
