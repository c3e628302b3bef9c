"""The committed results, and the smallest example of each finding in them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parents[1] / "results/field.json"
KINDS = ("wrong", "constant", "digits")


class Finding(NamedTuple):
    """What is wrong with one result of a function, at the point with the fewest numbers."""

    function: str
    kind: str
    label: str
    what: str
    inputs: dict[str, Any]
    params: dict[str, Any]
    got: list[float | str] | str
    exact: list[float | str] | None
    said: str


@functools.cache
def known() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def of(function: str) -> list[Finding]:
    """The smallest example for each result that is wrong at any point; of the worst kind, and the furthest off."""
    found: dict[str, Finding] = {}
    for finding in sorted(every(function), key=lambda f: (KINDS.index(f.kind), _size(f.inputs), -off(f))):
        found.setdefault(finding.what, finding)
    return sorted(found.values(), key=lambda f: KINDS.index(f.kind))


def off(finding: Finding) -> float:
    """The largest difference, relative to the largest entry of what is exact."""
    if isinstance(finding.got, str) or finding.exact is None:
        return inf
    got, exact = ([float(v) for v in values] for values in (finding.got, finding.exact))
    if len(got) != len(exact) or not all(map(isfinite, got)):
        return inf
    return max(abs(g - e) for g, e in zip(got, exact, strict=True)) / (max(map(abs, exact)) or 1.0)


def every(function: str) -> Iterator[Finding]:
    for label, point in known()["functions"][function]["points"].items():
        for what, r in point["compared"].items():
            if r["kind"]:
                yield Finding(
                    function,
                    r["kind"],
                    label,
                    what,
                    point["inputs"],
                    point["params"],
                    r["got"],
                    r["exact"],
                    r["said"],
                )


def _size(values: Any) -> int:
    if isinstance(values, dict):
        return sum(map(_size, values.values()))
    return sum(map(_size, values)) if isinstance(values, list) else 1
