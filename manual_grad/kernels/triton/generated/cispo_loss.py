# Written by python -m manual_grad.generate from losses/pointwise/cispo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_most, exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_w(inputs, options):
    x = inputs[0]
    r = inputs[1]
    A = inputs[2]
    w = inputs[3]
    most = options[0]
    v1 = w == 0.0
    v2 = -A
    v3 = exp(r)
    v4 = at_most(v3, most.to(x.dtype))
    v5 = v2 * v4
    v6 = v5 * x
    v7 = w * v6
    v8 = tl.where(v1, 0.0, v7)
    return v8


@triton.jit
def slopes_w(inputs, options):
    r = inputs[1]
    A = inputs[2]
    w = inputs[3]
    most = options[0]
    v1 = w == 0.0
    v2 = -A
    v3 = exp(r)
    v4 = at_most(v3, most.to(r.dtype))
    v5 = v2 * v4
    v6 = w * v5
    v7 = tl.where(v1, 0.0, v6)
    v8 = tl.zeros_like(r) + 0.0
    return v7, v8, v8, v8


@triton.jit
def value_no_w(inputs, options):
    x = inputs[0]
    r = inputs[1]
    A = inputs[2]
    most = options[0]
    v1 = -A
    v2 = exp(r)
    v3 = at_most(v2, most.to(x.dtype))
    v4 = v1 * v3
    v5 = v4 * x
    return v5


@triton.jit
def slopes_no_w(inputs, options):
    r = inputs[1]
    A = inputs[2]
    most = options[0]
    v1 = -A
    v2 = exp(r)
    v3 = at_most(v2, most.to(r.dtype))
    v4 = v1 * v3
    v5 = tl.zeros_like(r) + 0.0
    return v4, v5, v5, 0.0 * r


LOSS = Loss(
    inputs=4,
    optional=(3,),
    options=1,
    factor=1,
    choices=(("input", 3, ()),),
    variants={
        (True,): (value_w, slopes_w),
        (False,): (value_no_w, slopes_no_w),
    },
)
