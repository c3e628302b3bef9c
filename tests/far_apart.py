"""Tensors with strides beyond 32 bits, in virtual memory of which only the touched pages exist."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from gradcheck.checks.again import again
from gradcheck.spec import Settings
from manual_grad import specs

NEAR, FAR = 101, (1 << 30) + 101  # in elements: FAR fits into an int32, three times FAR does not
ON_DEMAND = getattr(mmap, "MAP_NORESERVE", 0x4000) if hasattr(mmap, "MAP_PRIVATE") else 0


def spread(t: Tensor, dim: int, step: int) -> Tensor:
    """A copy whose elements along one dimension are ``step`` elements apart."""
    strides = list(t.contiguous().stride())
    strides[dim] = step
    length = sum(s * (n - 1) for s, n in zip(strides, t.shape, strict=True)) + 1
    memory = mmap.mmap(-1, length * t.element_size(), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | ON_DEMAND)
    return torch.frombuffer(memory, dtype=t.dtype).as_strided(t.shape, strides).copy_(t)


def check(name: str, sample: str | None = None, **options: object) -> int:
    """Check that results do not depend on the strides of the arguments; return the number of comparisons."""
    spec = specs.load(name)
    params = {**spec.params[0], "reduction": "none", **options}
    case = spec.case(Settings(), sample, params, dtype=torch.float32)
    g = case.upstream(case.call())
    count = 0
    for dim in range(max(t.dim() for t in case.tensors.values())):
        results = []
        for step in (NEAR, FAR):
            moved = {k: spread(t, dim, step) for k, t in case.tensors.items() if dim < t.dim() and t.numel()}
            upstream = spread(g, dim, step) if dim < g.dim() else g
            value, gradients = case.at(moved).differentiate(g=upstream)
            results.append([value, *gradients.values()])
        count += sum(t.shape[dim] > 2 for t in moved.values())
        for near, far in zip(*results, strict=True):
            assert again("", near, far, case).ok
    return count
