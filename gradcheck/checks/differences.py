"""Is the gradient the slope of the value, whatever the definition says?

Finite differences of the value in float64, extrapolated; this needs no definition, and shares no formula with one.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, failed
from gradcheck.numeric import along_axes, room
from gradcheck.spec import Case, Settings, Spec

BOUND = 1e-9 / 2.2e-16  # what extrapolated differences of a smooth float64 function reach, with a digit to spare


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    compared = False

    def body(case: Case) -> Iterator[Result]:
        nonlocal compared
        step = room(case)
        if step is None:
            return
        compared = True
        value, gradient = case.differentiate()
        g = case.upstream(value)
        for name, d in gradient.items():
            slope = along_axes(lambda at: float((at.call() * g).sum()), case, name, step)
            yield compare(f"gradient of {name}", d, slope, BOUND)

    yield from each(spec.covering(settings), body)
    if not compared:
        yield failed("samples", "every sample lies on a kink or at the edge of its domain: nothing was compared")
