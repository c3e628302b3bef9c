"""How two tensors are compared, and how a comparison proves that it compares anything at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Compared(NamedTuple):
    """The entries of a comparison that failed; ``excess`` is the error of each over the error ``allowed``.

    ``tensors`` are the inputs of the call. ``others`` are what the result may have been mistaken for.
    """

    got: Numbers
    expected: Numbers
    excess: Numbers
    allowed: Numbers
    tensors: Mapping[str, Tensor] = MappingProxyType({})
    others: Mapping[str, Tensor] = MappingProxyType({})


class Result(NamedTuple):
    """One verdict. ``error`` and ``bound`` are in eps of ``dtype``; an error of infinity has its reason in ``message``.

    ``note`` marks what could not be asked (no device, nothing to compare with): neither passed nor failed.
    ``relation`` says what a wrong result is to the right one. ``drawing`` has the numbers of a picture: the ``cells``
    of a map of the error, or the slopes ``left`` and ``right`` of a kink and that of the ``rule``. ``compared`` is
    there until the relation and the map have been made of it.
    """

    what: str
    error: float = 0.0
    bound: float = 0.0
    message: str = ""
    note: bool = False
    loss: str = ""
    check: str = ""
    case: str = ""
    sample: str = ""
    dtype: str = "float64"
    peer_error: float | None = None
    relation: str = ""
    drawing: dict[str, Any] | None = None
    compared: Compared | None = None

    @property
    def ok(self) -> bool:
        return isfinite(self.error) and self.error <= self.bound


def passed(what: str) -> Result:
    return Result(what)


def failed(what: str, message: str) -> Result:
    return Result(what, float("inf"), 0.0, message)


def noted(what: str, message: str) -> Result:
    return Result(what, message=message, note=True)


def expect(what: str, condition: Any, message: str) -> Result:
    return passed(what) if condition else failed(what, message)


def compare(
    what: str,
    actual: Tensor | None,
    expected: Tensor | None,
    bound: float,
    *,
    dtype: torch.dtype = torch.float64,
    scale: Tensor | None = None,
    noise: float = 0.0,
    nan: bool = False,
) -> Result:
    """Whether ``actual`` is within ``bound`` eps of ``dtype`` of ``expected``.

    The error is the largest difference over the largest expected entry; with ``scale`` it is componentwise, each
    difference over the entry of ``scale`` (but no less than the smallest normal number, below which a dtype has fewer
    digits). What is below ``noise`` on both sides is the rounding of a zero. A NaN is an error, and equals a NaN only
    where the caller says so. What is accepted has passed its canaries.
    """
    tag = str(dtype).removeprefix("torch.")
    if actual is None or expected is None:
        if actual is expected:
            return passed(what)
        present = expected if actual is None else actual
        if actual is None and not present.any():
            return passed(what)  # autograd's None stands for zero
        message = f"got {_kind(actual)}, expected {_kind(expected)}"
        return Result(what, float("inf"), bound, message, dtype=tag)
    if actual.shape != expected.shape:
        message = f"has shape {list(actual.shape)}, expected {list(expected.shape)}"
        return Result(what, float("inf"), bound, message, dtype=tag)
    a, b, s = numbers(actual), numbers(expected), None if scale is None else numbers(scale)
    if noise:
        a, b = (np.where(np.abs(t) <= noise, 0.0, t) for t in (a, b))
    with np.errstate(all="ignore"):
        error = _distance(a, b, dtype, s, nan)
        if not error <= bound:
            compared = _entries(a, b, bound, dtype, s, nan)
            return Result(what, error, bound, explain(compared), dtype=tag, compared=compared)
        for name, wrong in () if s is None and _tight(b, bound, dtype) else canaries(a, b, dtype):
            if _distance(wrong, b, dtype, s, nan) <= bound:
                message = f"the comparison is vacuous: {name} would pass a bound of {bound:.3g} eps"
                return Result(what, float("inf"), bound, message, dtype=tag)
    return Result(what, error, bound, dtype=tag)


def _kind(t: Tensor | None) -> str:
    return "None" if t is None else f"a tensor of shape {list(t.shape)}"


def distance(a: Tensor, b: Tensor, dtype: torch.dtype, scale: Tensor | None = None, nan: bool = False) -> float:
    """The error of ``a`` against ``b`` in eps of ``dtype``; infinite where only one is finite, or a NaN is not due."""
    with np.errstate(all="ignore"):
        return _distance(numbers(a), numbers(b), dtype, None if scale is None else numbers(scale), nan)


def numbers(t: Tensor) -> Numbers:
    """What is compared: NumPy takes a fraction of torch's time for arrays this small."""
    return t.detach().to("cpu", torch.float64).numpy(force=True)  # autograd may have a zero without memory


def _distance(a: Numbers, b: Numbers, dtype: torch.dtype, scale: Numbers | None, nan: bool) -> float:
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        same = (a == b) | (np.isnan(a) & np.isnan(b) & nan)
        if not (finite | same).all():
            return float("inf")
        a, b, scale = a[finite], b[finite], None if scale is None else scale[finite]
    if a.size == 0:
        return 0.0
    info = torch.finfo(dtype)
    difference = np.abs(a - b)
    if scale is not None:
        return float((difference / np.maximum(np.abs(scale), info.tiny)).max()) / info.eps
    worst = float(difference.max())
    return 0.0 if worst == 0 else worst / max(float(np.abs(b).max()), info.tiny) / info.eps


def bitwise_equal(a: Tensor, b: Tensor) -> bool:
    def bits(t: Tensor) -> Tensor:
        return t.detach().contiguous().flatten().view(torch.uint8)

    return a.shape == b.shape and a.dtype is b.dtype and torch.equal(bits(a), bits(b))


def canaries(a: Numbers, b: Numbers, dtype: torch.dtype) -> Iterator[tuple[str, Numbers]]:
    """Wrong answers that no comparison may accept."""
    if a.size == 0:
        return
    finite = np.isfinite(b)
    if b[finite].any():
        yield "0 instead", np.zeros_like(a)
        # one step of bfloat16 is 0.8 %, so that 1.01x is within its rounding
        factor = 1.01 if torch.finfo(dtype).eps < 1e-4 else 1.1
        yield f"{factor} times it", np.where(finite, a * factor, a)
    else:
        yield "1 more", a + 1 if finite.any() else np.ones_like(a)


def _tight(b: Numbers, bound: float, dtype: torch.dtype) -> bool:
    """Whether no canary passes anyway, relative to the largest entry: a is within 0.4 % of it, and 1.01 a is not."""
    info = torch.finfo(dtype)
    return bound * info.eps <= 0.004 and info.tiny <= np.abs(b).max(initial=0.0) < np.inf


def _entries(a: Numbers, b: Numbers, bound: float, dtype: torch.dtype, scale: Numbers | None, nan: bool) -> Compared:
    info = torch.finfo(dtype)
    size = np.abs(b)[np.isfinite(b)].max(initial=0.0) if scale is None else np.abs(scale)
    allowed = np.broadcast_to(bound * info.eps * np.maximum(size, info.tiny), b.shape)
    same = (a == b) | (np.isnan(a) & np.isnan(b) & nan)
    excess = np.where(same, 0.0, np.nan_to_num(np.abs(a - b) / allowed, nan=np.inf, posinf=np.inf))
    return Compared(a, b, excess, allowed)


def explain(compared: Compared) -> str:
    """Where the result is worst."""
    a, b = compared.got, compared.expected
    where = tuple(int(i) for i in np.unravel_index(int(compared.excess.argmax()), a.shape))
    at = f"at {list(where)}: " if where else ""
    return f"{at}got {a[where]:.9g}, expected {b[where]:.9g}"
