# Written by python -m manual_grad.generate from losses/pointwise/mse_loss.py.
import triton
import triton.language as tl  # noqa: F401 - the interpreter looks for it in every file

from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x - t
    v2 = v1 * v1
    return v2


@triton.jit
def slopes(inputs, options):
    x = inputs[0]
    t = inputs[1]
    v1 = x - t
    v2 = -v1
    return v1, v2


LOSS = Loss(
    inputs=2,
    optional=(),
    options=0,
    factor=2,
    choices=(),
    variants={
        (): (value, slopes),
    },
)
