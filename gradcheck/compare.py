"""How two tensors are compared, and how a comparison proves that it compares anything at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Result:
    """One verdict. ``error`` and ``bound`` are in eps of ``dtype``; an error of infinity has its reason in ``message``.

    ``note`` marks what could not be asked (no device, nothing to compare with): neither passed nor failed.
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
        return Result(what, float("inf"), bound, "is missing" if actual is None else "was not expected", dtype=tag)
    if actual.shape != expected.shape:
        message = f"has shape {list(actual.shape)}, expected {list(expected.shape)}"
        return Result(what, float("inf"), bound, message, dtype=tag)
    a, b = (t.detach().to("cpu", torch.float64) for t in (actual, expected))
    a, b = (t.where(~(t.abs() <= noise), 0.0) for t in (a, b))
    s = None if scale is None else scale.detach().to("cpu", torch.float64)
    error = distance(a, b, dtype, s, nan)
    if not error <= bound:
        return Result(what, error, bound, explain(a, b, s), dtype=tag)
    for name, wrong in canaries(a, b, dtype):
        if distance(wrong, b, dtype, s, nan) <= bound:
            message = f"the comparison is vacuous: {name} would pass a bound of {bound:.3g} eps"
            return Result(what, float("inf"), bound, message, dtype=tag)
    return Result(what, error, bound, dtype=tag)


def distance(a: Tensor, b: Tensor, dtype: torch.dtype, scale: Tensor | None = None, nan: bool = False) -> float:
    """The error of ``a`` against ``b`` in eps of ``dtype``; infinite where only one is finite, or a NaN is not due."""
    finite = a.isfinite() & b.isfinite()
    same = (a == b) | (a.isnan() & b.isnan() if nan else torch.zeros_like(finite))
    if not (finite | same).all():
        return float("inf")
    if not finite.any():
        return 0.0
    info = torch.finfo(dtype)
    difference = (a - b).abs()[finite]
    if scale is not None:
        return (difference / scale.abs()[finite].clamp_min(info.tiny)).max().item() / info.eps
    size = b.abs()[finite].max().item()
    worst = difference.max().item()
    return 0.0 if worst == 0 else worst / max(size, info.tiny) / info.eps


def bitwise_equal(a: Tensor, b: Tensor) -> bool:
    def bits(t: Tensor) -> Tensor:
        return t.detach().contiguous().flatten().view(torch.uint8)

    return a.shape == b.shape and a.dtype is b.dtype and torch.equal(bits(a), bits(b))


def canaries(a: Tensor, b: Tensor, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Wrong answers that no comparison may accept."""
    if a.numel() == 0:
        return
    finite = b.isfinite()
    if (b[finite] != 0).any():
        yield "0 instead", torch.zeros_like(a)
        # one step of bfloat16 is 0.8 %, so that 1.01x is within its rounding
        factor = 1.01 if torch.finfo(dtype).eps < 1e-4 else 1.1
        yield f"{factor} times it", torch.where(finite, a * factor, a)
    else:
        yield "1 more", a + 1 if finite.any() else torch.ones_like(a)
    if not b.isnan().any():
        yield "NaN", torch.full_like(a, float("nan"))


def explain(a: Tensor, b: Tensor, scale: Tensor | None = None) -> str:
    """Where ``a`` is worst, and, if there is one, the simple relation that it has to ``b``."""
    bad = (a - b).abs() / (1.0 if scale is None else scale.abs().clamp_min(1e-300))
    bad = torch.where(bad.isnan() & ~((a == b) | (a.isnan() & b.isnan())), float("inf"), bad).nan_to_num(0.0)
    where = [int(i) for i in torch.unravel_index(bad.flatten().argmax(), a.shape)] if a.dim() else []
    at = f"at {where}: " if where else ""
    got, want = a[tuple(where)].item(), b[tuple(where)].item()
    relation = related(a, b)
    return f"{at}got {got:.9g}, expected {want:.9g}" + (f"; {relation}" if relation else "")


def related(a: Tensor, b: Tensor) -> str | None:
    def near(p: Tensor, q: Tensor) -> bool:
        return bool(torch.allclose(p, q, rtol=1e-6, atol=1e-9 * float(b.abs().max())))

    if a.isnan().any():
        return f"{int(a.isnan().sum())} of {a.numel()} entries are NaN"
    if not (a.isfinite().all() and b.isfinite().all() and b.any()):
        return None
    if not a.any():
        return "it is zero everywhere"
    ratio = float((a * b).sum() / (b * b).sum())
    if near(a, ratio * b):
        count = a.numel() > 1 and abs(ratio / a.numel() - 1) < 1e-6
        hint = f", and there are {a.numel()} entries: is the 1/N of a mean missing?" if count else ""
        return f"it is {ratio:.6g} times the expected{hint}" if abs(ratio - 1) > 1e-4 else None
    if near(a.abs(), b.abs()):
        return "only signs differ"
    if a.dim() == 2 and a.shape[0] == a.shape[1] and near(a, b.T):
        return "it is transposed"
    return None
