"""The compiled kernels: which are loaded, and which calls they serve."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import manual_grad

_FOLDER = Path(__file__).parent / "cpu"
# torch.backends.cpu.get_cpu_capability() -> the libraries that run there, best first
_LIBRARIES = {"AVX512": ("avx512", "avx2", "baseline"), "AVX2": ("avx2", "baseline")}
REDUCTION = {"none": 0, "mean": 1, "sum": 2}  # as kernels/cpu/ops.h numbers them
_DENSE = torch.strided
_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))

enabled = True  # read on every call; set it to False to run the formulas


@functools.cache
def _load() -> tuple[str | None, str | None]:
    """The instruction set of the library in use, or None and the reason."""
    if os.environ.get("MANUAL_GRAD_KERNELS", "1") == "0":
        return None, "switched off by MANUAL_GRAD_KERNELS=0"
    note = _FOLDER / "not_built.txt"  # left by setup.py where it had to go without kernels
    if note.exists():
        why = note.read_text().strip()
        reason = f"{why}; install a C++17 compiler (g++ or clang++), then reinstall manual_grad from its sources"
    else:
        reason = "not built in this source tree; pip install -e . builds them"
    for isa in _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ("baseline",)):
        library = _FOLDER / f"manual_grad_{isa}.so"
        if not library.exists():
            continue
        try:
            register = ctypes.CDLL(str(library)).manual_grad_register
            register.restype = ctypes.c_char_p
            error = register()
        except (OSError, AttributeError) as cause:
            error = str(cause).encode()
        if error is None:
            return isa, None
        reason = f"{library.name} does not load ({error.decode()}); reinstall manual_grad"
    return None, reason


@functools.cache
def _op(name: str) -> Any:
    if _load()[0] is None:
        return None
    overload = getattr(torch.ops.manual_grad, name).default
    fake = _pointwise_results if overload._schema.returns else lambda *args: None
    torch.library.register_fake(f"manual_grad::{name}")(fake)
    return overload._op  # what calling the overload calls


def _pointwise_results(x: Tensor, t: Tensor, a: Any, w: Any, *rest: Any) -> tuple[Tensor | None, ...]:
    """What a pointwise kernel returns, without its values."""
    *_, reduce, value, dx, dt, da, dw = rest
    loss = (x.new_empty(()) if reduce else torch.empty_like(x)) if value else None
    wanted = zip((x, t, a, w), (dx, dt, da, dw), strict=True)
    return loss, *(torch.empty_like(u) if want else None for u, want in wanted)


def op(name: str | None, *tensors: Tensor | None) -> Any:
    """The kernel of that name, or None where there is none for these tensors: one floating dtype, dense, on the CPU."""
    kernel = _op(name) if enabled and name is not None else None
    if kernel is None or not tensors:
        return kernel
    dtype = tensors[0].dtype
    if dtype not in _DTYPES:
        return None
    for t in tensors:
        if t is not None and not (t.is_cpu and t.dtype is dtype and t.layout is _DENSE):
            return None
    return kernel


def show_config() -> str:
    """Versions, the kernels in use or why there are none, and threads: one line each, for people and bug reports.

    The CPU kernels are built for several instruction sets, and torch's choice decides (``ATEN_CPU_CAPABILITY`` lowers
    it, for the kernels too); ``MANUAL_GRAD_KERNELS=0`` switches them off.
    """
    isa, reason = _load() if enabled else (None, "switched off in this context")
    built = ", ".join(sorted(path.stem.removeprefix("manual_grad_") for path in _FOLDER.glob("manual_grad_*.so")))
    cpu = f"none, losses run from their formulas: {reason}" if isa is None else f"{isa} (built: {built})"
    rows = {
        "manual_grad": manual_grad.__version__,
        "torch": torch.__version__,
        "Python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "CPU kernels": cpu,
        "CPU threads": torch.get_num_threads(),
        "GPU kernels": "none yet, losses run from their formulas",
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())
