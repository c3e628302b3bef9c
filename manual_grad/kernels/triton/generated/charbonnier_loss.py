# Written by python -m manual_grad.generate from losses/pointwise/charbonnier_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[0]
    v1 = x - t
    v2 = tl.abs(v1)
    v3 = eps.to(x.dtype) < v2
    v4 = tl.where(v3, v2, eps.to(x.dtype))
    v5 = tl.where(v3, eps.to(x.dtype), v2)
    v6 = v4 == 0.0
    v7 = tl.where(v6, 1.0, v4)
    v8 = v5 / v7
    v9 = v8 * v8
    v10 = 1.0 + v9
    v11 = tl.sqrt(v10)
    v12 = v4 * v11
    return v12


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    eps = options[0]
    v1 = x - t
    v2 = tl.abs(v1)
    v3 = eps.to(x.dtype) < v2
    v4 = tl.where(v3, v2, eps.to(x.dtype))
    v5 = v4 == float("inf")
    v6 = tl.where(v1 > 0, 1.0, 0.0).to(v1.dtype) - tl.where(v1 < 0, 1.0, 0.0).to(v1.dtype)
    v7 = v4 == 0.0
    v8 = tl.where(v7, 1.0, v4)
    v9 = v1 / v8
    v10 = tl.where(v5, v6, v9)
    v11 = tl.where(v3, eps.to(x.dtype), v2)
    v12 = v11 / v8
    v13 = v12 * v12
    v14 = 1.0 + v13
    v15 = tl.sqrt(v14)
    v16 = v10 / v15
    v17 = -v16
    return v16, v17


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
