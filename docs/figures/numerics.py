"""The digits that formulas of losses lose in float32, against exact results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpmath import mp, mpf, workdps
from torch import Tensor
from torch.nn import functional as torchs

import manual_grad.functional as F
from figures import BLUE, GREEN, ORANGE, clean, figure
from manual_grad.study import plot

EPS = torch.finfo(torch.float32).eps
LEAST, MOST = 1e-2, 1e9  # of the axis


def exact(function: Callable[[Any], Any], x: Tensor) -> Tensor:
    with workdps(60):
        return torch.tensor([float(function(mpf(v))) for v in x.tolist()], dtype=torch.float64)


def errors(got: Tensor, exactly: Tensor) -> Tensor:
    """In eps; what is infinite or NaN is off the axis."""
    off = (got.double() - exactly).abs() / exactly.abs() / EPS
    return off.nan_to_num(MOST, MOST).clamp(LEAST, MOST)


def axis(ax: Axes, title: str, label: str) -> None:
    ax.axhline(1 / EPS, color=plot.INK, linewidth=1, linestyle="--")
    ax.set(title=title, xlabel=label, yscale="log", ylim=(LEAST / 1.5, MOST * 1.5))
    clean(ax)


@figure(9, 3.9)
def numerics_cross_entropy(page: Figure) -> None:
    lead = torch.linspace(0, 40, 321)
    z = torch.stack([lead, 0 * lead, 0 * lead], 1)
    right = torch.zeros(len(z), dtype=torch.long)
    by_hand = (
        exact(lambda v: mp.log(1 + 2 * mp.exp(-v)), lead),
        exact(lambda v: -2 * mp.exp(-v) / (1 + 2 * mp.exp(-v)), lead),
    )
    panels = page.subplots(1, 2, sharey=True)
    for name, loss, color in (("torch", torchs.cross_entropy, ORANGE), ("manual_grad", F.cross_entropy, BLUE)):
        scores = z.clone().requires_grad_()
        value = loss(scores, right, reduction="none")
        (slope,) = torch.autograd.grad(value.sum(), scores)
        for ax, got, exactly in zip(panels, (value.detach(), slope[:, 0]), by_hand, strict=True):
            ax.plot(lead, errors(got, exactly), color=color, linewidth=1.4, label=name)
    axis(panels[0], "loss", "lead of the right class")
    axis(panels[1], "gradient in its score", "lead of the right class")
    panels[0].set_ylabel("error in eps")
    panels[1].text(40, 1.6 / EPS, "no digit", ha="right", va="bottom")
    panels[0].legend(frameon=False, loc="center right")


@figure(9, 3.9)
def numerics_log1p(page: Figure) -> None:
    left, right = page.subplots(1, 2, sharey=True)
    x = torch.linspace(-40, 100, 561)
    exactly = exact(lambda v: mp.log(1 + mp.exp(v)), x)
    target = torch.zeros_like(x)
    for name, got, color in (
        ("log(1 + exp(x))", torch.log(1 + x.exp()), GREEN),
        ("torch", torchs.binary_cross_entropy_with_logits(x, target, reduction="none"), ORANGE),
        ("manual_grad", F.binary_cross_entropy_with_logits(x, target, reduction="none"), BLUE),
    ):
        left.plot(x, errors(got, exactly), color=color, linewidth=1.4, label=name)
    axis(left, "log(1 + eˣ)", "x")
    left.set_ylabel("error in eps")
    a = torch.logspace(-8, 1.9, 401)
    exactly = exact(lambda v: mp.log(1 - mp.exp(-v)), a)
    for name, got, color in (
        ("log1p(-exp(-a))", torch.log1p(-torch.exp(-a)), GREEN),
        ("log(-expm1(-a))", torch.log(-torch.expm1(-a)), ORANGE),
    ):
        right.plot(a, errors(got, exactly), color=color, linewidth=1.4, label=name)
    axis(right, "log(1 − e⁻ᵃ)", "a")
    right.set_xscale("log")
    left.text(-40, 1.6 / EPS, "no digit", ha="left", va="bottom")
    left.text(84, MOST, "infinite", ha="right", va="center")
    left.legend(frameon=False, loc="center", fontsize=9)
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.55, 0.78), fontsize=9)
