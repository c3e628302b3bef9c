"""The compiled kernels: which are loaded, and which calls they serve."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# torch.backends.cpu.get_cpu_capability() -> the library built for it, best first
_LIBRARIES = {"AVX512": ("avx512", "avx2", "baseline"), "AVX2": ("avx2", "baseline")}
_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))

enabled = True  # set by `formulas_only`; read on every call


@functools.cache
def _load() -> tuple[str | None, str | None]:
    """The instruction set of the library in use, or None and the reason."""
    if os.environ.get("MANUAL_GRAD_KERNELS", "1") == "0":
        return None, "switched off by MANUAL_GRAD_KERNELS=0"
    folder = Path(__file__).parent / "cpu"
    reason = "not built: install a C++17 compiler and reinstall manual_grad"
    for isa in _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ("baseline",)):
        path = folder / f"manual_grad_{isa}.so"
        if not path.exists():
            continue
        try:
            ctypes.CDLL(str(path)).manual_grad_register()
        except (OSError, AttributeError, RuntimeError) as error:
            reason = f"{path.name} does not load ({error}); reinstall manual_grad"
            continue
        return isa, None
    return None, reason


@functools.cache
def _op(name: str) -> Any:
    if _load()[0] is None:
        return None
    op = getattr(torch.ops.manual_grad, name).default
    torch.library.register_fake(f"manual_grad::{name}")(lambda *args: None)
    return op


def op(name: str | None) -> Any:
    """The kernel of that name, or None where there is none."""
    return _op(name) if enabled and name is not None else None


def serves(*tensors: Tensor | None) -> bool:
    """Whether the CPU kernels take these tensors: one floating dtype, dense, on the CPU."""
    dtype = tensors[0].dtype
    if dtype not in _DTYPES:
        return False
    for t in tensors:
        if t is not None and not (t.is_cpu and t.dtype is dtype and t.layout is torch.strided):
            return False
    return True


def show_config() -> str:
    """Which kernels are in use."""
    isa, reason = _load()
    return f"CPU kernels: {isa or 'none'}" + (f" ({reason})" if reason else "")
