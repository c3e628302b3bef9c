# Written by python -m manual_grad.generate from losses/pointwise/quantile_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    quantile = options[0]
    v1 = x - t
    v2 = v1 < 0.0
    v3 = -quantile
    v4 = v3.to(x.dtype) * v1
    v5 = 1.0 - quantile
    v6 = v5.to(x.dtype) * v1
    v7 = tl.where(v2, v4, v6)
    return v7


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    quantile = options[0]
    v1 = x - t
    v2 = v1 < 0.0
    v3 = -quantile
    v4 = v1 > 0.0
    v5 = 1.0 - quantile
    v6 = 0.0 * v1
    v7 = tl.where(v4, v5.to(x.dtype), v6)
    v8 = tl.where(v2, v3.to(x.dtype), v7)
    v9 = -v8
    return v8, v9


LOSS = Loss(
    inputs=2,
    optional=(),
    options=1,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
