# Written by python -m manual_grad.generate from losses/pointwise/ipo_loss.py.
import triton
import triton.language as tl  # noqa: F401 - the interpreter looks for it in every file

from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    t = options[0]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = v3 - t.to(x.dtype)
    v5 = v4 * v4
    return v5


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    y = inputs[1]
    x0 = inputs[2]
    y0 = inputs[3]
    t = options[0]
    v1 = x - x0
    v2 = y - y0
    v3 = v1 - v2
    v4 = v3 - t.to(x.dtype)
    v5 = -v4
    v6 = -v5
    return v4, v5, v5, v6


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
