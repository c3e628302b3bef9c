"""Multi-class and multi-label margin losses. Notation as in the chapters of losses/rowwise.

The classes of a row are compared with its labels, one label at a time; there is one label, or as many as precede the
first -1. The first pass over the classes sums the loss and computes the slopes of all classes that are not labels. The
slope of a label is minus the sum of the slopes it causes. With a single label, the same pass yields that sum. With many
labels it takes a second pass, which needs the number of times that each class is a label; the first pass stores it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, NARROW, destination, double, launch, place, total
from manual_grad.kernels.triton.rowwise import rows_of, tiling


@triton.jit
def _compared(xs, own, stands, margin, SQUARED: tl.constexpr):
    """Margin violation of each score to its power, and the slope; 0 for classes that do not stand against the label."""
    h = (xs - own[:, None]) + margin  # (1)
    excess = tl.where(stands & ((h <= 0) == 0), h, 0.0)  # keeps NaN
    if SQUARED:
        slope = excess + excess
        excess *= excess
    else:
        slope = tl.where(excess > 0, 1.0, excess)
    return excess, slope


@triton.jit
def _label(x, t, k, count, x_step, t_step, T: tl.constexpr):
    """The k-th label of each row (-1 if there is none), its score, and whether there is one."""
    has = k < count
    y = tl.load(t + k * t_step, mask=has, other=-1)
    return y, tl.load(x + y * x_step, mask=has, other=0).to(T), has


@triton.jit(do_not_specialize=["rows"])
def _class_margin(
    x, t, w, g, value, dx, counts, parts, rows, classes, margin: tl.float64, per_class: tl.float64, scale: tl.float64,
    size, x_at, t_at, g_at, value_at, dx_at, x_step, t_step, w_step, dx_step,
    MANY: tl.constexpr, SQUARED: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    margin = tl.full((), margin, T)
    of_x, of_t = x + place(n, size, x_at, DIMS, WIDE), t + place(n, size, t_at, DIMS, WIDE)
    if MANY:
        count, bad = n * 0 + classes, n < 0
        for first in range(0, classes, BLOCK):
            c = first + tl.arange(0, BLOCK).to(tl.int64)
            inside = inside_n[:, None] & (c < classes)[None, :]
            labels = tl.load(of_t[:, None] + (c * t_step)[None, :], mask=inside, other=0)
            count = tl.minimum(count, tl.min(tl.where(labels < 0, c[None, :], classes), 1))
            bad |= tl.max(tl.where((labels < -1) | (labels >= classes), 1, 0), 1) > 0
    else:
        y = tl.load(of_t, mask=inside_n, other=0)
        count, bad = n * 0 + 1, (y < 0) | (y >= classes)
    tl.device_assert(bad == 0, "a label is not in [0, classes)")
    # with an invalid index nothing is read, and the row becomes NaN
    count = tl.where(inside_n & (bad == 0), count, 0)
    most = tl.max(count, 0)
    spoilt = tl.where(bad, float("nan"), 0.0).to(T)

    share = tl.full((ROWS,), per_class, tl.float64)
    if w is not None:
        y = tl.load(of_t, mask=count > 0, other=0)
        share *= double(tl.load(w + y * w_step, mask=count > 0, other=0))
    up = share * tl.full((), scale, tl.float64)
    if g is not None:
        up *= double(tl.load(g + place(n, size, g_at, DIMS, WIDE), mask=inside_n, other=0))
    share, up = share.to(T), up.to(T)

    loss, received = spoilt, tl.zeros((ROWS,), T)
    for first in range(0, classes, BLOCK):
        c = first + tl.arange(0, BLOCK).to(tl.int64)
        inside = inside_n[:, None] & (c < classes)[None, :]
        xs = tl.load(of_x[:, None] + (c * x_step)[None, :], mask=inside, other=0).to(T)
        times = tl.zeros((ROWS, BLOCK), tl.int32)
        losses, slopes = tl.zeros((ROWS, BLOCK), T), tl.zeros((ROWS, BLOCK), T)
        for k in range(0, most):
            y, own, has = _label(of_x, of_t, k, count, x_step, t_step, T)
            times += tl.where(c[None, :] == y[:, None], 1, 0)
            excess, slope = _compared(xs, own, has[:, None], margin, SQUARED)
            losses += excess
            slopes += slope
        others = inside & (times == 0)
        loss += tl.sum(tl.where(others, losses, 0.0), 1)
        if dx is not None:
            d = tl.where(slopes == 0, 0.0, up[:, None] * slopes) + spoilt[:, None]
            at = dx + place(n, size, dx_at, DIMS, WIDE)[:, None] + (c * dx_step)[None, :]
            tl.store(at, d.to(dx.dtype.element_ty), mask=inside)  # overwritten for labels below
            if MANY:
                tl.store(counts + (n * classes)[:, None] + c[None, :], times, mask=inside)
            else:
                received += tl.sum(tl.where(others, slopes, 0.0), 1)
    loss = tl.where(loss == 0, 0.0, loss * share)  # a loss of 0 stays 0 even if its weight is infinite
    if value is not None:
        tl.store(value + place(n, size, value_at, DIMS, WIDE), loss.to(value.dtype.element_ty), mask=inside_n)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(tl.where(inside_n, loss, 0.0)))

    if dx is not None:
        tl.debug_barrier()  # what this thread reads or overwrites may have been written by another
        for k in range(0, most):
            y, own, has = _label(of_x, of_t, k, count, x_step, t_step, T)
            if MANY:
                received = tl.zeros((ROWS,), T)
                for first in range(0, classes, BLOCK):
                    c = first + tl.arange(0, BLOCK).to(tl.int64)
                    inside = has[:, None] & (c < classes)[None, :]
                    times = tl.load(counts + (n * classes)[:, None] + c[None, :], mask=inside, other=1)
                    xs = tl.load(of_x[:, None] + (c * x_step)[None, :], mask=inside, other=0).to(T)
                    received += tl.sum(_compared(xs, own, times == 0, margin, SQUARED)[1], 1)
                received *= tl.load(counts + n * classes + y, mask=has, other=0).to(T)
            # a repeated label writes the same value again
            at = dx + place(n, size, dx_at, DIMS, WIDE) + y * dx_step
            tl.store(at, tl.where(received == 0, 0.0, -up * received).to(dx.dtype.element_ty), mask=has)


def class_margin(
    x: Tensor, t: Tensor, w: Tensor | None, g: Tensor | None, power: int, margin: float, scale: float,
    reduce: bool, value: Tensor | None, dx: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/class_margin.cpp; there must be at least one class."""
    many = t.dim() == x.dim()
    scores = [x, dx, t if many else None]
    at, (x_step, dx_step, t_step), size = rows_of(x, scores, [None if many else t, g, None if reduce else value])
    classes, rows = x.shape[-1], x.shape[:-1].numel()
    if rows == 0:
        if value is not None and reduce:
            value.fill_(0 * scale)
        return
    # with many labels, four values are held per score of the tile
    tile, block, warps = tiling(classes, x_step, 512 if many else 1024)
    programs, compute = triton.cdiv(rows, tile), COMPUTE[x.dtype]
    each, parts = destination(value, reduce, programs, compute)
    counts = x.new_empty((rows, classes), dtype=torch.int32) if many and dx is not None else None
    launch(
        _class_margin, programs, x.device, x, t, w, g, each, dx, counts, parts, rows, classes, margin, 1 / classes,
        scale, size, at[0], at[2] if many else at[3], at[4], at[5], at[1],
        x_step, t_step if many else 0, None if w is None else w.stride(0), dx_step,
        MANY=many, SQUARED=power == 2, T=compute, DIMS=len(size), WIDE=rows >= NARROW,
        ROWS=tile, BLOCK=block, warps=warps,
    )  # fmt: skip
    if parts is not None:
        total(parts, value, scale)


OPS = {
    "class_margin": (
        "(Tensor x, Tensor t, Tensor? w, Tensor? g, int power, float margin, float scale, "
        "bool reduce, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
        class_margin,
    ),
}
