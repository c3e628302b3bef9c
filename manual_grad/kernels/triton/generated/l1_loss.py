# Written by python -m manual_grad.generate from losses/pointwise/l1_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x - t
    v2 = tl.abs(v1)
    return v2


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x - t
    v2 = tl.where(v1 > 0, 1.0, 0.0).to(v1.dtype) - tl.where(v1 < 0, 1.0, 0.0).to(v1.dtype)
    v3 = -v2
    return v2, v3


LOSS = Loss(
    inputs=2,
    optional=(),
    options=0,
    factor=1,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
