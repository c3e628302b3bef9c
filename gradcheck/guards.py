"""Tensors with a band of known bytes on either side: a write out of bounds shows there, a read spoils the result.

Every byte of a band is 0xFF: a NaN in any floating point dtype, and -1 in any other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

BAND = 4096  # bytes: the alignment of a tensor stays what it is
PATTERN = 0xFF


class Guard(NamedTuple):
    """The bytes of a tensor and its bands; the tensor's own are those from ``BAND`` to ``-BAND``."""

    memory: Tensor
    shape: torch.Size

    @property
    def broken(self) -> str | None:
        """Where its bands have been written to."""
        for side, band in (("before", self.memory[:BAND]), ("behind", self.memory[-BAND:])):
            written = (band != PATTERN).nonzero()
            if len(written):
                offset = BAND - int(written[-1]) if side == "before" else int(written[0]) + 1
                return f"byte {offset} {side} a tensor of shape {list(self.shape)} was written to"
        return None


class Guards(TorchDispatchMode):
    """While it is on, every new tensor that Python gets from torch has its bands.

    Memory that a kernel's own C++ code allocates is out of sight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Guard] = {}  # by the address of the memory

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if len(returns) == 1:
            return self._fresh(result, returns[0])
        if isinstance(result, tuple):
            return tuple(self._fresh(t, returned) for t, returned in zip(result, returns, strict=True))
        return result

    def _fresh(self, result: Any, returned: Any) -> Any:
        if type(result) is not Tensor or returned.alias_info is not None:
            return result
        return self.around(result)

    def around(self, t: Tensor) -> Tensor:
        """The same tensor in memory with bands, or, if it has no memory of its own kind, as it is."""
        if t.layout is not torch.strided or t.device.type == "meta" or not t.numel() or torch._is_functional_tensor(t):
            return t
        extent = 1 + sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
        size = extent * t.element_size()
        memory = torch.full((size + 2 * BAND,), PATTERN, dtype=torch.uint8, device=t.device)
        # a storage that begins with the tensor: autograd takes new memory for what was written in place to a view, and
        # looks for the view from offset 0 on
        dense = torch.from_dlpack(memory[BAND:].view(t.dtype))
        dense[:extent].copy_(t.as_strided((extent,), (1,)))
        guarded = torch.empty(0, dtype=t.dtype, device=t.device)
        guarded.set_(dense.untyped_storage(), 0, t.shape, t.stride())
        self.kept[memory.untyped_storage().data_ptr()] = Guard(memory, t.shape)
        return guarded

    def broken(self) -> list[str]:
        return [message for guard in self.kept.values() if (message := guard.broken)]
