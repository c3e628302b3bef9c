"""A line through the domain of each loss, along which its value, slope and curvature are worth a look.

:data:`CURVES` says which line that is; :func:`trace` follows it. What is drawn is computed by the losses themselves, in
float64, and the kinks are those that the specs of :mod:`gradcheck` declare.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import manual_grad.functional as F
from manual_grad.losses.linear.adaptive_log_softmax_with_loss import adaptive_cross_entropy


@dataclass(frozen=True)
class Slider:
    """A parameter that may be turned: what it means, and the values it takes."""

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
    """A line through a loss' domain.

    Args:
        axis: What the position on the line is, as the label of an axis.
        span: The positions that are drawn.
        arguments: The keyword arguments of the call at a batch of positions and at values of the parameters.
        sliders: The parameters, by name.
        loss: The function, if it is not the one of :mod:`manual_grad.functional`.
    """

    axis: str
    span: tuple[float, float]
    arguments: Callable[..., dict[str, Any]]
    sliders: Mapping[str, Slider] = field(default_factory=dict)
    loss: Callable[..., Tensor] | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of the line without a kink: positions, and ``y``: value, slope and curvature there."""

    s: Tensor
    y: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Kink:
    """Where the derivative of that order jumps, and ``y``: value, slope and curvature by the rule's choice.

    ``y`` is None where no number lies exactly on the kink, so that the rule has nothing to choose.
    """

    order: int
    s: float
    y: tuple[float, float, float] | None


@dataclass(frozen=True)
class Trace:
    """What a loss does along its line: smooth pieces, and the kinks between them."""

    curve: Curve
    params: dict[str, float]
    pieces: list[Piece]
    kinks: list[Kink]

    def limits(self, order: int) -> tuple[float, float]:
        """The part of an axis that shows the value, the slope or the curvature; a pole may leave it."""
        y = torch.cat([piece.y[order] for piece in self.pieces])
        low, high = y.quantile(torch.tensor([0.05, 0.95], dtype=y.dtype)).tolist()
        low, high = max(float(y.min()), 2 * low - high), min(float(y.max()), 2 * high - low)
        room = 0.08 * (high - low) if high - low > 1e-6 else 0.5
        return low - room, high + room


def curve_of(loss: str) -> Curve:
    if loss not in CURVES:
        raise ValueError(f"there is no loss {loss!r}: it is one of {', '.join(CURVES)}")
    return CURVES[loss]


def trace(loss: str, params: Mapping[str, float] | None = None, points: int = 241) -> Trace:
    """Follow the line of a loss, at about so many points; parameters that are not given have their defaults."""
    params = params or {}
    curve = curve_of(loss)
    if unknown := [name for name in params if name not in curve.sliders]:
        known = ", ".join(curve.sliders) or "none"
        raise ValueError(f"{loss} is not drawn with a parameter {unknown[0]!r}: it has {known}")
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
    """Value, slope and curvature at the positions ``s``, by the loss' own derivatives."""
    curve = curve_of(loss)
    s = s.detach().requires_grad_()
    function = curve.loss or getattr(F, loss)
    value = function(**curve.arguments(s, **params), reduction="none").reshape(len(s), -1).sum(1)
    slope = _derivative(value, s)
    return value.detach(), slope.detach(), _derivative(slope, s).detach()


def _derivative(value: Tensor, s: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(s)
    (d,) = torch.autograd.grad(value.sum(), s, create_graph=True, materialize_grads=True)
    return d


def _kinks(loss: str, curve: Curve, params: Mapping[str, float]) -> Iterator[Kink]:
    """Where a signed distance of the loss' spec passes 0, by bisection."""
    from manual_grad import specs  # optional: the auditor has requirements of its own

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


def _all(s: Tensor, value: float) -> Tensor:
    """The same number at every position."""
    return torch.full_like(s.detach(), value)


def _rows(s: Tensor, *entries: Tensor | float) -> Tensor:
    """A row of entries for each position."""
    return torch.stack([e if isinstance(e, Tensor) else _all(s, e) for e in entries], dim=-1)


def _classes(s: Tensor, target: int | list[int]) -> Tensor:
    """The same class, or list of classes, at every position."""
    t = torch.tensor(target)
    return t.expand(len(s), *t.shape)


def _residual(s: Tensor, **options: float) -> dict[str, Any]:
    return dict(input=s, target=_all(s, 0), **options)


def _weighted_residual(s: Tensor, weight: float) -> dict[str, Any]:
    return _residual(s) | dict(weight=_all(s, weight))


def _coin(s: Tensor, model: float) -> dict[str, Any]:
    return dict(input=_rows(s, math.log(model), math.log(1 - model)), target=_rows(s, s, 1 - s))


def _turned(s: Tensor, target: float, margin: float) -> dict[str, Any]:
    return dict(input1=_rows(s, 1, 0), input2=_rows(s, s.cos(), s.sin()), target=_all(s, target), margin=margin)


def _negative_passes(s: Tensor, **options: Any) -> dict[str, Any]:
    """The anchor is the origin, the positive (0, 1); the negative passes the anchor at a distance of 0.3."""
    return dict(anchor=_rows(s, 0, 0), positive=_rows(s, 0, 1), negative=_rows(s, s, -0.3), **options)


def _second_frame(s: Tensor, frames: float, blank: float) -> dict[str, Any]:
    """Every frame gives the labels 1 and 2 a third each, but the second frame gives label 1 what is turned."""
    third = math.log(1 / 3)
    x = [_rows(s, blank, s if t == 1 else third, third) for t in range(int(frames))]
    lengths = dict(input_lengths=_classes(s, len(x)), target_lengths=_classes(s, 2))
    return dict(log_probs=torch.stack(x), targets=_classes(s, [1, 2]), **lengths)


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(-1)


def _features(s: Tensor) -> Tensor:
    """Growing features of a fixed direction."""
    return _rows(s, s, -0.5 * s)


def _projected(s: Tensor, bias: float, label_smoothing: float) -> dict[str, Any]:
    weight = torch.tensor([[1.0, -1.0], [0.5, 1.0], [-1.0, 0.0]], dtype=s.dtype)
    offset = torch.tensor([bias, 0.0, 0.0], dtype=s.dtype)
    shares = dict(linear_bias=offset, label_smoothing=label_smoothing)
    return dict(input=_features(s), linear_weight=weight, target=_classes(s, 0), **shares)


def _adaptive(s: Tensor, target: float) -> dict[str, Any]:
    """Classes 0 and 1 are in the head, 2 and 3 in one cluster."""
    head = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], dtype=s.dtype)
    tail = (torch.tensor([[1.0, -1.0]], dtype=s.dtype), torch.tensor([[0.5], [-0.5]], dtype=s.dtype))
    return dict(input=_features(s), target=_classes(s, int(target)), head_weight=head, tails=[tail], cutoffs=[2, 4])


MARGIN = Slider("margin", 1.0, 0.0, 2.0, 0.125)
SIGN = Slider("target, −1 or 1", 1.0, -1.0, 1.0, 2.0)
SHARE = Slider("target", 1.0, 0.0, 1.0, 0.125)
SMOOTHING = Slider("label smoothing", 0.0, 0.0, 0.5, 0.0625)
WEIGHT = Slider("weight", 1.0, 0.25, 3.0, 0.25)

CURVES: Mapping[str, Curve] = {
    "l1_loss": Curve("residual x − t", (-3, 3), _weighted_residual, {"weight": WEIGHT}),
    "mse_loss": Curve("residual x − t", (-3, 3), _weighted_residual, {"weight": WEIGHT}),
    "smooth_l1_loss": Curve(
        "residual x − t", (-3, 3), _residual, {"beta": Slider("beta, where the square ends", 1.0, 0.0, 2.5, 0.125)}
    ),
    "huber_loss": Curve(
        "residual x − t", (-3, 3), _residual, {"delta": Slider("delta, where the square ends", 1.0, 0.125, 2.5, 0.125)}
    ),
    "binary_cross_entropy": Curve(
        "probability x",
        (0.02, 0.98),
        lambda s, target: dict(input=s, target=_all(s, target)),
        {"target": SHARE},
    ),
    "binary_cross_entropy_with_logits": Curve(
        "logit x",
        (-6, 6),
        lambda s, target, pos_weight: dict(input=s, target=_all(s, target), pos_weight=_all(s, pos_weight)),
        {"target": SHARE, "pos_weight": Slider("pos_weight, of the positive class", 1.0, 0.5, 3.0, 0.5)},
    ),
    "gaussian_nll_loss": Curve(
        "variance v",
        (0.1, 4),
        lambda s, residual: dict(input=_all(s, residual), target=_all(s, 0), var=s),
        {"residual": Slider("residual x − t", 1.0, 0.0, 2.0, 0.125)},
    ),
    "poisson_nll_loss": Curve(
        "log of the rate x",
        (-2, 3),
        lambda s, target: dict(input=s, target=_all(s, target)),
        {"target": Slider("target, the count", 3.0, 0.0, 12.0, 1.0)},
    ),
    "kl_div": Curve(
        "probability of heads t, of a coin",
        (0.01, 0.99),
        _coin,
        {"model": Slider("probability of heads in the model", 0.5, 0.05, 0.95, 0.05)},
    ),
    "soft_margin_loss": Curve(
        "score x", (-5, 5), lambda s, target: dict(input=s, target=_all(s, target)), {"target": SIGN}
    ),
    "hinge_embedding_loss": Curve(
        "distance x",
        (-0.5, 3),
        lambda s, target, margin: dict(input=s, target=_all(s, target), margin=margin),
        {"target": replace(SIGN, default=-1.0), "margin": MARGIN},
    ),
    "margin_ranking_loss": Curve(
        "lead of the first score, x1 − x2",
        (-3, 3),
        lambda s, target, margin: dict(input1=s, input2=_all(s, 0), target=_all(s, target), margin=margin),
        {"target": SIGN, "margin": MARGIN},
    ),
    "cross_entropy": Curve(
        "logit of the target; the others are 0 and the rival's",
        (-6, 8),
        lambda s, rival, label_smoothing: dict(
            input=_rows(s, s, 0, rival), target=_classes(s, 0), label_smoothing=label_smoothing
        ),
        {"rival": Slider("rival, the logit of another class", 0.0, -2.0, 4.0, 1.0), "label_smoothing": SMOOTHING},
    ),
    "nll_loss": Curve(
        "log-probability of the target",
        (-5, 0),
        lambda s, weight: dict(
            input=_rows(s, s, -1.0), target=_classes(s, 0), weight=torch.tensor([weight, 1.0], dtype=s.dtype)
        ),
        {"weight": replace(WEIGHT, label="weight of the target's class")},
    ),
    "multi_margin_loss": Curve(
        "score of the target; the others are 0 and 0.5",
        (-2, 3),
        lambda s, p, margin: dict(input=_rows(s, s, 0, 0.5), target=_classes(s, 0), p=int(p), margin=margin),
        {"p": Slider("p, the power of the hinge: 1 or 2", 1.0, 1.0, 2.0, 1.0), "margin": MARGIN},
    ),
    "multilabel_margin_loss": Curve(
        "score of a label; the other label has 1",
        (-2, 4),
        lambda s, rival: dict(input=_rows(s, s, 1, rival, -0.5), target=_classes(s, [0, 1, -1, -1])),
        {"rival": Slider("rival, the score of a class that is no label", 0.5, -1.0, 2.0, 0.125)},
    ),
    "multilabel_soft_margin_loss": Curve(
        "score of the first label; the second has 0",
        (-6, 6),
        lambda s, target: dict(input=_rows(s, s, 0), target=_rows(s, target, 1)),
        {"target": SHARE},
    ),
    "cosine_embedding_loss": Curve(
        "angle between the vectors, in radians",
        (0, 3.1),
        _turned,
        {"target": replace(SIGN, default=-1.0), "margin": Slider("margin, a cosine", 0.0, -0.5, 0.875, 0.125)},
    ),
    "triplet_margin_loss": Curve(
        "position of the negative, which passes the anchor",
        (-2.5, 2.5),
        _negative_passes,
        {"p": Slider("p, of the norm", 2.0, 1.5, 4.0, 0.5), "margin": replace(MARGIN, low=0.25, step=0.25)},
    ),
    "triplet_margin_with_distance_loss": Curve(
        "position of the negative, which passes the anchor; squared distances",
        (-2.5, 2.5),
        functools.partial(_negative_passes, distance_function=_squared_distance),
        {"margin": replace(MARGIN, low=0.125)},
    ),
    "ctc_loss": Curve(
        "log-score of the first label in the second frame",
        (-6, 4),
        _second_frame,
        {
            "frames": Slider("frames", 4.0, 2.0, 6.0, 1.0),
            "blank": Slider("blank, its log-score in every frame", -1.0, -4.0, 0.0, 0.5),
        },
    ),
    "linear_cross_entropy": Curve(
        "length of the features, along a fixed direction",
        (-3, 4),
        _projected,
        {"bias": Slider("bias of the target's class", 0.0, -2.0, 2.0, 0.5), "label_smoothing": SMOOTHING},
    ),
    "adaptive_log_softmax_with_loss": Curve(
        "length of the features, along a fixed direction",
        (-3, 4),
        _adaptive,
        {"target": Slider("target: 0 and 1 are frequent, 2 and 3 rare", 2.0, 0.0, 3.0, 1.0)},
        adaptive_cross_entropy,
    ),
}
"""The line of each loss, by its name."""
