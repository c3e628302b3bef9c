"""manual_grad's kernels: whether there are any, and switching them off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from manual_grad import kernels as _kernels


def active(device: str = "cpu") -> bool:
    return _kernels.loaded(device)


def interpreted() -> bool:
    """Whether the kernels for CUDA run on the CPU, one instance after the other."""
    return _kernels.interpreting


@contextmanager
def kernels(on: bool) -> Iterator[None]:
    before, _kernels.enabled = _kernels.enabled, on
    try:
        yield
    finally:
        _kernels.enabled = before
