"""Kernel launches, the layout of operands in memory, and sums of partial results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Enables a device-side assertion on every index; without it, an invalid index makes its row NaN.
DEBUG = os.environ.get("MANUAL_GRAD_DEBUG", "0") == "1"
INTERPRETED = triton.knobs.runtime.interpret
NARROW = 2**31  # from this many elements on, indices need 64 bits

COMPUTE = {torch.float64: tl.float64, torch.float32: tl.float32, torch.bfloat16: tl.float32, torch.float16: tl.float32}


def launch(kernel: Any, programs: int, device: torch.device, *args: Any, warps: int = 4, **constants: Any) -> None:
    """Launch ``programs`` instances of the kernel on the device's current stream.

    Products and sums are not contracted: Triton's default differs between versions, and the interpreter in which the
    kernels are tested contracts nothing. A kernel that needs a fused operation uses ``tl.fma``.
    """
    with _on(device):
        kernel[(programs,)](*args, **constants, num_warps=warps, enable_fp_fusion=False, debug=DEBUG)


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make the device current: Triton launches on the current device, not on that of the tensors."""
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        return torch.cuda.device(device)
    return contextlib.nullcontext()


def layout(shape: Sequence[int], tensors: Sequence[Tensor | None]) -> tuple[tuple[int, ...], list[Any]]:
    """Merge dimensions where all tensors allow it; return the sizes and each tensor's strides, innermost first.

    All tensors have shape ``shape``, except those that are None.
    """
    present = [t for t in tensors if t is not None]
    if all(t.is_contiguous() for t in present):
        numel = 1
        for n in shape:
            numel *= n
        return (numel,), [None if t is None else (1,) for t in tensors]
    strides = [t.stride() for t in present]
    dims = [d for d, n in enumerate(shape) if n != 1]
    dims.sort(key=lambda d: [s[d] for s in strides])
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in present]
    for d in dims:
        if sizes and all(s[d] == step[-1] * sizes[-1] for s, step in zip(strides, steps, strict=True)):
            sizes[-1] *= shape[d]
            continue
        sizes.append(shape[d])
        for s, step in zip(strides, steps, strict=True):
            step.append(s[d])
    each = iter(tuple(step) or (1,) for step in steps)
    return tuple(sizes) or (1,), [None if t is None else next(each) for t in tensors]


@triton.jit
def place(i, size, stride, DIMS: tl.constexpr, WIDE: tl.constexpr):
    """The offsets of the elements ``i`` of a tensor with these sizes and strides, innermost dimension first.

    Offsets have 64 bits. The indices are decomposed in 32 bits if those suffice (not ``WIDE``), since a 64-bit division
    is a subroutine.
    """
    offset = i.to(tl.int64) * 0
    rest = i if WIDE or DIMS == 1 else i.to(tl.int32)
    for d in tl.static_range(DIMS):
        at = rest
        if d < DIMS - 1:
            at = rest % size[d]
            rest = rest // size[d]
        offset += at.to(tl.int64) * stride[d]
    return offset


@triton.jit
def narrow(v, result):
    """Convert to the dtype that ``result`` points to; float64 is converted to half precision via float32."""
    if v.dtype == tl.float64 and result.dtype.element_ty != tl.float64:
        v = v.to(tl.float32)
    return v.to(result.dtype.element_ty)


@triton.jit
def double(v):
    """Convert to float64; half precision is converted via float32."""
    if v.dtype == tl.bfloat16 or v.dtype == tl.float16:
        v = v.to(tl.float32)
    return v.to(tl.float64)


def destination(
    value: Tensor | None, reduces: bool | int, programs: int, compute: Any = tl.float64
) -> tuple[Tensor | None, Tensor | None]:
    """Where a kernel writes its values: ``(value, None)``, or ``(None, parts)`` with one partial sum per program.

    :func:`total` adds up the partial sums.
    """
    if value is None or not reduces:
        return value, None
    return None, value.new_empty(programs, dtype=torch.float64 if compute is tl.float64 else torch.float32)


_CHUNK = 16384  # numbers summed by one program


@triton.jit(do_not_specialize=["count"])
def _total(parts, denominator, out, count, scale: tl.float64, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * CHUNK
    sums = tl.zeros((BLOCK,), tl.float64)
    for i in range(start, tl.minimum(start + CHUNK, count), BLOCK):
        at = i + tl.arange(0, BLOCK)
        sums += double(tl.load(parts + at, mask=at < count, other=0))
    result = tl.sum(sums) * tl.full((), scale, tl.float64)
    if denominator is not None:
        result /= double(tl.load(denominator))
    tl.store(out + tl.program_id(0), narrow(result, out))


def total(parts: Tensor, out: Tensor, scale: float = 1.0, denominator: Tensor | None = None) -> None:
    """Write scale * sum(parts) / denominator to ``out``, summed in float64 and always in the same order."""
    while parts.numel() > _CHUNK:
        fewer = parts.new_empty(triton.cdiv(parts.numel(), _CHUNK), dtype=torch.float64)
        launch(_total, fewer.numel(), parts.device, parts, None, fewer, parts.numel(), 1.0, CHUNK=_CHUNK, BLOCK=1024)
        parts = fewer
    args = parts, denominator, out, parts.numel(), scale
    launch(_total, 1, parts.device, *args, CHUNK=_CHUNK, BLOCK=1024)
