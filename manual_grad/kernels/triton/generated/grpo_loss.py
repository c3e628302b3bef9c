# Written by python -m manual_grad.generate from losses/pointwise/grpo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, at_most, exp, exp_minus_1, exp_remainder
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    w = inputs[4]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = w == 0.0
    v2 = -A
    v3 = A < 0.0
    v4 = x - x0
    v5 = exp(v4)
    v6 = at_least(v5, low.to(x.dtype))
    v7 = at_most(v6, delta.to(x.dtype))
    v8 = at_most(v5, high.to(x.dtype))
    v9 = tl.where(v3, v7, v8)
    v10 = y - x
    v11 = exp_remainder(v10)
    v12 = beta.to(x.dtype) * v11
    v13 = tl.fma(v2, v9, v12)
    v14 = w * v13
    v15 = tl.where(v1, 0.0, v14)
    return v15


@triton.jit
def slopes_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    w = inputs[4]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = w == 0.0
    v2 = A < 0.0
    v3 = x - x0
    v4 = exp(v3)
    v5 = low.to(x.dtype) > v4
    v6 = delta.to(x.dtype) < v4
    v7 = v5 | v6
    v8 = v2 & v7
    v9 = v2 == 0
    v10 = high.to(x.dtype) < v4
    v11 = v9 & v10
    v12 = v8 | v11
    v13 = -A
    v14 = v13 * v4
    v15 = tl.where(v12, 0.0, v14)
    v16 = y - x
    v17 = exp_minus_1(v16)
    v18 = beta.to(x.dtype) * v17
    v19 = v15 - v18
    v20 = w * v19
    v21 = tl.where(v1, 0.0, v20)
    v22 = -v15
    v23 = w * v22
    v24 = tl.where(v1, 0.0, v23)
    v25 = tl.zeros_like(x) + 0.0
    v26 = w * v18
    v27 = tl.where(v1, 0.0, v26)
    return v21, v24, v25, v27, v25


@triton.jit
def value_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = -A
    v2 = A < 0.0
    v3 = x - x0
    v4 = exp(v3)
    v5 = at_least(v4, low.to(x.dtype))
    v6 = at_most(v5, delta.to(x.dtype))
    v7 = at_most(v4, high.to(x.dtype))
    v8 = tl.where(v2, v6, v7)
    v9 = y - x
    v10 = exp_remainder(v9)
    v11 = beta.to(x.dtype) * v10
    v12 = tl.fma(v1, v8, v11)
    return v12


@triton.jit
def slopes_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    y = inputs[3]
    low = options[0]
    high = options[1]
    delta = options[2]
    beta = options[3]
    v1 = A < 0.0
    v2 = x - x0
    v3 = exp(v2)
    v4 = low.to(x.dtype) > v3
    v5 = delta.to(x.dtype) < v3
    v6 = v4 | v5
    v7 = v1 & v6
    v8 = v1 == 0
    v9 = high.to(x.dtype) < v3
    v10 = v8 & v9
    v11 = v7 | v10
    v12 = -A
    v13 = v12 * v3
    v14 = tl.where(v11, 0.0, v13)
    v15 = y - x
    v16 = exp_minus_1(v15)
    v17 = beta.to(x.dtype) * v16
    v18 = v14 - v17
    v19 = -v14
    v20 = tl.zeros_like(x) + 0.0
    return v18, v19, v20, v17, 0.0 * x


LOSS = Loss(
    inputs=5,
    optional=(4,),
    options=4,
    factor=1,
    choices=(("input", 4, ()),),
    variants={
        (True,): (value_w, slopes_w),
        (False,): (value_no_w, slopes_no_w),
    },
)
