"""The operations of formulas, on mpmath numbers and on arrays of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from mpmath import mp, mpf


def _times(a: Any, b: Any) -> Any:
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return b * a if isinstance(b, np.ndarray) else a * b  # mpf * array is slow
    if np.ndim(a) == 1 and np.ndim(b) == 2 and len(b) == 1:
        return np.outer(a, b)
    if np.ndim(a) == 1 == np.ndim(b):
        raise TypeError("two vectors side by side: a product of entries, or a \\cdot?")
    return a @ b


def _divide(a: Any, b: Any) -> Any:
    return mpf(a) / b if isinstance(a, int) else a / b


def _power(a: Any, b: Any) -> Any:
    return mpf(a) ** b if isinstance(a, int) else a**b


def _elementwise(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: np.frompyfunc(f, 1, 1)(x) if np.ndim(x) else f(x)


def _norm(x: Any, degree: Any) -> Any:
    sizes = [abs(v) for v in x]
    return max(sizes) if degree == mp.inf else sum(size**degree for size in sizes) ** (1 / mpf(degree))


def _log_add(terms: Iterable[Any]) -> Any:
    return mp.log(sum((mp.exp(t) for t in terms), mpf(0)))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: b + a if isinstance(b, np.ndarray) else a + b,
    "-": lambda a, b: -b + a if isinstance(b, np.ndarray) else a - b,
    "*": _times,
    "/": _divide,
    "^": _power,
    "neg": lambda a: -a,
    "dot": lambda a, b: a @ b if np.ndim(a) else a * b,
    "cup": lambda a, b: a | b,
    "top": lambda a: a.T if np.ndim(a) == 2 else a.reshape(1, -1),
    "abs": lambda a: abs(a),
    "norm": _norm,
    "oplus": lambda a, b: _log_add((a, b)),
    "log": _elementwise(mp.log),
    "exp": _elementwise(mp.exp),
    "tanh": _elementwise(mp.tanh),
    "sqrt": _elementwise(mp.sqrt),
    "sgn": _elementwise(mp.sign),
    "artanh": _elementwise(mp.atanh),
    "diag": lambda a: np.diag(a),
    "max": lambda *a: max(a),
    "min": lambda *a: min(a),
}
REDUCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "sum": lambda terms: sum(terms, mpf(0)),
    "prod": lambda terms: np.prod(np.array(terms, dtype=object)),
    "oplus": _log_add,
    "max": max,
    "min": min,
}
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    r"\ne": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    r"\le": lambda a, b: a <= b,
    r"\ge": lambda a, b: a >= b,
}
