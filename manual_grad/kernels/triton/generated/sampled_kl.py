# Written by python -m manual_grad.generate from losses/pointwise/sampled_kl.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp_minus_1, exp_remainder
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_j_1_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = -v2
    v4 = w * v3
    v5 = tl.where(v1, 0.0, v4)
    return v5


@triton.jit
def slopes_j_1_w(inputs, options):
    w = inputs[2]
    v1 = w == 0.0
    v2 = w * -1.0
    v3 = tl.where(v1, 0.0, v2)
    v4 = -v3
    v5 = tl.zeros_like(w) + 0.0
    return v4, v3, v5


@triton.jit
def value_j_1_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = -v1
    return v2


@triton.jit
def slopes_j_1_no_w(inputs, options):
    x = inputs[0]
    v1 = tl.zeros_like(x) + 1.0
    v2 = tl.zeros_like(x) + -1.0
    return v1, v2, 0.0 * x


@triton.jit
def value_j_2_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = 0.5 * v2
    v4 = v3 * v2
    v5 = w * v4
    v6 = tl.where(v1, 0.0, v5)
    return v6


@triton.jit
def slopes_j_2_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = w * v2
    v4 = tl.where(v1, 0.0, v3)
    v5 = -v4
    v6 = tl.zeros_like(x) + 0.0
    return v5, v4, v6


@triton.jit
def value_j_2_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = 0.5 * v1
    v3 = v2 * v1
    return v3


@triton.jit
def slopes_j_2_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = -v1
    return v2, v1, 0.0 * x


@triton.jit
def value_other_j_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = exp_remainder(v2)
    v4 = w * v3
    v5 = tl.where(v1, 0.0, v4)
    return v5


@triton.jit
def slopes_other_j_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    w = inputs[2]
    v1 = w == 0.0
    v2 = x0 - x
    v3 = exp_minus_1(v2)
    v4 = w * v3
    v5 = tl.where(v1, 0.0, v4)
    v6 = -v5
    v7 = tl.zeros_like(x) + 0.0
    return v6, v5, v7


@triton.jit
def value_other_j_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = exp_remainder(v1)
    return v2


@triton.jit
def slopes_other_j_no_w(inputs, options):
    x = inputs[0]
    x0 = inputs[1]
    v1 = x0 - x
    v2 = exp_minus_1(v1)
    v3 = -v2
    return v3, v2, 0.0 * x


LOSS = Loss(
    inputs=3,
    optional=(2,),
    options=1,
    factor=1,
    choices=(("option", 0, (1.0, 2.0)), ("input", 2, ())),
    variants={
        (1.0, True): (value_j_1_w, slopes_j_1_w),
        (1.0, False): (value_j_1_no_w, slopes_j_1_no_w),
        (2.0, True): (value_j_2_w, slopes_j_2_w),
        (2.0, False): (value_j_2_no_w, slopes_j_2_no_w),
        (None, True): (value_other_j_w, slopes_other_j_w),
        (None, False): (value_other_j_no_w, slopes_other_j_no_w),
    },
)
