"""Is the gradient the slope of the value, whatever the definition says?

Finite differences of the value in float64, extrapolated; this needs no definition, and shares no formula with one.
They are taken along one direction for each input, in which every entry takes part: an entry that is wrong shows in the
sum. Only where it is are they taken along every axis, to tell which one.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, failed
from gradcheck.numeric import along, along_axes, random_direction, room
from gradcheck.spec import Case, Settings, Spec

TAKES = 6
MOST = 400  # entries that are looked at one by one
BOUND = 1e-9 / 2.2e-16  # what extrapolated differences of a smooth float64 function reach, with a digit to spare


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    compared = False

    def body(case: Case) -> Iterator[Result]:
        nonlocal compared
        value, gradient = case.differentiate()
        g = case.upstream(value)

        def total(at: Case) -> Tensor:
            return (at.call() * g).sum()

        for i, (name, d) in enumerate(gradient.items()):
            what, u = f"gradient of {name}", random_direction(i, case.tensors[name], d)
            step = room(case, {name: u})
            if step is None:
                continue
            compared = True
            result = compare(what, None if d is None else (d * u).sum(), along(total, case, {name: u}, step), BOUND)
            if not result.ok and case.tensors[name].numel() <= MOST:
                singly = compare(what, d, along_axes(total, case, name, step), BOUND)
                result = result if singly.ok else singly
            yield result

    for result in each(spec.covering(settings), body):
        if result.what == "call":  # it failed: other inputs would not help
            compared = True
        yield result
    for take in range(1, TAKES):  # where the first points leave no room, on either side of a kink, others may
        if not compared:
            yield from each((spec.case(settings, params=params, take=take) for params in spec.params), body)
    if not compared:
        yield failed("inputs", "all of them lie on a kink or at the edge of the domain, so that nothing was compared")
