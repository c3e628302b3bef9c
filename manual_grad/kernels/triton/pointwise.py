"""Losses of one element of each input: one kernel, into which a loss plugs two scalar functions.

``value(x, t, a, p, q, r)`` is the loss e, ``slopes(x, t, a, p, q, r)`` its derivatives dx, dt, da; letters as in the
loss files: x input, t target, a auxiliary input (pos_weight, variance; 1 where there is none), p q r the options.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, NARROW, launch, layout, place, total
from manual_grad.kernels.triton.math import exp, log1p

_BYTES = 4096  # of each operand, for one program


@triton.jit
def _kernel(
    x, t, a, w, g, value, dx, dt, da, dw, parts, numel,
    p: tl.float64, q: tl.float64, r: tl.float64, scale: tl.float64,
    size, x_at, t_at, a_at, w_at, g_at, value_at, dx_at, dt_at, da_at, dw_at,
    VALUE: tl.constexpr, SLOPES: tl.constexpr, T: tl.constexpr,
    DIMS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < numel
    one = tl.full((BLOCK,), 1, T)
    p, q, r, up = tl.full((), p, T), tl.full((), q, T), tl.full((), r, T), tl.full((), scale, T)
    at_x = tl.load(x + place(i, size, x_at, DIMS, WIDE), mask=inside, other=1).to(T)
    at_t = tl.load(t + place(i, size, t_at, DIMS, WIDE), mask=inside, other=1).to(T)
    at_a = one
    if a is not None:
        at_a = tl.load(a + place(i, size, a_at, DIMS, WIDE), mask=inside, other=1).to(T)
    slope = one * up
    if g is not None:
        slope = tl.load(g + place(i, size, g_at, DIMS, WIDE), mask=inside, other=1).to(T) * up
    e = one
    if value is not None or parts is not None or dw is not None:
        e = VALUE(at_x, at_t, at_a, p, q, r)
    if dw is not None:
        tl.store(dw + place(i, size, dw_at, DIMS, WIDE), (slope * e).to(dw.dtype.element_ty), mask=inside)
    if w is not None:
        at_w = tl.load(w + place(i, size, w_at, DIMS, WIDE), mask=inside, other=1).to(T)
        slope *= at_w
        e *= at_w
    if value is not None:
        tl.store(value + place(i, size, value_at, DIMS, WIDE), e.to(value.dtype.element_ty), mask=inside)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(tl.where(inside, e, 0)))
    if dx is not None or dt is not None or da is not None:
        by_x, by_t, by_a = SLOPES(at_x, at_t, at_a, p, q, r)
        if dx is not None:
            tl.store(dx + place(i, size, dx_at, DIMS, WIDE), (slope * by_x).to(dx.dtype.element_ty), mask=inside)
        if dt is not None:
            tl.store(dt + place(i, size, dt_at, DIMS, WIDE), (slope * by_t).to(dt.dtype.element_ty), mask=inside)
        if da is not None:
            tl.store(da + place(i, size, da_at, DIMS, WIDE), (slope * by_a).to(da.dtype.element_ty), mask=inside)


SCHEMA = (
    "(Tensor x, Tensor t, Tensor? a, Tensor? w, Tensor? g, float p, float q, float r, float scale, bool reduce, "
    "bool value, bool dx, bool dt, bool da, bool dw) -> (Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)"
)


def run(
    functions: tuple[Any, Any], x: Tensor, t: Tensor, a: Tensor | None, w: Tensor | None, g: Tensor | None,
    p: float, q: float, r: float, scale: float, reduce: bool, value: bool, dx: bool, dt: bool, da: bool, dw: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """What SCHEMA says, as kernels/cpu/pointwise.h has it."""
    numel, block = x.numel(), _BYTES // x.element_size()
    programs = triton.cdiv(numel, block)
    e = (x.new_empty(()) if reduce else torch.empty_like(x)) if value else None
    wanted = zip((x, t, a, w), (dx, dt, da, dw), strict=True)
    gradients = [torch.empty_like(u) if want else None for u, want in wanted]
    if numel == 0:
        if value and reduce:
            e.fill_(0 * scale)
        return e, *gradients
    if g is not None and g.shape != x.shape:
        g = g.reshape(()).expand(x.shape)
    compute = COMPUTE[x.dtype]
    parts = x.new_empty(programs, dtype=torch.float64 if compute is tl.float64 else torch.float32)
    each, parts = (None, parts) if reduce and value else (e, None)
    operands = (x, t, a, w, g, each, *gradients)
    size, strides = layout(x.shape, operands)
    constants = dict(
        VALUE=functions[0], SLOPES=functions[1], T=compute, DIMS=len(size), WIDE=numel >= NARROW, BLOCK=block
    )
    launch(_kernel, programs, x.device, *operands, parts, numel, p, q, r, scale, size, *strides, **constants)
    if parts is not None:
        total(parts, e, scale)
    return e, *gradients


@triton.jit
def _l1(x, t, a, p, q, r):  # losses/l1_loss.py (1)
    return tl.abs(x - t)


@triton.jit
def _l1_slopes(x, t, a, p, q, r):  # (2); the comparisons are false for a NaN
    d = x - t
    sign = tl.where(d > 0, 1.0, 0.0).to(x.dtype) - tl.where(d < 0, 1.0, 0.0).to(x.dtype)
    return sign, -sign, sign


@triton.jit
def _mse(x, t, a, p, q, r):  # losses/mse_loss.py (1)
    return (x - t) * (x - t)


@triton.jit
def _mse_slopes(x, t, a, p, q, r):  # (2)
    d = 2 * (x - t)
    return d, -d, d


@triton.jit
def _huber(x, t, a, delta, q, r):  # losses/huber_loss.py (1)
    size = tl.abs(x - t)
    return tl.where(size > delta, delta * (size - 0.5 * delta), 0.5 * size * size)


@triton.jit
def _huber_slopes(x, t, a, delta, q, r):  # (2)
    d = x - t
    d = tl.where(d > delta, delta, tl.where(d < -delta, -delta, d))
    return d, -d, d


@triton.jit
def _bce_with_logits(x, t, a, p, q, r):  # losses/binary_cross_entropy_with_logits.py (4)
    at = a * t
    return tl.where(x < 0, -at * x, (1 - t) * x) + (1 - t + at) * log1p(exp(-tl.abs(x)))


@triton.jit
def _bce_with_logits_slopes(x, t, a, p, q, r):
    u = exp(-tl.abs(x))
    large = 1 / (1 + u)
    small = u * large
    sigmoid, sigmoid_minus = tl.where(x < 0, small, large), tl.where(x < 0, large, small)  # (6)
    softplus_minus = tl.where(x < 0, -x, 0) + log1p(u)  # (3) of -x
    return (1 - t) * sigmoid - a * t * sigmoid_minus, (a - 1) * softplus_minus - x, t * softplus_minus  # (5)


LOSSES = {
    "l1_loss": (_l1, _l1_slopes),
    "mse_loss": (_mse, _mse_slopes),
    "huber_loss": (_huber, _huber_slopes),
    "binary_cross_entropy_with_logits": (_bce_with_logits, _bce_with_logits_slopes),
}
OPS = {name: (SCHEMA, functools.partial(run, functions)) for name, functions in LOSSES.items()}
