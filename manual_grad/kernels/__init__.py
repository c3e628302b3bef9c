"""Loading and lookup of the kernels, which are in C++ for the CPU and in Triton for CUDA."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import manual_grad
from manual_grad.engine import torch_private
from manual_grad.engine.dtypes import INTEGERS

_FOLDER = Path(__file__).parent / "cpu"
# torch.backends.cpu.get_cpu_capability() -> the libraries that can run, best first
_LIBRARIES = {"AVX512": ("avx512", "avx2", "baseline"), "AVX2": ("avx2", "baseline")}
_BUILD_ALL = "MANUAL_GRAD_INSTRUCTION_SETS=all pip install -e ."
_DENSE = torch.strided
_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))

_CAPABILITY = (8, 0)  # the lowest compute capability for which the tests compile the Triton kernels
_CHOICE = os.environ.get("MANUAL_GRAD_KERNELS", "1")

_ON: ContextVar[bool] = ContextVar("manual_grad.kernels", default=True)
on = _ON.get  # whether kernels are used in this context, that is, in this thread or asyncio task
interpreting = _CHOICE == "triton"  # for tests: run the Triton kernels on CPU tensors in Triton's interpreter


@contextlib.contextmanager
def switched(to: bool) -> Iterator[None]:
    """Context manager that selects kernels (True) or formulas (False). Backward uses what its forward used."""
    token = _ON.set(to)
    try:
        yield
    finally:
        _ON.reset(token)


def _built() -> list[str]:
    return sorted(path.stem.removeprefix("manual_grad_") for path in _FOLDER.glob("manual_grad_*.so"))


@functools.cache
def _load() -> tuple[str | None, str | None]:
    """Load the CPU library; return its instruction set, or None and the reason."""
    if _CHOICE != "1":
        return None, f"switched off by MANUAL_GRAD_KERNELS={_CHOICE}"
    note = _FOLDER / "not_built.txt"  # written by setup.py if it could not build the kernels
    if note.exists():
        why = note.read_text(encoding="utf-8").strip()
        reason = f"{why}; install a C++17 compiler (g++ or clang++), then reinstall manual_grad from its sources"
    else:
        reason = "not built in this source tree; pip install -e . builds them"
    usable = _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ("baseline",))
    if _built() and not set(_built()).intersection(usable):
        reason = f"torch chooses {usable[0]} here, and only {', '.join(_built())} is built; {_BUILD_ALL} builds all"
    for isa in usable:
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
def _load_triton() -> tuple[str | None, str | None]:
    """Load the Triton kernels; return Triton's version, or None and the reason. Tracing needs them without a device."""
    if _CHOICE == "0":
        return None, "switched off by MANUAL_GRAD_KERNELS=0"
    if torch.version.hip is not None:
        return None, "they are for CUDA"
    if torch.cuda.is_available():
        devices = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
        if min(devices) < _CAPABILITY:
            return None, "a device has a compute capability below {}.{}".format(*_CAPABILITY)
    try:
        import triton

        from manual_grad.kernels import triton as kernels
    except ImportError as cause:
        return None, f"Triton is not importable ({cause})"
    if interpreting and not kernels.INTERPRETED:
        return None, "MANUAL_GRAD_KERNELS=triton also needs TRITON_INTERPRET=1"
    _load()  # must come first: the C++ library defines its ops unconditionally
    kernels.register("CUDA", *(["CPU"] if interpreting else []))
    return triton.__version__, None


# functools.cache may call a function from two threads at once, and torch 2.10 rejects a second registration
_LOCK = threading.Lock()


@functools.cache
def _op(name: str, device: str) -> Any:
    with _LOCK:
        if not loaded(device) or not hasattr(torch.ops.manual_grad, name):
            return None
        overload = getattr(torch.ops.manual_grad, name).default
        if not torch_private.has_implementation(f"manual_grad::{name}", device.upper()):
            return None
        _fake(name, len(overload._schema.returns))
        return torch_private.call_of(overload)


@functools.cache
def _fake(name: str, results: int) -> None:
    torch.library.register_fake(f"manual_grad::{name}")(_pointwise_results(results) if results else lambda *args: None)


def _pointwise_results(count: int) -> Callable[..., tuple[Tensor | None, ...]]:
    """A fake implementation of a pointwise kernel: the loss and the gradients of inputs and weight, without values."""

    def results(*args: Any) -> tuple[Tensor | None, ...]:
        x, (reduce, value, *wanted) = args[0], args[-count - 1 :]
        loss = (x.new_empty(()) if reduce else torch.empty_like(x)) if value else None
        return loss, *(torch.empty_like(u) if want else None for u, want in zip(args, wanted, strict=False))

    return results


def loaded(device: str = "cpu") -> bool:
    """Whether the kernels for a device type are loaded and not switched off."""
    load = _load if device == "cpu" and not interpreting else _load_triton
    return on() and load()[0] is not None


def available(name: str, device: str = "cpu") -> bool:
    """Whether there is a kernel of that name for a device type."""
    return on() and _op(name, device) is not None


def op(name: str | None, first: Tensor | None = None, *others: Tensor | None) -> Any:
    """The kernel of that name, or None unless the tensors are dense and share a device and a supported dtype.

    Integer tensors (labels, lengths) may have any dtype.
    """
    if name is None or not on():
        return None
    if first is None:
        return _op(name, "cpu")
    dtype = first.dtype
    if dtype not in _DTYPES or first.layout is not _DENSE:
        return None
    if first.is_cpu:
        for t in others:
            if t is not None and not (t.is_cpu and t.layout is _DENSE and (t.dtype is dtype or t.dtype in INTEGERS)):
                return None
        return _op(name, "cpu")
    if not first.is_cuda:
        return None
    for t in others:
        if t is not None and not (
            t.device == first.device and t.layout is _DENSE and (t.dtype is dtype or t.dtype in INTEGERS)
        ):
            return None
    return _op(name, "cuda")


def show_config() -> str:
    """Describe versions, the kernels in use (or why there are none) and threads, one line each; for bug reports.

    The CPU kernels of a wheel are built for several instruction sets, those of an editable install for this processor
    only. The one used follows torch's choice, so ``ATEN_CPU_CAPABILITY`` also applies to the kernels.
    ``MANUAL_GRAD_KERNELS=0`` switches all kernels off. The kernels for CUDA devices need Triton.
    """
    isa, reason = _load() if on() else (None, "switched off in this context")
    cpu = f"none, losses run from their formulas: {reason}" if isa is None else f"{isa} (built: {', '.join(_built())})"
    version, reason = _load_triton() if on() else (None, "switched off in this context")
    if version is None:
        gpu = f"none, losses run from their formulas: {reason}"
    elif interpreting:
        cpu = gpu = f"Triton {version}, interpreted"
    else:
        devices = {torch.cuda.get_device_name(i): None for i in range(torch.cuda.device_count())}
        gpu = f"Triton {version}, on {', '.join(devices) or 'no device: torch finds none here'}"
    rows = {
        "manual_grad": manual_grad.__version__,
        "torch": torch.__version__,
        "Python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "CPU kernels": cpu,
        "CPU threads": torch.get_num_threads(),
        "GPU kernels": gpu,
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())
