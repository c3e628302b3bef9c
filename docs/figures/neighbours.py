"""Losses of one kind beside each other: their values, and their gradients."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from figures import COLORS, add, clean
from manual_grad.study import curves, plot


class Neighbours(NamedTuple):
    """Losses along the same axis, each with the parameters that are not at their defaults."""

    axis: str
    span: tuple[float, float]
    tallest: float  # of the losses that are shown in full
    steepest: float
    losses: dict[str, dict[str, float]]


KINDS = {
    "regression": Neighbours(
        "residual x − t",
        (-3, 3),
        4.5,
        2.2,
        {
            "mse_loss": {},
            "l1_loss": {},
            "huber_loss": {},
            "log_cosh_loss": {},
            "charbonnier_loss": {"eps": 0.5},
            "student_t_nll_loss": {},
            "quantile_loss": {"quantile": 0.75},
        },
    ),
    "binary": Neighbours(
        "logit x of a positive",
        (-5, 5),
        5,
        1.1,
        {
            "binary_cross_entropy_with_logits": {},
            "sigmoid_focal_loss": {},
            "asymmetric_loss": {"target": 1.0, "gamma_neg": 4.0},
            "soft_margin_loss": {},
        },
    ),
    "counts": Neighbours(
        "log of the mean x, for a count of 2",
        (-2, 3),
        15,
        8,
        {"poisson_nll_loss": {"target": 2.0}, "negative_binomial_nll_loss": {"target": 2.0}, "tweedie_loss": {}},
    ),
    "classes": Neighbours(
        "score of the right class; the others are 0 and 0.5",
        (-3, 3),
        4,
        1.1,
        {"cross_entropy": {}, "multi_margin_loss": {}},
    ),
    "preferences": Neighbours(
        "margin of the chosen answer over the rejected one, for β = 1",
        (-6, 6),
        5,
        1.5,
        {name: {} for name in ("dpo_loss", "ipo_loss", "slic_loss", "exo_loss")},
    ),
}


def draw(kind: Neighbours, page: Figure) -> None:
    left, right = page.subplots(1, 2)
    s = torch.linspace(*kind.span, 301, dtype=torch.float64)
    for i, ((loss, params), color) in enumerate(zip(kind.losses.items(), COLORS, strict=False)):
        curve = curves.curve_of(loss)
        params = {name: slider.default for name, slider in curve.sliders.items()} | params
        value, slope, _ = curves.along(loss, s, params)
        line = dict(color=color, linewidth=2, linestyle=("-", "--", "-.", ":")[i % 4])
        left.plot(s, value, **line)
        right.plot(s, slope, **line, label=loss)
    for ax, title, low, high in ((left, "loss", 0, kind.tallest), (right, "gradient", -kind.steepest, kind.steepest)):
        ax.set(title=title, xlim=kind.span, ylim=(low - 0.05 * high, high))
        ax.axhline(0, color=plot.INK, linewidth=0.6, alpha=0.6)
    clean((left, right))
    page.supxlabel(kind.axis, color=plot.INK, fontsize="medium")
    page.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)


for name, kind in KINDS.items():
    add(f"neighbours_{name}", 9, 3.9, partial(draw, kind))
