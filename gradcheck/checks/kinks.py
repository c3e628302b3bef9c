"""Are the kinks where the spec says, nowhere else, and is what the rule does there among the legitimate choices?

Along a segment between two draws of a sample, the gradient must integrate to the value on each piece between kinks
(a kink that is not declared ruins the quadrature); at each declared one the one-sided slopes must differ, and the rule
lie between them. The pins, points on a kink or at an edge, are compared exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gradcheck.checks.cases import each, either_way
from gradcheck.compare import Result, compare, expect, failed, noted, passed
from gradcheck.numeric import nudge
from gradcheck.spec import Case, Draw, Pin, Settings, Spec

NODES, WEIGHTS = np.polynomial.legendre.leggauss(7)
GRID = np.linspace(0, 1, 129)  # finer than the distance between two kinks of one entry, mostly
FINER = 64  # parts of a piece that seems to have more of them
TAKES = 6  # further draws to cross a kink with
PIECES = np.linspace(0, 1, 5)
FINEST = 1 / 128
FINEST_PIECES = 4 * 64  # the four pieces of a segment are halved until they are shorter
QUADRATURE = 1e-10  # of the largest slope; on the finest piece a jump of 1 leaves 1e-5, one of the curvature 1e-8
ROUNDING = 1e-14  # of the largest value or slope: what is left at the end of a piece on which the function is 0
EPS = 2.0**-52
ROOT = 1e-15  # how far from a kink the root that is found may be
STEP = 1e-5  # one-sided differences of second order: right to 1e-9 or so
JUMP, SLACK = 1e-5, 1e-7  # a jump smaller than the first is none; the slopes are known to the second


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    for pin in spec.pins:
        for dtype in (torch.float64, torch.float32):
            draw = Draw(0, dtype, settings.device)
            yield from either_way(spec.pinned(pin, draw), functools.partial(pinned, pin=pin, draw=draw))

    crossed: set[int] = set()

    def body(case: Case, take: int = 1) -> Iterator[Result]:
        start, end = case.differentiable, spec.case(settings, case.sample, case.params, take=take).differentiable
        segment = Segment(case, {k: (start[k], end[k] - start[k]) for k in start})
        roots = {order: segment.roots(distance) for order, distance in spec.kinks.items()}
        yield integrates(segment, sorted(s for found in roots.values() for s in found))
        for order, found in roots.items():
            others = [o for r in roots.values() for o in r]
            alone = [s for s in found if all(abs(s - o) <= 8 * ROOT or abs(s - o) > 4 * STEP for o in others)]
            for s in alone[:4]:
                if STEP * 4 < s < 1 - STEP * 4:
                    crossed.add(order)
                    yield one_sided(segment, order, s)

    yield from each(spec.covering(settings), body)
    for take in range(2, TAKES):
        if not crossed.issuperset(spec.kinks):
            yield from each(spec.covering(settings), functools.partial(body, take=take))
    for order in sorted(set(spec.kinks) - crossed):
        yield failed(f"kink of order {order}", "no line between two inputs crosses it, so that nothing was compared")


class Segment:
    """The sum of a case's values along a straight line, with its directional derivatives by the rule under audit."""

    def __init__(self, case: Case, line: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.case, self.line = case, line
        self.g = case.upstream(case.call())

    def at(self, s: float) -> Case:
        return self.case.at({k: start + s * direction for k, (start, direction) in self.line.items()})

    def derivative(self, order: int) -> Callable[[float], float]:
        def of(s: float) -> float:
            case = self.at(s)
            leaves = case.leaves()
            d = (case.call(**leaves) * self.g).sum()
            for k in range(order):
                if not d.requires_grad:
                    return 0.0
                gradients = torch.autograd.grad(
                    d, list(leaves.values()), create_graph=k + 1 < order, allow_unused=True, materialize_grads=True
                )
                directions = (direction for _, direction in self.line.values())
                d = torch.stack([(v * u).sum() for v, u in zip(directions, gradients, strict=True)]).sum()
            return float(d)

        return of

    def roots(self, distance: Callable[..., Tensor], grid: np.ndarray = GRID) -> list[float]:
        """Where an entry of ``distance`` changes its sign, ascending; what rounding alone keeps apart is one."""

        @functools.cache
        def at(s: float) -> np.ndarray:
            return distance(**self.at(s).arguments).flatten().cpu().numpy()

        def entry(s: float, i: int) -> float:
            return float(at(s)[i]) or -1e-300  # 0 counts as negative, or where it begins would be lost

        from scipy.optimize import brentq  # a quarter of the time that gradcheck takes to start

        found: list[float] = []
        for a, b in pairwise(grid.tolist()):
            changed = np.flatnonzero((at(a) > 0) != (at(b) > 0)).tolist()
            for s in sorted(brentq(entry, a, b, (i,), xtol=ROOT, rtol=4 * EPS) for i in changed):
                if not found or s - found[-1] > 8 * ROOT:
                    found.append(s)
        return found


def integrates(segment: Segment, kinks: list[float]) -> Result:
    """Whether the slope integrates to the difference of the values on every piece without a declared kink.

    A piece where it does not is halved: that helps a smooth function, and not one with a kink. In the smallest ones
    kinks are looked for again, since there may be two of one entry, which cancel on a coarse grid.
    """
    value, slope = functools.cache(segment.derivative(0)), segment.derivative(1)
    rounding = ROUNDING * max(abs(f(s)) for s in PIECES for f in (value, slope))
    pieces = list(pairwise(np.unique([*PIECES, *kinks]).tolist()))
    distances, looked = segment.case.spec.kinks.values(), set[float]()
    jumps = 0
    drawing: dict[str, float] | None = None
    while pieces:
        a, b = pieces.pop()
        slopes = [slope(s) for s in (a + b) / 2 + (b - a) / 2 * NODES]
        missed = abs((b - a) / 2 * float(WEIGHTS @ slopes) - (value(b) - value(a)))
        if missed <= rounding + QUADRATURE * max(abs(value(a)), *map(abs, slopes)):
            continue
        if b - a < FINEST:
            inner = np.linspace(a, b, FINER + 1)
            missing = {
                s for d in distances for s in segment.roots(d, inner) if a + 8 * ROOT < s < b - 8 * ROOT
            } - looked
            if missing:
                looked |= missing
                pieces += pairwise(sorted({a, b, *missing}))
                continue
            message = (
                f"misses the change of the value by {missed:.3g}, from {a:.4f} to {b:.4f} of the way between two inputs"
            )
            if segment.case.spec.smooth:
                return failed("integral of the slope", f"{message}: a wrong gradient, or a kink that is not declared")
            jumps += 1
            drawing = drawing or sides(slopes[0], slopes[-1], slopes[len(slopes) // 2])
            if jumps > FINEST_PIECES / 8:  # a kink spoils the piece that it lies in, a wrong gradient all
                return failed("integral of the slope", f"{message}, and on many others: a wrong gradient")
            continue
        pieces += [(a, (a + b) / 2), ((a + b) / 2, b)]
    if jumps:
        message = "the slope jumps where no kink is declared; kinks= says where one is meant"
        return noted("integral of the slope", message)._replace(drawing=drawing)
    return passed("integral of the slope")


def one_sided(segment: Segment, order: int, s: float) -> Result:
    f, there = segment.derivative(order - 1), segment.derivative(order)(s)
    left, right = _slope(f, s, -STEP), _slope(f, s, STEP)
    what = f"kink of order {order}"
    size = max(abs(left), abs(right), 1e-3)
    if abs(right - left) <= JUMP * size:
        return failed(
            what,
            f"is declared {s:.6f} of the way between two inputs, but the slopes on both sides of it are {left:.6g}",
        )
    right_there = min(left, right) - SLACK * size <= there <= max(left, right) + SLACK * size
    message = f"the gradient there gives {there:.9g}, the slopes on either side are {left:.9g} and {right:.9g}"
    return expect(what, right_there, message)._replace(drawing=sides(left, right, there))


def sides(left: float, right: float, rule: float) -> dict[str, float] | None:
    return dict(left=left, right=right, rule=rule) if np.isfinite([left, right, rule]).all() else None


def pinned(case: Case, pin: Pin, draw: Draw) -> Iterator[Result]:
    leaves = case.leaves()
    value = case.call(**leaves)
    if pin.value is not None:
        yield compare("pinned value", value, draw.tensor(pin.value), 4, dtype=draw.dtype, nan=True)
    gradients = dict.fromkeys(leaves)
    if value.requires_grad:
        found = torch.autograd.grad(value, list(leaves.values()), torch.ones_like(value), allow_unused=True)
        gradients = dict(zip(leaves, found, strict=True))
    for name, wanted in pin.gradient.items():
        d = draw.tensor(wanted)
        yield compare(f"pinned gradient of {name}", gradients[name], d, 4, dtype=draw.dtype, nan=True)
        if draw.dtype is torch.float64:
            yield from between(case, name, d)


def between(case: Case, name: str, pinned: Tensor) -> Iterator[Result]:
    """Whether each pinned slope lies between the one-sided ones, wherever all three are finite."""
    t = case.tensors[name]
    low, high = case.spec.by_name[name].domain
    for i, d in enumerate(pinned.flatten().tolist()):
        x = t.flatten()[i].item()

        def f(s: float, i: int = i) -> float:
            return case.at({name: nudge(t, i, s)}).call().sum().item()

        sides = [_slope(f, 0.0, h) for h in (-STEP, STEP) if low <= x + 2 * h <= high]
        if np.isfinite([d, *sides]).all() and sides:
            slack = SLACK * max(1.0, abs(d))
            yield expect(
                f"pinned slope of {name}",
                len(sides) < 2 or min(sides) - slack <= d <= max(sides) + slack,
                f"[{i}] = {d:.9g} is not between the one-sided slopes {sides}",
            )


def _slope(f: Callable[[float], float], s: float, h: float) -> float:
    return (-3 * f(s) + 4 * f(s + h) - f(s + 2 * h)) / (2 * h)
