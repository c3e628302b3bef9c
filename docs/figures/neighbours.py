"""Losses of one kind beside each other: their values, and their gradients."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from figures import COLORS, add, frame
from manual_grad.study import curves


class Neighbours(NamedTuple):
    """Losses along the same axis: from what the legend says, a name and what shapes the curve, to parameters to set."""

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
            "charbonnier_loss, eps 0.5": {"eps": 0.5},
            "student_t_nll_loss, df 2": {},
            "quantile_loss, 0.75": {"quantile": 0.75},
        },
    ),
    "binary": Neighbours(
        "logit x of a positive",
        (-5, 5),
        5,
        1.1,
        {
            "binary_cross_entropy_with_logits": {},
            "soft_margin_loss": {},
            "sigmoid_focal_loss, alpha 0.25, gamma 2": {},
            "asymmetric_loss, gamma_pos 1": {"target": 1.0},
        },
    ),
    "counts": Neighbours(
        "log of the mean x, for a count of 2",
        (-2, 3),
        15,
        8,
        {
            "poisson_nll_loss": {"target": 2.0},
            "negative_binomial_nll_loss, total_count 2": {"target": 2.0},
            "tweedie_loss, power 1.5": {"target": 2.0},
        },
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


STYLES = ("-", "--", "-.", (0, (1, 1.2)))  # those that coincide are seen through each other


def draw(kind: Neighbours, page: Figure) -> None:
    left, right = page.subplots(1, 2)
    s = torch.linspace(*kind.span, 301, dtype=torch.float64)
    for i, ((label, params), color) in enumerate(zip(kind.losses.items(), COLORS, strict=False)):
        loss = label.partition(",")[0]
        curve = curves.curve_of(loss)
        everything = {name: slider.default for name, slider in curve.sliders.items()} | params
        value, slope, _ = curves.along(loss, s, everything)
        line = dict(color=color, linewidth=2, linestyle=STYLES[i % len(STYLES)])
        left.plot(s, value, **line)
        right.plot(s, slope, **line, label=label)
    limits = {"loss": (-0.05 * kind.tallest, kind.tallest), "gradient": (-kind.steepest, kind.steepest)}
    frame(page, kind.axis, kind.span, limits)
    page.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9)


for name, kind in KINDS.items():
    add(f"neighbours_{name}", 9, 3.9, partial(draw, kind))
