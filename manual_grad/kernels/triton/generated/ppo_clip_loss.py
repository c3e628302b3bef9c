# Written by python -m manual_grad.generate from losses/pointwise/ppo_clip_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, at_most, exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    w = inputs[3]
    low = options[0]
    high = options[1]
    delta = options[2]
    v1 = w == 0.0
    v2 = -A
    v3 = A < 0.0
    v4 = x - x0
    v5 = exp(v4)
    v6 = at_least(v5, low.to(x.dtype))
    v7 = at_most(v6, delta.to(x.dtype))
    v8 = at_most(v5, high.to(x.dtype))
    v9 = tl.where(v3, v7, v8)
    v10 = v2 * v9
    v11 = w * v10
    v12 = tl.where(v1, 0.0, v11)
    return v12


@triton.jit
def slopes_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    w = inputs[3]
    low = options[0]
    high = options[1]
    delta = options[2]
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
    v16 = w * v15
    v17 = tl.where(v1, 0.0, v16)
    v18 = -v17
    v19 = tl.zeros_like(x) + 0.0
    return v17, v18, v19, v19


@triton.jit
def value_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    low = options[0]
    high = options[1]
    delta = options[2]
    v1 = -A
    v2 = A < 0.0
    v3 = x - x0
    v4 = exp(v3)
    v5 = at_least(v4, low.to(x.dtype))
    v6 = at_most(v5, delta.to(x.dtype))
    v7 = at_most(v4, high.to(x.dtype))
    v8 = tl.where(v2, v6, v7)
    v9 = v1 * v8
    return v9


@triton.jit
def slopes_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    A = inputs[2]
    low = options[0]
    high = options[1]
    delta = options[2]
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
    v15 = -v14
    v16 = tl.zeros_like(x) + 0.0
    return v14, v15, v16, 0.0 * x


LOSS = Loss(
    inputs=4,
    optional=(3,),
    options=3,
    factor=1,
    choices=(("input", 3, ()),),
    variants={
        (True,): (value_w, slopes_w),
        (False,): (value_no_w, slopes_no_w),
    },
)
