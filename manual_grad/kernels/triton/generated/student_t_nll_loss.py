# Written by python -m manual_grad.generate from losses/pointwise/student_t_nll_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, log1p
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    a = inputs[2]
    df = options[0]
    constant = options[1]
    eps = options[2]
    v1 = a < 0.0
    v2 = at_least(a, eps.to(x.dtype))
    v3 = tl.where(v1, float("nan"), v2)
    v4 = tl.log(v3)
    v5 = x - t
    v6 = tl.abs(v5)
    v7 = tl.sqrt(df)
    v8 = v3 * v7.to(x.dtype)
    v9 = v6 > v8
    v10 = df + 1.0
    v11 = tl.where(v6 < v8, v6, tl.where(v6 == v6, v8, v6))
    v12 = tl.where(v6 > v8, v6, tl.where(v6 == v6, v8, v6))
    v13 = v11 / v12
    v14 = v13 * v13
    v15 = log1p(v14)
    v16 = 0.5 * v15
    v17 = tl.log(v13)
    v18 = v16 - v17
    v19 = v10.to(x.dtype) * v18
    v20 = v14 < 1e-17
    v21 = 0.5 / df
    v22 = 0.5 + v21
    v23 = v5 / v3
    v24 = v22.to(x.dtype) * v23
    v25 = v24 * v23
    v26 = 0.5 * df
    v27 = v26 + 0.5
    v28 = v27.to(x.dtype) * v15
    v29 = tl.where(v20, v25, v28)
    v30 = tl.where(v9, v19, v29)
    v31 = v4 + v30
    v32 = v31 + constant.to(x.dtype)
    return v32


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    a = inputs[2]
    df = options[0]
    eps = options[2]
    v1 = x - t
    v2 = tl.abs(v1)
    v3 = a < 0.0
    v4 = at_least(a, eps.to(x.dtype))
    v5 = tl.where(v3, float("nan"), v4)
    v6 = tl.sqrt(df)
    v7 = v5 * v6.to(x.dtype)
    v8 = v2 > v7
    v9 = df + 1.0
    v10 = tl.where(v1 > 0, 1.0, 0.0).to(v1.dtype) - tl.where(v1 < 0, 1.0, 0.0).to(v1.dtype)
    v11 = v1 / v5
    v12 = tl.where(v8, v10, v11)
    v13 = v9.to(x.dtype) * v12
    v14 = 1.0 / df
    v15 = 1.0 + v14
    v16 = v15.to(x.dtype) * v12
    v17 = tl.where(v8, v13, v16)
    v18 = tl.where(v8, v2, v5)
    v19 = v17 / v18
    v20 = tl.where(v2 < v7, v2, tl.where(v2 == v2, v7, v2))
    v21 = tl.where(v2 > v7, v2, tl.where(v2 == v2, v7, v2))
    v22 = v20 / v21
    v23 = v22 * v22
    v24 = 1.0 + v23
    v25 = v19 / v24
    v26 = -v25
    v27 = v18 == float("inf")
    v28 = tl.where(v8, -1.0, 1.0).to(x.dtype)
    v29 = v5 - v2
    v30 = v29 / v18
    v31 = v5 + v2
    v32 = v31 / v18
    v33 = v30 * v32
    v34 = tl.where(v27, v28, v33)
    v35 = df.to(x.dtype) * v34
    v36 = tl.where(v8, v35, v34)
    v37 = v36 / v24
    v38 = v37 / v5
    return v25, v26, v38


LOSS = Loss(
    inputs=3,
    optional=(),
    options=3,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
