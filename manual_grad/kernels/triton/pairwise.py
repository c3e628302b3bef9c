"""Losses of two or three feature vectors: where the vectors of a row are, and the tiles of their components.

A program takes a tile of rows and walks over the components in blocks, again for each sum that needs the one before;
only the first walk goes to memory. Everything is computed in float64, for halves too: sums over a long vector leave
float's range or its digits, and for a dozen operations of an H100 two or three numbers are moved.
"""

from __future__ import annotations

import triton
from torch import Tensor


def row_stride(u: Tensor | None, dim: int) -> int | None:
    """From one row to the next, of a tensor that has ``dim`` dimensions if it has rows; 0 where all share one."""
    if u is None:
        return None
    return u.stride(0) if u.dim() == dim and u.numel() > 1 else 0


def step(u: Tensor | None) -> int | None:
    """From one component to the next."""
    return None if u is None else u.stride(-1)


def tiling(length: int, most: int = 1024) -> tuple[int, int]:
    """Rows and components in a tile: at most 8 for each thread of four warps, which in halves are 16 bytes."""
    block = min(triton.next_power_of_2(max(length, 1)), most)
    return max(1, 512 // block), block
