# Written by python -m manual_grad.generate from losses/pointwise/kl_div.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_log_target(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = exp(t)
    v2 = v1 == 0.0
    v3 = x != x
    v4 = v3 == 0
    v5 = v2 & v4
    v6 = t - x
    v7 = v1 * v6
    v8 = tl.where(v5, 0.0, v7)
    return v8


@triton.jit
def slopes_log_target(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = exp(t)
    v2 = -v1
    v3 = v1 == 0.0
    v4 = x != x
    v5 = v4 == 0
    v6 = v3 & v5
    v7 = t - x
    v8 = v7 + 1.0
    v9 = v1 * v8
    v10 = tl.where(v6, 0.0, v9)
    return v2, v10


@triton.jit
def value_no_log_target(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = t == 0.0
    v2 = x != x
    v3 = v2 == 0
    v4 = v1 & v3
    v5 = tl.log(t)
    v6 = v5 - x
    v7 = t * v6
    v8 = tl.where(v4, 0.0, v7)
    return v8


@triton.jit
def slopes_no_log_target(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = -t
    v2 = t == 0.0
    v3 = x != x
    v4 = v3 == 0
    v5 = v2 & v4
    v6 = tl.log(t)
    v7 = v6 - x
    v8 = v7 + 1.0
    v9 = tl.where(v5, 0.0, v8)
    return v1, v9


LOSS = Loss(
    inputs=2,
    optional=(),
    options=1,
    factor=1,
    choices=(("option", 0, ()),),
    variants={
        (True,): (value_log_target, slopes_log_target),
        (False,): (value_no_log_target, slopes_no_log_target),
    },
)
