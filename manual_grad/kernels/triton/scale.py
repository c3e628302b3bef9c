"""Multiply a gradient by its upstream scalar in place, without synchronizing to read the scalar."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, launch

_BLOCK = 1024
_PROGRAMS = 1024  # enough to fill a device; no more, since they cost time even if the scalar is 1


@triton.jit
def _kernel(d, g, numel, T: tl.constexpr, BLOCK: tl.constexpr):
    up = tl.load(g).to(T)
    if up != 1:
        step = tl.num_programs(0).to(tl.int64) * BLOCK
        for start in range(tl.program_id(0).to(tl.int64) * BLOCK, numel, step):
            i = start + tl.arange(0, BLOCK)
            scaled = tl.load(d + i, mask=i < numel).to(T) * up
            tl.store(d + i, scaled.to(d.dtype.element_ty), mask=i < numel)


def scale_(d: Tensor, g: Tensor) -> None:
    """Multiply ``d`` by the scalar ``g``. ``d`` must be dense, with its dimensions in any order."""
    numel = d.numel()
    if numel:
        programs = min(triton.cdiv(numel, _BLOCK), _PROGRAMS)
        launch(_kernel, programs, d.device, d, g, numel, T=COMPUTE[d.dtype], BLOCK=_BLOCK)


OPS = {"scale_": ("(Tensor(a!) d, Tensor g) -> ()", scale_)}
