"""manual_grad's kernels: whether there are any, and switching them off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from manual_grad import kernels as _kernels


def active() -> bool:
    return _kernels.enabled and _kernels._load()[0] is not None


@contextmanager
def kernels(on: bool) -> Iterator[None]:
    before, _kernels.enabled = _kernels.enabled, on
    try:
        yield
    finally:
        _kernels.enabled = before
