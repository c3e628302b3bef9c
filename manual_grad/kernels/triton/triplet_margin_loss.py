"""Triplet margin loss, one triplet of vectors per row. Notation as in losses/pairwise/triplet_margin_loss.py.

The degree of the norm is a compile-time constant, since each degree has its own formula. With SCALED, the norm is
computed relative to the largest absolute value, by (5). For degree 2 and a dtype below float64 that is unnecessary: the
squares are in the range of float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import destination, double, launch, narrow, total
from manual_grad.kernels.triton.pairwise import row_stride, step, tiling

_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _difference(x, y, i, x_step, y_step, inside, eps):
    """x - y + eps for the components ``i``; 0 outside."""
    at_x = double(tl.load(x[:, None] + (i * x_step)[None, :], mask=inside, other=0))
    at_y = double(tl.load(y[:, None] + (i * y_step)[None, :], mask=inside, other=0))
    return tl.where(inside, (at_x - at_y) + eps, 0.0)


@triton.jit
def _power(x, exponent):
    """x to a power, for x >= 0 including 0 and infinity."""
    return tl.exp(exponent * tl.log(x))


@triton.jit
def _norm(
    x, y, inside_row, length, x_step, y_step, eps,
    Q: tl.constexpr, SCALED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The norm of each row's difference; for an infinite degree, also the number of components that attain it."""
    EXTREME: tl.constexpr = Q == _INFINITY or Q == -_INFINITY
    lanes = tl.arange(0, BLOCK).to(tl.int64)
    zero = tl.zeros((ROWS,), tl.float64)
    c = zero + 1
    if SCALED:
        c = zero if Q > 0 else zero + _INFINITY
        for first in range(0, length, BLOCK):
            inside = inside_row[:, None] & (first + lanes < length)[None, :]
            size = tl.abs(_difference(x, y, first + lanes, x_step, y_step, inside, eps))
            least = tl.where(inside, size, _INFINITY)
            c = tl.maximum(c, tl.max(size, 1)) if Q > 0 else tl.minimum(c, tl.min(least, 1))
        if not EXTREME:
            c = tl.where((c == 0) | (c == _INFINITY), 1.0, c)
    total, spoilt = zero, zero
    for first in range(0, length, BLOCK):
        inside = inside_row[:, None] & (first + lanes < length)[None, :]
        size = tl.abs(_difference(x, y, first + lanes, x_step, y_step, inside, eps))
        if EXTREME:
            term = tl.where(size == c[:, None], 1.0, 0.0)
            spoilt += tl.sum(tl.where(size == size, 0.0, 1.0), 1)  # a maximum or minimum ignores NaN
        elif Q == 0:
            term = tl.where(size == 0, 0.0, 1.0)
        elif Q == 1:
            term = size
        elif Q == 2:
            size = size / c[:, None] if SCALED else size
            term = size * size
        else:
            term = _power(size / c[:, None], Q)
        total += tl.sum(tl.where(inside, term, 0.0), 1)
    if EXTREME:
        f = tl.where(spoilt > 0, float("nan"), c)
    elif Q == 0 or Q == 1:
        f = total
    elif Q == 2:
        f = c * tl.sqrt(total)
    else:
        f = c * _power(total, 1 / Q)  # (5)
    return f, total


@triton.jit
def _slope(u, f, ties, Q: tl.constexpr, SCALED: tl.constexpr):
    """(3); propagates NaN."""
    sign = tl.where(u > 0, 1.0, tl.where(u < 0, -1.0, u))
    if Q == 0:
        d = tl.zeros_like(u)
    elif Q == 1:
        d = sign
    elif Q == 2 and SCALED:
        d = tl.where(u == 0, 0.0, u / f[:, None])
    elif Q == 2:
        d = u * tl.where(f == 0, 0.0, 1 / f)[:, None]  # one division per row
    elif Q == _INFINITY or Q == -_INFINITY:
        d = tl.where(tl.abs(u) == f[:, None], sign, 0.0) / ties[:, None]
    else:
        d = tl.where(u == 0, 0.0, sign * _power(tl.abs(u) / f[:, None], Q - 1))
    return d


@triton.jit(do_not_specialize=["triplets", "g_row", "value_row"])
def _triplet_margin(
    a, p, n, g, value, da, dp, dn, parts, triplets, length, margin: tl.float64, eps: tl.float64, scale: tl.float64,
    a_row, p_row, n_row, g_row, value_row, da_row, dp_row, dn_row, a_step, p_step, n_step, da_step, dp_step, dn_step,
    Q: tl.constexpr, SCALED: tl.constexpr, SWAP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_row = row < triplets
    eps = tl.full((), eps, tl.float64)
    a, p, n = a + row * a_row, p + row * p_row, n + row * n_row
    u_f, u_ties = _norm(a, p, inside_row, length, a_step, p_step, eps, Q, SCALED, ROWS, BLOCK)
    v_f, v_ties = _norm(a, n, inside_row, length, a_step, n_step, eps, Q, SCALED, ROWS, BLOCK)
    w_f, w_ties, nearest, beta = v_f, v_ties, v_f, u_f * 0
    if SWAP:
        w_f, w_ties = _norm(p, n, inside_row, length, p_step, n_step, eps, Q, SCALED, ROWS, BLOCK)
        nearest = tl.where(v_f <= w_f, v_f, tl.where(v_f == v_f, w_f, v_f))  # NaN if either is
        beta = tl.where(w_f < v_f, 1.0, tl.where(w_f == v_f, 0.5, 0.0)).to(tl.float64)
    s = tl.full((), margin, tl.float64) + (u_f - nearest)  # (1) (2)
    loss = tl.where(s < 0, 0.0, s)
    if value is not None:
        tl.store(value + row * value_row, narrow(loss, value), mask=inside_row)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(tl.where(inside_row, loss, 0.0)))

    if da is not None or dp is not None or dn is not None:
        up = tl.full((ROWS,), scale, tl.float64)
        if g is not None:
            up *= double(tl.load(g + row * g_row, mask=inside_row, other=0))
        up = tl.where(s < 0, 0.0, up)
        easy = up[:, None] == 0
        for first in range(0, length, BLOCK):
            i = first + tl.arange(0, BLOCK).to(tl.int64)
            inside = inside_row[:, None] & (i < length)[None, :]
            u = _slope(_difference(a, p, i, a_step, p_step, inside, eps), u_f, u_ties, Q, SCALED)
            v = _slope(_difference(a, n, i, a_step, n_step, inside, eps), v_f, v_ties, Q, SCALED)
            from_n, to_p = v, u
            if SWAP:
                w = _slope(_difference(p, n, i, p_step, n_step, inside, eps), w_f, w_ties, Q, SCALED)
                w = tl.where(beta[:, None] == 0, 0.0, beta[:, None] * w)  # w may be infinite
                v = tl.where(beta[:, None] == 1, 0.0, (1 - beta)[:, None] * v)
                from_n, to_p = v + w, u + w
            if da is not None:  # (4)
                at = da + (row * da_row)[:, None] + (i * da_step)[None, :]
                tl.store(at, narrow(tl.where(easy, 0.0, up[:, None] * (u - v)), da), mask=inside)
            if dp is not None:
                at = dp + (row * dp_row)[:, None] + (i * dp_step)[None, :]
                tl.store(at, narrow(tl.where(easy, 0.0, -up[:, None] * to_p), dp), mask=inside)
            if dn is not None:
                at = dn + (row * dn_row)[:, None] + (i * dn_step)[None, :]
                tl.store(at, narrow(tl.where(easy, 0.0, up[:, None] * from_n), dn), mask=inside)


def triplet_margin_loss(
    a: Tensor, p: Tensor, n: Tensor, g: Tensor | None, margin: float, q: float, eps: float, swap: bool, scale: float,
    reduce: bool, value: Tensor | None, da: Tensor | None, dp: Tensor | None, dn: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/triplet.cpp."""
    triplets, length = a.shape[:-1].numel(), a.shape[-1]
    if triplets == 0:
        if value is not None and reduce:
            value.fill_(0 * scale)
        return
    if length == 0:
        q = 1.0  # an empty vector has norm 0 for every degree
    scaled = q not in (0, 1) and (q != 2 or a.dtype is torch.float64)
    tile, block = tiling(length, 512 if scaled else 1024)  # a power takes registers
    programs = triton.cdiv(triplets, tile)
    each, parts = destination(value, reduce, programs)
    vectors, results = (a, p, n), (da, dp, dn)
    rows = [row_stride(u, 1 if u is g or u is each else 2) for u in (*vectors, g, each, *results)]
    launch(
        _triplet_margin, programs, a.device, *vectors, g, each, *results, parts, triplets, length, margin, eps, scale,
        *rows, *map(step, (*vectors, *results)),
        Q=q, SCALED=scaled, SWAP=swap, ROWS=tile, BLOCK=block,
    )  # fmt: skip
    if parts is not None:
        total(parts, value, scale)


OPS = {
    "triplet_margin_loss": (
        "(Tensor a, Tensor p, Tensor n, Tensor? g, float margin, float q, float eps, bool swap, float scale, "
        "bool reduce, Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? dp, Tensor(d!)? dn) -> ()",
        triplet_margin_loss,
    ),
}
