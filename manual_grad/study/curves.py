"""A line through the domain of each loss, along which its value, slope and curvature are drawn.

The line is defined by ``CURVE`` in the spec of the loss; :func:`trace` follows it. The loss itself computes the values,
in float64, and the kinks are those declared in the spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from manual_grad import specs
from manual_grad.catalogue import BY_NAME


@dataclass(frozen=True)
class Slider:
    """An adjustable parameter: its label and its range of values."""

    label: str
    default: float
    low: float
    high: float
    step: float

    @property
    def values(self) -> list[float]:
        count = round((self.high - self.low) / self.step)
        return [round(self.low + i * self.step, 10) for i in range(count + 1)]


@dataclass(frozen=True)
class Curve:
    """A line through a loss's domain.

    Args:
        axis: The label of the axis, which says what the position on the line means.
        span: The range of positions.
        arguments: Returns the keyword arguments of the call for a batch of positions and values of the parameters.
        sliders: The parameters, by name.
        loss: The function, if it is not the one of the spec.
    """

    axis: str
    span: tuple[float, float]
    arguments: Callable[..., dict[str, Any]]
    sliders: Mapping[str, Slider] = field(default_factory=dict)
    loss: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Piece:
    """A part of the line without kinks: positions ``s``, and ``y``: value, slope and curvature there."""

    s: Tensor
    y: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Kink:
    """A position where the derivative of that order jumps, and ``y``: value, slope and curvature chosen by the rule.

    ``y`` is None if no floating-point number lies exactly on the kink.
    """

    order: int
    s: float
    y: tuple[float, float, float] | None


@dataclass(frozen=True)
class Trace:
    """A loss along its line: smooth pieces, and the kinks between them."""

    curve: Curve
    params: dict[str, float]
    pieces: list[Piece]
    kinks: list[Kink]

    def limits(self, order: int) -> tuple[float, float]:
        """The range of the axis for the value, the slope or the curvature; poles may exceed it."""
        y = torch.cat([piece.y[order] for piece in self.pieces])
        low, high = y.quantile(torch.tensor([0.05, 0.95], dtype=y.dtype)).tolist()
        low, high = max(float(y.min()), 2 * low - high), min(float(y.max()), 2 * high - low)
        room = 0.08 * (high - low) if high - low > 1e-6 else 0.5
        return low - room, high + room


def curve_of(loss: str) -> Curve:
    if loss not in BY_NAME:
        raise ValueError(f"no loss named {loss!r}; there are: {', '.join(BY_NAME)}")
    return specs.module(loss).CURVE


def trace(loss: str, params: Mapping[str, float] | None = None, points: int = 241) -> Trace:
    """Evaluate a loss along its line at about ``points`` positions; omitted parameters have their defaults."""
    params = params or {}
    curve = curve_of(loss)
    if unknown := [name for name in params if name not in curve.sliders]:
        known = ", ".join(curve.sliders) or "none"
        raise ValueError(f"{loss} has no parameter {unknown[0]!r} to draw; there are: {known}")
    params = {name: params.get(name, slider.default) for name, slider in curve.sliders.items()}
    low, high = curve.span
    kinks = sorted(_kinks(loss, curve, params), key=lambda kink: kink.s)
    hair = 1e-9 * (high - low)  # the ends of a piece show the one-sided limits
    pieces = []
    for a, b in pairwise([low, *dict.fromkeys(kink.s for kink in kinks), high]):
        count = max(2, round(points * (b - a) / (high - low)))
        s = torch.linspace(a + hair * (a > low), b - hair * (b < high), count, dtype=torch.float64)
        pieces.append(Piece(s, along(loss, s, params)))
    return Trace(curve, params, pieces, kinks)


def along(loss: str, s: Tensor, params: Mapping[str, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and curvature at the positions ``s``, by the loss's own derivatives."""
    curve = curve_of(loss)
    s = s.detach().requires_grad_()
    function = curve.loss or specs.load(loss).fn
    value = function(**curve.arguments(s, **params), reduction="none").reshape(len(s), -1).sum(1)
    slope = _derivative(value, s)
    return value.detach(), slope.detach(), _derivative(slope, s).detach()


def _derivative(value: Tensor, s: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(s)
    (d,) = torch.autograd.grad(value.sum(), s, create_graph=True, materialize_grads=True)
    return d


def _kinks(loss: str, curve: Curve, params: Mapping[str, float]) -> Iterator[Kink]:
    """The positions where a signed distance of the loss's spec changes sign, by bisection."""

    def point(s: float) -> Tensor:
        return torch.tensor([s], dtype=torch.float64)

    low, high = curve.span
    grid = torch.linspace(low, high, 66, dtype=torch.float64).tolist()
    for order, distance in specs.load(loss).kinks.items():

        def distances(s: float, distance: Callable[..., Tensor] = distance) -> Tensor:
            return distance(**curve.arguments(point(s), **params)).flatten()

        signs = [distances(s) > 0 for s in grid]
        for (a, before), (b, after) in pairwise(zip(grid, signs, strict=True)):
            for i in (before != after).nonzero().flatten().tolist():
                s = _bisect(distances, i, a, b)
                value, slope, curvature = along(loss, point(s), params)
                hit = distances(s)[i] == 0
                yield Kink(order, s, (value.item(), slope.item(), curvature.item()) if hit else None)


def _bisect(distances: Callable[[float], Tensor], entry: int, a: float, b: float) -> float:
    start = distances(a)[entry] > 0
    for _ in range(40):
        middle = (a + b) / 2
        a, b = (middle, b) if (distances(middle)[entry] > 0) == start else (a, middle)
    return round(b, 9)


def everywhere(s: Tensor, value: float) -> Tensor:
    """The same number at every position."""
    return torch.full_like(s.detach(), value)


def rows(s: Tensor, *entries: Tensor | float) -> Tensor:
    """A row of entries for each position."""
    return torch.stack([e if isinstance(e, Tensor) else everywhere(s, e) for e in entries], dim=-1)


def classes(s: Tensor, target: int | list[int]) -> Tensor:
    """The same class, or list of classes, at every position."""
    t = torch.tensor(target)
    return t.expand(len(s), *t.shape)


def residual(s: Tensor, **options: float) -> dict[str, Any]:
    return dict(input=s, target=everywhere(s, 0), **options)


def weighted_residual(s: Tensor, weight: float) -> dict[str, Any]:
    return residual(s) | dict(weight=everywhere(s, weight))


def negative_passes(s: Tensor, **options: Any) -> dict[str, Any]:
    """The anchor is the origin, the positive is (0, 1), and the negative passes the anchor at a distance of 0.3."""
    return dict(anchor=rows(s, 0, 0), positive=rows(s, 0, 1), negative=rows(s, s, -0.3), **options)


def features(s: Tensor) -> Tensor:
    """Growing features of a fixed direction."""
    return rows(s, s, -0.5 * s)


MARGIN = Slider("margin", 1.0, 0.0, 2.0, 0.125)
SIGN = Slider("target, −1 or 1", 1.0, -1.0, 1.0, 2.0)
SHARE = Slider("target", 1.0, 0.0, 1.0, 0.125)
SMOOTHING = Slider("label smoothing", 0.0, 0.0, 0.5, 0.0625)
WEIGHT = Slider("weight", 1.0, 0.25, 3.0, 0.25)
