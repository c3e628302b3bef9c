# Written by python -m manual_grad.generate from losses/pointwise/poisson_nll_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least, exp
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_log_input_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = exp(x)
    v2 = t == 0.0
    v3 = x == float("-inf")
    v4 = v2 & v3
    v5 = t * x
    v6 = tl.where(v4, 0.0, v5)
    v7 = v1 - v6
    v8 = t <= 1.0
    v9 = at_least(t, 1.0)
    v10 = v9 + 0.5
    v11 = tl.log(v9)
    v12 = tl.fma(v10, v11, -v9)
    v13 = v12 + 0.9189385332046727
    v14 = tl.where(v8, 0.0, v13)
    v15 = v7 + v14
    return v15


@triton.jit
def slopes_log_input_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = exp(x)
    v2 = v1 - t
    v3 = -x
    v4 = t <= 1.0
    v5 = at_least(t, 1.0)
    v6 = tl.log(v5)
    v7 = 0.5 / v5
    v8 = v6 + v7
    v9 = tl.where(v4, 0.0, v8)
    v10 = v3 + v9
    return v2, v10


@triton.jit
def value_log_input_no_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = exp(x)
    v2 = t == 0.0
    v3 = x == float("-inf")
    v4 = v2 & v3
    v5 = t * x
    v6 = tl.where(v4, 0.0, v5)
    v7 = v1 - v6
    return v7


@triton.jit
def slopes_log_input_no_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = exp(x)
    v2 = v1 - t
    v3 = -x
    return v2, v3


@triton.jit
def value_no_log_input_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = tl.log(v1)
    v3 = tl.fma(-t, v2, x)
    v4 = t <= 1.0
    v5 = at_least(t, 1.0)
    v6 = v5 + 0.5
    v7 = tl.log(v5)
    v8 = tl.fma(v6, v7, -v5)
    v9 = v8 + 0.9189385332046727
    v10 = tl.where(v4, 0.0, v9)
    v11 = v3 + v10
    return v11


@triton.jit
def slopes_no_log_input_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 == float("inf")
    v3 = t / v1
    v4 = 1.0 - v3
    v5 = x - t
    v6 = v5 + eps.to(x.dtype)
    v7 = v6 / v1
    v8 = tl.where(v2, v4, v7)
    v9 = tl.log(v1)
    v10 = -v9
    v11 = t <= 1.0
    v12 = at_least(t, 1.0)
    v13 = tl.log(v12)
    v14 = 0.5 / v12
    v15 = v13 + v14
    v16 = tl.where(v11, 0.0, v15)
    v17 = v10 + v16
    return v8, v17


@triton.jit
def value_no_log_input_no_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = tl.log(v1)
    v3 = tl.fma(-t, v2, x)
    return v3


@triton.jit
def slopes_no_log_input_no_full(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 == float("inf")
    v3 = t / v1
    v4 = 1.0 - v3
    v5 = x - t
    v6 = v5 + eps.to(x.dtype)
    v7 = v6 / v1
    v8 = tl.where(v2, v4, v7)
    v9 = tl.log(v1)
    v10 = -v9
    return v8, v10


LOSS = Loss(
    inputs=2,
    optional=(),
    options=3,
    factor=1,
    choices=(("option", 0, ()), ("option", 1, ())),
    variants={
        (True, True): (value_log_input_full, slopes_log_input_full),
        (True, False): (value_log_input_no_full, slopes_log_input_no_full),
        (False, True): (value_no_log_input_full, slopes_no_log_input_full),
        (False, False): (value_no_log_input_no_full, slopes_no_log_input_no_full),
    },
)
