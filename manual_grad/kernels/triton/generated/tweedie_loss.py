# Written by python -m manual_grad.generate from losses/pointwise/tweedie_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import exp, pow
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_power_0_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = 2.0 * x
    v2 = exp(v1)
    v3 = tl.abs(v1)
    v4 = v3 < 1000.0
    v5 = tl.fma(2.0 + 0.0 * x, x + 0.0 * 2.0, -(2.0 * x))
    v6 = tl.where(v4, v5, 0.0)
    v7 = 1.0 + v6
    v8 = v2 * v7
    v9 = v8 / 2.0
    v10 = t == 0.0
    v11 = 1.0 * x
    v12 = exp(v11)
    v13 = tl.abs(v11)
    v14 = v13 < 1000.0
    v15 = tl.fma(1.0 + 0.0 * x, x + 0.0 * 1.0, -(1.0 * x))
    v16 = tl.where(v14, v15, 0.0)
    v17 = 1.0 + v16
    v18 = v12 * v17
    v19 = v18 / 1.0
    v20 = t * v19
    v21 = tl.where(v10, 0.0, v20)
    v22 = v9 - v21
    return v22


@triton.jit
def slopes_power_0_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x > 0.0
    v2 = t == 0.0
    v3 = v1 | v2
    v4 = 2.0 * x
    v5 = exp(v4)
    v6 = tl.abs(v4)
    v7 = v6 < 1000.0
    v8 = tl.fma(2.0 + 0.0 * x, x + 0.0 * 2.0, -(2.0 * x))
    v9 = tl.where(v7, v8, 0.0)
    v10 = 1.0 + v9
    v11 = v5 * v10
    v12 = tl.abs(x)
    v13 = -v12
    v14 = exp(v13)
    v15 = t * v14
    v16 = 1.0 - v15
    v17 = v11 * v16
    v18 = 1.0 * x
    v19 = exp(v18)
    v20 = tl.abs(v18)
    v21 = v20 < 1000.0
    v22 = tl.fma(1.0 + 0.0 * x, x + 0.0 * 1.0, -(1.0 * x))
    v23 = tl.where(v21, v22, 0.0)
    v24 = 1.0 + v23
    v25 = v19 * v24
    v26 = v14 - t
    v27 = v25 * v26
    v28 = tl.where(v3, v17, v27)
    v29 = v25 / 1.0
    v30 = -v29
    return v28, v30


@triton.jit
def value_power_0_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 * v1
    v3 = v2 / 2.0
    v4 = t == 0.0
    v5 = v1 / 1.0
    v6 = t * v5
    v7 = tl.where(v4, 0.0, v6)
    v8 = v3 - v7
    return v8


@triton.jit
def slopes_power_0_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 == float("inf")
    v3 = x - t
    v4 = v3 + eps.to(x.dtype)
    v5 = 1.0 * v4
    v6 = tl.where(v2, v1, v5)
    v7 = v1 / 1.0
    v8 = -v7
    return v6, v8


@triton.jit
def value_power_1_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = 1.0 * x
    v2 = exp(v1)
    v3 = tl.abs(v1)
    v4 = v3 < 1000.0
    v5 = tl.fma(1.0 + 0.0 * x, x + 0.0 * 1.0, -(1.0 * x))
    v6 = tl.where(v4, v5, 0.0)
    v7 = 1.0 + v6
    v8 = v2 * v7
    v9 = v8 / 1.0
    v10 = t == 0.0
    v11 = t * x
    v12 = tl.where(v10, 0.0, v11)
    v13 = v9 - v12
    return v13


@triton.jit
def slopes_power_1_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x > 0.0
    v2 = t == 0.0
    v3 = v1 | v2
    v4 = 1.0 * x
    v5 = exp(v4)
    v6 = tl.abs(v4)
    v7 = v6 < 1000.0
    v8 = tl.fma(1.0 + 0.0 * x, x + 0.0 * 1.0, -(1.0 * x))
    v9 = tl.where(v7, v8, 0.0)
    v10 = 1.0 + v9
    v11 = v5 * v10
    v12 = tl.abs(x)
    v13 = -v12
    v14 = exp(v13)
    v15 = t * v14
    v16 = 1.0 - v15
    v17 = v11 * v16
    v18 = v14 - t
    v19 = 1.0 * v18
    v20 = tl.where(v3, v17, v19)
    v21 = -x
    return v20, v21


@triton.jit
def value_power_1_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 / 1.0
    v3 = t == 0.0
    v4 = tl.log(v1)
    v5 = t * v4
    v6 = tl.where(v3, 0.0, v5)
    v7 = v2 - v6
    return v7


@triton.jit
def slopes_power_1_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 == float("inf")
    v3 = 1.0 / v1
    v4 = x - t
    v5 = v4 + eps.to(x.dtype)
    v6 = v3 * v5
    v7 = tl.where(v2, 1.0, v6)
    v8 = tl.log(v1)
    v9 = -v8
    return v7, v9


@triton.jit
def value_power_2_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = t == 0.0
    v2 = -1.0 * x
    v3 = exp(v2)
    v4 = tl.abs(v2)
    v5 = v4 < 1000.0
    v6 = tl.fma(-1.0 + 0.0 * x, x + 0.0 * -1.0, -(-1.0 * x))
    v7 = tl.where(v5, v6, 0.0)
    v8 = 1.0 + v7
    v9 = v3 * v8
    v10 = v9 / -1.0
    v11 = t * v10
    v12 = tl.where(v1, 0.0, v11)
    v13 = x - v12
    return v13


@triton.jit
def slopes_power_2_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x > 0.0
    v2 = t == 0.0
    v3 = v1 | v2
    v4 = tl.abs(x)
    v5 = -v4
    v6 = exp(v5)
    v7 = t * v6
    v8 = 1.0 - v7
    v9 = 1.0 * v8
    v10 = -1.0 * x
    v11 = exp(v10)
    v12 = tl.abs(v10)
    v13 = v12 < 1000.0
    v14 = tl.fma(-1.0 + 0.0 * x, x + 0.0 * -1.0, -(-1.0 * x))
    v15 = tl.where(v13, v14, 0.0)
    v16 = 1.0 + v15
    v17 = v11 * v16
    v18 = v6 - t
    v19 = v17 * v18
    v20 = tl.where(v3, v9, v19)
    v21 = v17 / -1.0
    v22 = -v21
    return v20, v22


@triton.jit
def value_power_2_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = tl.log(v1)
    v3 = t == 0.0
    v4 = 1.0 / v1
    v5 = v4 / -1.0
    v6 = t * v5
    v7 = tl.where(v3, 0.0, v6)
    v8 = v2 - v7
    return v8


@triton.jit
def slopes_power_2_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 == float("inf")
    v3 = 1.0 / v1
    v4 = pow(v1, -2.0)
    v5 = x - t
    v6 = v5 + eps.to(x.dtype)
    v7 = v4 * v6
    v8 = tl.where(v2, v3, v7)
    v9 = v3 / -1.0
    v10 = -v9
    return v8, v10


@triton.jit
def value_other_power_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    power = options[0]
    v1 = 2.0 - power
    v2 = v1.to(x.dtype) * x
    v3 = exp(v2)
    v4 = tl.abs(v2)
    v5 = v4 < 1000.0
    v6 = tl.fma(v1.to(x.dtype) + 0.0 * x, x + 0.0 * v1.to(x.dtype), -(v1.to(x.dtype) * x))
    v7 = tl.where(v5, v6, 0.0)
    v8 = 1.0 + v7
    v9 = v3 * v8
    v10 = v9 / v1.to(x.dtype)
    v11 = t == 0.0
    v12 = 1.0 - power
    v13 = v12.to(x.dtype) * x
    v14 = exp(v13)
    v15 = tl.abs(v13)
    v16 = v15 < 1000.0
    v17 = tl.fma(v12.to(x.dtype) + 0.0 * x, x + 0.0 * v12.to(x.dtype), -(v12.to(x.dtype) * x))
    v18 = tl.where(v16, v17, 0.0)
    v19 = 1.0 + v18
    v20 = v14 * v19
    v21 = v20 / v12.to(x.dtype)
    v22 = t * v21
    v23 = tl.where(v11, 0.0, v22)
    v24 = v10 - v23
    return v24


@triton.jit
def slopes_other_power_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    power = options[0]
    v1 = x > 0.0
    v2 = t == 0.0
    v3 = v1 | v2
    v4 = 2.0 - power
    v5 = v4.to(x.dtype) * x
    v6 = exp(v5)
    v7 = tl.abs(v5)
    v8 = v7 < 1000.0
    v9 = tl.fma(v4.to(x.dtype) + 0.0 * x, x + 0.0 * v4.to(x.dtype), -(v4.to(x.dtype) * x))
    v10 = tl.where(v8, v9, 0.0)
    v11 = 1.0 + v10
    v12 = v6 * v11
    v13 = tl.abs(x)
    v14 = -v13
    v15 = exp(v14)
    v16 = t * v15
    v17 = 1.0 - v16
    v18 = v12 * v17
    v19 = 1.0 - power
    v20 = v19.to(x.dtype) * x
    v21 = exp(v20)
    v22 = tl.abs(v20)
    v23 = v22 < 1000.0
    v24 = tl.fma(v19.to(x.dtype) + 0.0 * x, x + 0.0 * v19.to(x.dtype), -(v19.to(x.dtype) * x))
    v25 = tl.where(v23, v24, 0.0)
    v26 = 1.0 + v25
    v27 = v21 * v26
    v28 = v15 - t
    v29 = v27 * v28
    v30 = tl.where(v3, v18, v29)
    v31 = v27 / v19.to(x.dtype)
    v32 = -v31
    return v30, v32


@triton.jit
def value_other_power_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    power = options[0]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = 2.0 - power
    v3 = pow(v1, v2.to(x.dtype))
    v4 = v3 / v2.to(x.dtype)
    v5 = t == 0.0
    v6 = 1.0 - power
    v7 = pow(v1, v6.to(x.dtype))
    v8 = v7 / v6.to(x.dtype)
    v9 = t * v8
    v10 = tl.where(v5, 0.0, v9)
    v11 = v4 - v10
    return v11


@triton.jit
def slopes_other_power_no_log_input(inputs, options):
    x = inputs[0]
    t = inputs[1]
    power = options[0]
    eps = options[2]
    v1 = x + eps.to(x.dtype)
    v2 = v1 == float("inf")
    v3 = 1.0 - power
    v4 = pow(v1, v3.to(x.dtype))
    v5 = -power
    v6 = pow(v1, v5.to(x.dtype))
    v7 = x - t
    v8 = v7 + eps.to(x.dtype)
    v9 = v6 * v8
    v10 = tl.where(v2, v4, v9)
    v11 = v4 / v3.to(x.dtype)
    v12 = -v11
    return v10, v12


LOSS = Loss(
    inputs=2,
    optional=(),
    options=3,
    factor=1,
    block=256,
    choices=(("option", 0, (0.0, 1.0, 2.0)), ("option", 1, ())),
    variants={
        (0.0, True): (value_power_0_log_input, slopes_power_0_log_input),
        (0.0, False): (value_power_0_no_log_input, slopes_power_0_no_log_input),
        (1.0, True): (value_power_1_log_input, slopes_power_1_log_input),
        (1.0, False): (value_power_1_no_log_input, slopes_power_1_no_log_input),
        (2.0, True): (value_power_2_log_input, slopes_power_2_log_input),
        (2.0, False): (value_power_2_no_log_input, slopes_power_2_no_log_input),
        (None, True): (value_other_power_log_input, slopes_other_power_log_input),
        (None, False): (value_other_power_no_log_input, slopes_other_power_no_log_input),
    },
)
