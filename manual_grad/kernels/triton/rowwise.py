"""Losses of one row of class scores: strides and tiles of the rows, and the total weight of those not ignored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import NARROW, double, launch, layout, place, total


@triton.jit(do_not_specialize=["rows", "ignore_index"])
def _kept_weight(
    y, w, parts, rows, size, y_at, w_at, classes, ignore_index: tl.int64,
    DIMS: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The denominator of the mean: the total class weight of the rows that are not ignored, in partial sums."""
    start = tl.program_id(0).to(tl.int64) * CHUNK
    sums = tl.zeros((BLOCK,), tl.float64)
    for first in range(start, tl.minimum(start + CHUNK, rows), BLOCK):
        n = first + tl.arange(0, BLOCK)
        at_y = tl.load(y + place(n, size, y_at, DIMS, WIDE), mask=n < rows, other=0)
        kept = (n < rows) & (at_y != ignore_index)
        if w is not None:
            known = kept & (at_y >= 0) & (at_y < classes)
            sums += double(tl.load(w + at_y * w_at, mask=known, other=0))
        else:
            sums += tl.where(kept, 1.0, 0.0)
    tl.store(parts + tl.program_id(0), tl.sum(sums))


def rows_of(z: Tensor, scores: list[Tensor | None], singles: list[Tensor | None]) -> tuple[list, list, tuple[int, ...]]:
    """The row strides of all tensors, the class strides of ``scores``, and the sizes of the row dimensions."""
    dim = 1 if z.dim() > 1 else 0
    shape = z.shape[:dim] + z.shape[dim + 1 :]
    one_class = [None if u is None else u.select(dim, 0) for u in scores]
    singles = [None if u is None else u.reshape(()).expand(shape) if u.shape != shape else u for u in singles]
    size, at = layout(shape, [*one_class, *singles])
    return at, [None if u is None else u.stride(dim) for u in scores], size


def kept_weight(t: Tensor, w: Tensor | None, rows: int, classes: int, size, at, ignore_index: int) -> Tensor:
    chunk = 8192
    parts = t.new_empty(triton.cdiv(rows, chunk), dtype=torch.float64)
    args = t, w, parts, rows, size, at, None if w is None else w.stride(0), classes, ignore_index
    # many indices per thread, so that a program waits for memory less often
    constants = dict(DIMS=len(size), WIDE=rows >= NARROW, CHUNK=chunk, BLOCK=4096)
    launch(_kept_weight, parts.numel(), t.device, *args, warps=8, **constants)
    if parts.numel() == 1:
        return parts
    kept = parts.new_empty(())
    total(parts, kept)
    return kept


def tiling(classes: int, step: int, most: int) -> tuple[int, int, int]:
    """Rows and classes per tile, and its number of warps. The longer dimension is the one that is contiguous in memory.

    A thread has at most 16 scores and reads 16 bytes at a time. A long row has 16 warps, so that two or three rows are
    in flight per multiprocessor: one is read while the sums of another are reduced. The rows in flight on all 132
    multiprocessors of an H100, 264 to 396, fit in its 50 MB of L2 up to 32,000 float32 or 64,000 half-precision scores.
    """
    if step != 1 and classes > 1:
        block = min(triton.next_power_of_2(classes), 8)
        return 512 // block, block, 4
    block = min(triton.next_power_of_2(classes), most)
    return max(1, 512 // block), block, max(4, block // 512)
