"""Negative log-likelihood. Notation as in losses/rowwise/nll_loss.py.

The value reads one score per row. The gradient has one nonzero entry per row; every entry is written once and none is
read. The arithmetic is done in float64, since there is only one number per row.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import NARROW, destination, double, launch, narrow, place, total
from manual_grad.kernels.triton.rowwise import kept_weight, rows_of, tiling


@triton.jit(do_not_specialize=["rows", "ignore_index"])
def _nll_loss(
    x, t, w, g, denominator, value, dx, parts, rows, classes, ignore_index: tl.int64, scale: tl.float64,
    size, x_at, t_at, g_at, value_at, dx_at, x_step, w_step, dx_step,
    DIMS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    y = tl.load(t + place(n, size, t_at, DIMS, WIDE), mask=inside_n, other=ignore_index)
    kept = y != ignore_index
    known = kept & (y >= 0) & (y < classes)
    tl.device_assert(known | (kept == 0), "a class index is neither in [0, classes) nor ignore_index")
    weight = tl.zeros((ROWS,), tl.float64) + 1
    if w is not None:
        weight = double(tl.load(w + y * w_step, mask=known, other=0))
    # with an invalid index nothing is read, and the row becomes NaN
    spoilt = tl.where(known | (kept == 0), 0.0, float("nan")).to(tl.float64)
    if value is not None or parts is not None:
        own = x + place(n, size, x_at, DIMS, WIDE) + y * x_step
        loss = spoilt - tl.where(known, weight * double(tl.load(own, mask=known, other=0)), 0.0)  # (1)
        if value is not None:
            tl.store(value + place(n, size, value_at, DIMS, WIDE), narrow(loss, value), mask=inside_n)
        if parts is not None:
            tl.store(parts + tl.program_id(0), tl.sum(loss))
    if dx is not None:
        if g is not None:
            weight *= double(tl.load(g + place(n, size, g_at, DIMS, WIDE), mask=inside_n, other=0))
        weight *= scale
        if denominator is not None:
            weight /= tl.load(denominator)
        slope = spoilt - weight  # (2)
        for first in range(0, classes, BLOCK):
            c = first + tl.arange(0, BLOCK).to(tl.int64)
            d = tl.where((c[None, :] == y[:, None]) & known[:, None], slope[:, None], spoilt[:, None])
            at = dx + place(n, size, dx_at, DIMS, WIDE)[:, None] + (c * dx_step)[None, :]
            tl.store(at, narrow(d, dx), mask=inside_n[:, None] & (c < classes)[None, :])


def nll_loss(
    x: Tensor, t: Tensor, w: Tensor | None, g: Tensor | None, ignore_index: int, by_weight: bool, scale: float,
    reduce: bool, value: Tensor | None, dx: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/nll_loss.cpp; x must not be empty."""
    at, (x_step, dx_step), size = rows_of(x, [x, dx], [t, g, None if reduce else value])
    x_at, dx_at, t_at, g_at, value_at = at
    classes, rows = x.shape[1 if x.dim() > 1 else 0], t.numel()
    denominator = kept_weight(t, w, rows, classes, size, t_at, ignore_index) if by_weight else None
    # with one score read per row, a wide tile would be wasted
    tile, block, warps = (512, 1, 4) if dx is None else tiling(classes, dx_step, 8192)
    programs = triton.cdiv(rows, tile)
    each, parts = destination(value, reduce, programs)
    launch(
        _nll_loss, programs, x.device, x, t, w, g, denominator, each, dx, parts, rows, classes, ignore_index, scale,
        size, x_at, t_at, g_at, value_at, dx_at, x_step, None if w is None else w.stride(0), dx_step,
        DIMS=len(size), WIDE=rows >= NARROW, ROWS=tile, BLOCK=block, warps=warps,
    )  # fmt: skip
    if parts is not None:
        total(parts, value, scale, denominator)


OPS = {
    "nll_loss": (
        "(Tensor x, Tensor t, Tensor? w, Tensor? g, int ignore_index, bool by_weight, float scale, "
        "bool reduce, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
        nll_loss,
    ),
}
