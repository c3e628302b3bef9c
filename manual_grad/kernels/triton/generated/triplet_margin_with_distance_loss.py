# Written by python -m manual_grad.generate from losses/pairwise/triplet_margin_with_distance_loss.py.
import triton
import triton.language as tl

from manual_grad.kernels.triton.math import at_least
from manual_grad.kernels.triton.pointwise import Loss


@triton.jit
def value_z(inputs, options):
    x = inputs[0]
    y = inputs[1]
    z = inputs[2]
    margin = options[0]
    v1 = tl.where(y < z, y, tl.where(y == y, z, y))
    v2 = x - v1
    v3 = margin.to(x.dtype) + v2
    v4 = at_least(v3, 0.0)
    return v4


@triton.jit
def slopes_z(inputs, options):
    x = inputs[0]
    y = inputs[1]
    z = inputs[2]
    margin = options[0]
    v1 = tl.where(y < z, y, tl.where(y == y, z, y))
    v2 = x - v1
    v3 = margin.to(x.dtype) + v2
    v4 = v3 < 0.0
    v5 = tl.where(v4, 0.0, 1.0).to(x.dtype)
    v6 = y == z
    v7 = z < y
    v8 = tl.where(v7, 1.0, 0.0).to(x.dtype)
    v9 = tl.where(v6, 0.5, v8)
    v10 = 1.0 - v9
    v11 = -v10
    v12 = v11 * v5
    v13 = -v9
    v14 = v13 * v5
    return v5, v12, v14


@triton.jit
def value_no_z(inputs, options):
    x = inputs[0]
    y = inputs[1]
    margin = options[0]
    v1 = x - y
    v2 = margin.to(x.dtype) + v1
    v3 = at_least(v2, 0.0)
    return v3


@triton.jit
def slopes_no_z(inputs, options):
    x = inputs[0]
    y = inputs[1]
    margin = options[0]
    v1 = x - y
    v2 = margin.to(x.dtype) + v1
    v3 = v2 < 0.0
    v4 = tl.where(v3, 0.0, 1.0).to(x.dtype)
    v5 = -1.0 * v4
    return v4, v5, 0.0 * x


LOSS = Loss(
    inputs=3,
    optional=(2,),
    options=1,
    factor=1,
    choices=(("input", 2, ()),),
    variants={
        (True,): (value_z, slopes_z),
        (False,): (value_no_z, slopes_no_z),
    },
)
