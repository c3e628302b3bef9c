# Written by python -m manual_grad.generate from losses/pointwise/apo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, expm1
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_down(inputs, options):
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
    v7 = tl.where(v3, v6, 1.0)
    v8 = 1.0 + v6
    v9 = v7 / v8
    v10 = y - y0
    v11 = beta.to(x.dtype) * v10
    v12 = v11 - v2
    v13 = v12 < 0.0
    v14 = tl.abs(v12)
    v15 = -v14
    v16 = exp(v15)
    v17 = tl.where(v13, v16, 1.0)
    v18 = 1.0 + v16
    v19 = v17 / v18
    v20 = v9 + v19
    return v20


@triton.jit
def slopes_down(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = y - y0
    v2 = beta.to(x.dtype) * v1
    v3 = v2 < 0.0
    v4 = x - x0
    v5 = beta.to(x.dtype) * v4
    v6 = v5 - v2
    v7 = v5 + v6
    v8 = v7 < 0.0
    v9 = v3 == v8
    v10 = tl.abs(v5)
    v11 = tl.abs(v6)
    v12 = v10 < v11
    v13 = -v10
    v14 = exp(v13)
    v15 = -v11
    v16 = exp(v15)
    v17 = tl.where(v12, v14, v16)
    v18 = tl.abs(v2)
    v19 = -v18
    v20 = expm1(v19)
    v21 = v17 * v20
    v22 = tl.abs(v7)
    v23 = -v22
    v24 = expm1(v23)
    v25 = v21 * v24
    v26 = 1.0 + v14
    v27 = v26 * v26
    v28 = 1.0 + v16
    v29 = v27 * v28
    v30 = v29 * v28
    v31 = v25 / v30
    v32 = -v31
    v33 = tl.where(v9, v32, v31)
    v34 = beta.to(x.dtype) * v33
    v35 = v28 * v28
    v36 = v16 / v35
    v37 = beta.to(x.dtype) * v36
    v38 = -v34
    v39 = -v37
    return v34, v37, v38, v39


@triton.jit
def value_no_down(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = x - x0
    v2 = beta.to(x.dtype) * v1
    v3 = -v2
    v4 = v3 < 0.0
    v5 = tl.abs(v3)
    v6 = -v5
    v7 = exp(v6)
    v8 = tl.where(v4, v7, 1.0)
    v9 = 1.0 + v7
    v10 = v8 / v9
    v11 = y - y0
    v12 = beta.to(x.dtype) * v11
    v13 = v12 < 0.0
    v14 = tl.abs(v12)
    v15 = -v14
    v16 = exp(v15)
    v17 = tl.where(v13, v16, 1.0)
    v18 = 1.0 + v16
    v19 = v17 / v18
    v20 = v10 + v19
    return v20


@triton.jit
def slopes_no_down(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    beta = options[0]
    v1 = -beta
    v2 = x - x0
    v3 = beta.to(x.dtype) * v2
    v4 = tl.abs(v3)
    v5 = -v4
    v6 = exp(v5)
    v7 = 1.0 + v6
    v8 = v7 * v7
    v9 = v6 / v8
    v10 = v1.to(x.dtype) * v9
    v11 = y - y0
    v12 = beta.to(x.dtype) * v11
    v13 = tl.abs(v12)
    v14 = -v13
    v15 = exp(v14)
    v16 = 1.0 + v15
    v17 = v16 * v16
    v18 = v15 / v17
    v19 = beta.to(x.dtype) * v18
    v20 = -v10
    v21 = -v19
    return v10, v19, v20, v21


LOSS = Loss(
    inputs=4,
    optional=(),
    options=2,
    factor=1,
    choices=(("option", 1, ()),),
    variants={
        (True,): (value_down, slopes_down),
        (False,): (value_no_down, slopes_no_down),
    },
)
