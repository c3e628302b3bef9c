"""Losses of two or three feature vectors: strides of the rows, and tiles of their components.

A program processes a tile of rows. It loops over the components in blocks, once for each sum that depends on the
previous one; only the first pass reads from memory. Everything is computed in float64, even for half precision: sums
over a long vector exceed the range or the precision of float32, and float64 is affordable, since an H100 moves two or
three numbers for a dozen operations.
"""

from __future__ import annotations

import triton
from torch import Tensor


def row_stride(u: Tensor | None, dim: int) -> int | None:
    """The stride between rows of a tensor that has ``dim`` dimensions if it has rows; 0 if all rows share one."""
    if u is None:
        return None
    return u.stride(0) if u.dim() == dim and u.numel() > 1 else 0


def step(u: Tensor | None) -> int | None:
    """The stride between components."""
    return None if u is None else u.stride(-1)


def tiling(length: int, most: int = 1024) -> tuple[int, int]:
    """Rows and components per tile: at most 8 elements per thread of four warps, 16 bytes in half precision."""
    block = min(triton.next_power_of_2(max(length, 1)), most)
    return max(1, 512 // block), block
