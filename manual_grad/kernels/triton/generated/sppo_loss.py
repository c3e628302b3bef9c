# Written by python -m manual_grad.generate from losses/pointwise/sppo_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    t = options[0]
    v1 = x - x0
    v2 = v1 - t.to(x.dtype)
    v3 = y - y0
    v4 = v3 + t.to(x.dtype)
    v5 = v4 * v4
    v6 = tl.fma(v2, v2, v5)
    return v6


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    t = options[0]
    v1 = x - x0
    v2 = v1 - t.to(x.dtype)
    v3 = y - y0
    v4 = v3 + t.to(x.dtype)
    v5 = -v2
    v6 = -v4
    return v2, v4, v5, v6


LOSS = Loss(
    inputs=4,
    optional=(),
    options=1,
    factor=2,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
