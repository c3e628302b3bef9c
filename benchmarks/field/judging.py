"""When a value or a gradient is called wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

DIGITS = 1e-3  # relative to the largest entry: three digits
LEAST = 2e-6  # an error below it is one of rounding terms of size 1
NOTHING = 1e-10  # below it no digits are asked for: it changes no sum that a training step sees
EXPLAINED = 0.1  # of a difference is left where a constant explains it
CONSTANT, FEW = "constant", "digits"


def judge(
    got: Sequence[float] | str, exact: Sequence[Any] | None, guarded: Sequence[Any] | None = None
) -> tuple[str, str]:
    """What kind of finding this is, and what is wrong in words; both are empty if nothing is.

    Without ``exact`` the numbers only have to be finite. With ``guarded``, what it should be with the constant that the
    documentation names, the kind of what follows from that is 'constant'. It is 'digits' where fewer than three are
    right of a number so small that it matters little, and else 'wrong'.
    """
    if isinstance(got, str):
        return "wrong", got
    found = wrong(got, exact)
    if not found:
        return "", ""
    if guarded is not None and exact is not None:
        left, whole = apart(got, guarded), apart(got, exact)
        if not wrong(got, guarded) or left < EXPLAINED * whole < float("inf"):
            return CONSTANT, found
    finite = exact is not None and len(got) == len(exact) and all(map(isfinite, got))
    small = finite and all(abs(g - float(e)) < LEAST for g, e in zip(got, exact, strict=True))
    return FEW if small else "wrong", found


def apart(got: Sequence[float], exact: Sequence[Any]) -> float:
    """The largest difference; infinite for what is not finite."""
    if len(got) != len(exact) or not all(map(isfinite, got)):
        return float("inf")
    return max(abs(g - float(e)) for g, e in zip(got, exact, strict=True))


def wrong(got: Sequence[float], exact: Sequence[Any] | None) -> str:
    if exact is None:
        exact = [0.0] * len(got)
        got = [0.0 if isfinite(g) else g for g in got]
    if len(got) != len(exact):
        return f"has {len(got)} entries instead of {len(exact)}"
    numbers = [float(v) for v in exact]
    if any(g != g for g in got):
        return "is NaN"
    if any(not isfinite(g) and isfinite(e) for g, e in zip(got, numbers, strict=True)):
        return "is infinite"
    size = max(abs(e) for e in numbers)
    if max(map(abs, got)) < (NOTHING if size else LEAST) and size < NOTHING:
        return ""
    if size >= NOTHING and not any(got):
        return "is zero"
    error = max(abs(g - e) for g, e in zip(got, numbers, strict=True))
    if error <= DIGITS * max(size, NOTHING):
        return ""
    return f"is off by {error / size:.1g} of its size" if size else f"is {max(map(abs, got)):.1g} instead of 0"
