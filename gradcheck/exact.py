"""A case in exact arithmetic: the oracle's value, and its derivative by every entry of every differentiable tensor.

The derivative is a difference of the oracle itself, so there is no second hand derivation to be wrong in the same way.
With 150 digits a step of 1e-75 resolves slopes down to 1e-54 (what is smaller is rounding or the curvature, and counts
as 0), and it stops short of every kink that the numbers of the samples come near without lying on it. On a kink that
is declared, any derivative between both slopes is right: which one it should be, the pins say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from mpmath import mp, mpf, workdps
from torch import Tensor

from gradcheck.families import FAMILIES
from gradcheck.spec import Case

DIGITS, STEP, RESOLUTION = 150, "1e-75", mpf("1e-54")


@dataclass
class Sums:
    """What an entry receives from the rows that it takes part in.

    The sum of the sizes is the scale of its error; ``choice`` is how far off it may be where a row lies on a kink.
    """

    total: Any = 0
    size: Any = 0
    choice: Any = 0

    def add(self, x: Any, choice: Any = 0) -> None:
        self.total += x
        self.size += abs(x)
        self.choice += abs(choice)


@dataclass
class Row:
    """One element, row, pair or path: its value, its share in the mean, and the derivatives of both by entry.

    The third number is half the jump of the value's slope, where the row lies on a kink.
    """

    value: Any
    share: Any
    slopes: dict[tuple[str, int], tuple[Any, Any, Any]] = field(default_factory=dict)


class Exact(NamedTuple):
    """A result, the scale of its error, and how far from it another choice on a kink may lie, entry by entry."""

    value: Tensor
    scale: Tensor
    choice: Tensor

    def nearest(self, t: Tensor | None) -> Tensor:
        """The legitimate result that is nearest to ``t``."""
        if t is None or t.shape != self.value.shape or not self.choice.any():
            return self.value
        return t.detach().double().cpu().clamp(self.value - self.choice, self.value + self.choice)


def rows(case: Case, direction: Mapping[str, Tensor] | None = None) -> list[Row]:
    """Every row, with the slopes by every entry; or, with ``direction``, along that of each tensor, as by entry 0."""
    indices = FAMILIES[case.spec.family](case)
    values = {k: _numbers(t) for k, t in case.tensors.items()}
    along = {k: _numbers(t) for k, t in (direction or {}).items()}
    plain = {k: v for k, v in case.arguments.items() if k not in case.tensors}
    count = len(next(iter(indices.values())))
    first = case.spec.kinks.get(1)
    on_a_kink = first is not None and bool((first(**case.arguments) == 0).any())

    def differentiate(n: int) -> Row:
        here = {**plain, **{k: _take(values[k], rows[n]) for k, rows in indices.items()}}

        def evaluate(**changed: Any) -> tuple[Any, Any]:
            result = case.spec.oracle(**{**here, **changed})
            return result if isinstance(result, tuple) else (result, mpf(1))

        def moved(name: str, by: Mapping[int, Any]) -> tuple[Any, Any]:
            column = values[name].copy()
            for i, step in by.items():
                column[i] += step
            return evaluate(**{name: _take(column, indices[name][n])})

        def slopes(name: str, by: Mapping[int, Any]) -> tuple[Any, Any, Any]:
            right = moved(name, {i: h * u for i, u in by.items()})
            left = moved(name, {i: -h * u for i, u in by.items()}) if on_a_kink else value
            slope, share_slope = (_resolved((b - a) / width) for a, b in zip(left, right, strict=True))
            jump = (right[0] - 2 * value[0] + left[0]) / h if on_a_kink else mpf(0)
            return slope, share_slope, _resolved(jump / 2)

        value = evaluate()
        row = Row(*map(_resolved, value))
        for name in case.differentiable:
            entries = sorted(set(_flatten(indices[name][n])))
            shifts = {i: h * mp.exp(mpf(1) / k) for k, i in enumerate(entries, 1)}
            if direction is not None:
                row.slopes[name, 0] = slopes(name, {i: along[name][i] for i in entries})
            elif len(entries) < 3 or moved(name, shifts) != value:
                row.slopes |= {(name, i): slopes(name, {i: 1}) for i in entries}
            # else no entry matters: a hinge that is closed, the tail of another cluster
        return row

    with workdps(DIGITS):
        h = mpf(STEP)
        width = 2 * h if on_a_kink else h
        return [differentiate(n) for n in range(count)]


def calls(case: Case) -> Iterator[dict[str, Any]]:
    """What the oracle is called with for each row of a case, unreduced."""
    indices = FAMILIES[case.spec.family](case)
    values = {k: _numbers(t) for k, t in case.tensors.items()}
    plain = {k: v for k, v in case.arguments.items() if k not in case.tensors}
    if "reduction" in plain:
        plain["reduction"] = "none"
    for n in range(len(next(iter(indices.values())))):
        yield {**plain, **{k: _take(values[k], rows[n]) for k, rows in indices.items()}}


def reduced(case: Case, found: list[Row], g: Tensor) -> dict[str, Exact]:
    """'value' and every gradient of the rows reduced, for the upstream ``g``."""
    reduction = case.arguments.get("reduction", "none")
    with workdps(DIGITS):
        upstream = [mpf(x) for x in g.flatten().tolist()]
        shares = sum((row.share for row in found), mpf(0)) if reduction == "mean" else mpf(1)
        mean = sum((row.value for row in found), mpf(0)) / shares
        entries = {k: [Sums() for _ in range(t.numel())] for k, t in case.differentiable.items()}
        values = [Sums() for _ in range(g.numel())]
        for n, row in enumerate(found):
            m = n if reduction == "none" else 0
            values[m].add(row.value / shares)
            for (name, i), (slope, share_slope, choice) in row.slopes.items():
                entries[name][i].add(upstream[m] * slope / shares, upstream[m] * choice / shares)
                if reduction == "mean":
                    entries[name][i].add(-upstream[m] * mean * share_slope / shares)
        return {
            "value": _exact(values, g),
            **{f"gradient of {k}": _exact(entries[k], t) for k, t in case.differentiable.items()},
        }


def _resolved(x: Any) -> Any:
    return x if abs(x) > RESOLUTION else mpf(0)


def _numbers(t: Tensor) -> list[Any]:
    values = t.detach().flatten().tolist()
    return [mpf(x) for x in values] if t.is_floating_point() else values


def _take(values: list[Any], index: Any) -> Any:
    return [_take(values, i) for i in index] if isinstance(index, list) else values[index]


def _flatten(index: Any) -> list[int]:
    return [j for i in index for j in _flatten(i)] if isinstance(index, list) else [index]


def _exact(sums: list[Sums], like: Tensor) -> Exact:
    def of(numbers: list[Any]) -> Tensor:
        return torch.tensor([float(mp.mpf(x)) for x in numbers], dtype=torch.float64).reshape(like.shape)

    return Exact(of([s.total for s in sums]), of([s.size for s in sums]), of([s.choice for s in sums]))
