"""Cosine embedding loss, one pair of vectors per row. Notation as in losses/pairwise/cosine_embedding_loss.py."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import destination, double, launch, narrow, total
from manual_grad.kernels.triton.pairwise import row_stride, step, tiling

_EPSILON = tl.constexpr(1e-12)


@triton.jit
def _head(x):
    """x with the lower half of its mantissa cleared, so that the product of two such numbers is exact."""
    return (x.to(tl.int64, bitcast=True) & -134217728).to(tl.float64, bitcast=True)


@triton.jit
def _quotient(ab, aa):
    return _head(tl.where(aa > 0, ab / tl.where(aa > 0, aa, 1.0), 0.0))


@triton.jit
def _minus(b, kappa, a):
    """One step of (4)."""
    high = _head(a)
    return (b - kappa[:, None] * high) - kappa[:, None] * (a - high)


@triton.jit
def _slope(aa, bb, up):
    na2 = aa + _EPSILON
    return up / (na2 * tl.sqrt(na2 * (bb + _EPSILON)))  # the factor of (6) in (3)


@triton.jit(do_not_specialize=["pairs", "y_row", "g_row", "value_row"])
def _cosine_embedding(
    a, b, y, g, value, da, db, parts, pairs, length, margin: tl.float64, scale: tl.float64,
    a_row, b_row, y_row, g_row, value_row, da_row, db_row, a_step, b_step, da_step, db_step,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < pairs
    lanes = tl.arange(0, BLOCK).to(tl.int64)
    zero = tl.zeros((ROWS,), tl.float64)
    aa, bb, ab = zero, zero, zero
    for first in range(0, length, BLOCK):
        i = first + lanes
        inside = inside_n[:, None] & (i < length)[None, :]
        at_a = double(tl.load(a + (n * a_row)[:, None] + (i * a_step)[None, :], mask=inside, other=0))
        at_b = double(tl.load(b + (n * b_row)[:, None] + (i * b_step)[None, :], mask=inside, other=0))
        aa += tl.sum(at_a * at_a, 1)
        bb += tl.sum(at_b * at_b, 1)
        ab += tl.sum(at_a * at_b, 1)
    a_once, b_once = _quotient(ab, aa), _quotient(ab, bb)
    a_rho, b_rho = zero, zero
    for first in range(0, length, BLOCK):
        i = first + lanes
        inside = inside_n[:, None] & (i < length)[None, :]
        at_a = double(tl.load(a + (n * a_row)[:, None] + (i * a_step)[None, :], mask=inside, other=0))
        at_b = double(tl.load(b + (n * b_row)[:, None] + (i * b_step)[None, :], mask=inside, other=0))
        a_rho += tl.sum(at_a * _minus(at_b, a_once, at_a), 1)
        b_rho += tl.sum(at_b * _minus(at_a, b_once, at_b), 1)
    a_twice, b_twice = _quotient(a_rho, aa), _quotient(b_rho, bb)
    a_rho, b_rho, rho_rho = zero, zero, zero
    for first in range(0, length, BLOCK):
        i = first + lanes
        inside = inside_n[:, None] & (i < length)[None, :]
        at_a = double(tl.load(a + (n * a_row)[:, None] + (i * a_step)[None, :], mask=inside, other=0))
        at_b = double(tl.load(b + (n * b_row)[:, None] + (i * b_step)[None, :], mask=inside, other=0))
        rho = _minus(_minus(at_b, a_once, at_a), a_twice, at_a)
        a_rho += tl.sum(at_a * rho, 1)
        rho_rho += tl.sum(rho * rho, 1)
        b_rho += tl.sum(at_b * _minus(_minus(at_a, b_once, at_b), b_twice, at_b), 1)

    at_y = double(tl.load(y + n * y_row, mask=inside_n, other=0))
    norms = tl.sqrt((aa + _EPSILON) * (bb + _EPSILON))
    c = ab / norms  # (2)
    near = (aa * rho_rho - a_rho * a_rho + _EPSILON * (aa + bb) + _EPSILON * _EPSILON) / (norms * (norms + ab))  # (5)
    margin = tl.full((), margin, tl.float64)
    active = (at_y == -1) & ((c < margin) == 0)  # (1), with a NaN on the active side
    loss = tl.where(at_y == 1, tl.where(ab > 0, near, 1 - c), tl.where(active, c - margin, 0.0))
    if value is not None:
        tl.store(value + n * value_row, narrow(loss, value), mask=inside_n)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(tl.where(inside_n, loss, 0.0)))

    if da is not None or db is not None:
        slope = tl.where(at_y == 1, -1.0, tl.where(active, 1.0, 0.0)).to(tl.float64)
        up = slope * tl.full((), scale, tl.float64)
        if g is not None:
            up *= double(tl.load(g + n * g_row, mask=inside_n, other=0))
        by_a, by_b = _slope(aa, bb, up), _slope(bb, aa, up)
        for first in range(0, length, BLOCK):
            i = first + lanes
            inside = inside_n[:, None] & (i < length)[None, :]
            at_a = double(tl.load(a + (n * a_row)[:, None] + (i * a_step)[None, :], mask=inside, other=0))
            at_b = double(tl.load(b + (n * b_row)[:, None] + (i * b_step)[None, :], mask=inside, other=0))
            if da is not None:  # (6)
                rho = _minus(_minus(at_b, a_once, at_a), a_twice, at_a)
                d = by_a[:, None] * (aa[:, None] * rho - a_rho[:, None] * at_a + _EPSILON * at_b)
                d = tl.where(slope[:, None] == 0, 0.0, d)
                at = da + (n * da_row)[:, None] + (i * da_step)[None, :]
                tl.store(at, narrow(d, da), mask=inside)
            if db is not None:
                rho = _minus(_minus(at_a, b_once, at_b), b_twice, at_b)
                d = by_b[:, None] * (bb[:, None] * rho - b_rho[:, None] * at_b + _EPSILON * at_a)
                d = tl.where(slope[:, None] == 0, 0.0, d)
                at = db + (n * db_row)[:, None] + (i * db_step)[None, :]
                tl.store(at, narrow(d, db), mask=inside)


def cosine_embedding_loss(
    a: Tensor, b: Tensor, y: Tensor, g: Tensor | None, margin: float, scale: float, reduce: bool,
    value: Tensor | None, da: Tensor | None, db: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/cosine.cpp."""
    pairs, length = y.numel(), a.shape[-1]
    if pairs == 0:
        if value is not None and reduce:
            value.fill_(0 * scale)
        return
    tile, block = tiling(length)
    programs = triton.cdiv(pairs, tile)
    each, parts = destination(value, reduce, programs)
    rows = (row_stride(u, dim) for u, dim in ((a, 2), (b, 2), (y, 1), (g, 1), (each, 1), (da, 2), (db, 2)))
    args = a, b, y, g, each, da, db, parts, pairs, length, margin, scale, *rows, *map(step, (a, b, da, db))
    launch(_cosine_embedding, programs, a.device, *args, ROWS=tile, BLOCK=block)
    if parts is not None:
        total(parts, value, scale)


OPS = {
    "cosine_embedding_loss": (
        "(Tensor a, Tensor b, Tensor y, Tensor? g, float margin, float scale, bool reduce, "
        "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? db) -> ()",
        cosine_embedding_loss,
    ),
}
