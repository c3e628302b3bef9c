"""The figures of the guide on information."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import manual_grad.functional as F
from figures import BLUE, GREEN, ORANGE, clean, figure
from manual_grad.study import plot

TRUTH, GUESS = 0.75, 0.4  # the coin of the guide, and a wrong model of it


def entropy(t: Tensor) -> Tensor:
    return F.binary_cross_entropy(t, t, reduction="none")


def cross_entropy(t: Tensor, p: Tensor) -> Tensor:
    return F.binary_cross_entropy(p.expand_as(t), t, reduction="none")


@figure(9, 3.9)
def information_coin(page: Figure) -> None:
    left, right = page.subplots(1, 2, sharey=True)
    s = torch.linspace(0, 1, 401, dtype=torch.float64)
    inside = torch.linspace(1e-3, 1 - 1e-3, 999, dtype=torch.float64)
    t, q = (torch.tensor(value, dtype=torch.float64) for value in (TRUTH, GUESS))
    curve = dict(linewidth=2.2, color=BLUE)
    line = dict(linewidth=2, color=ORANGE, linestyle="--")
    gap = dict(color=GREEN, linewidth=2.2, solid_capstyle="butt")

    left.plot(s, entropy(s), label="entropy H(t)", **curve)
    left.plot(s, cross_entropy(s, q), label="cross entropy H(t, p)", **line)
    left.plot(GUESS, entropy(q), "o", color=ORANGE, markersize=6)
    left.set(xlabel=f"frequency t of heads, for the model p = {GUESS:g}", ylabel="nats")

    right.axhline(entropy(t), **curve)
    right.plot(inside, cross_entropy(t.expand_as(inside), inside), **line)
    right.plot(TRUTH, entropy(t), "o", color=ORANGE, markersize=6)
    right.set(xlabel=f"model p, for the frequency t = {TRUTH:g}")

    for ax, at in ((left, TRUTH), (right, GUESS)):
        ax.plot([at, at], [entropy(t), cross_entropy(t, q)], label="divergence KL(t ∥ p)", **gap)
        ax.set(xlim=(0, 1), ylim=(0, 1.4))
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    clean((left, right))
    page.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=10)


def slopes(loss: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def squared(x: Tensor) -> Tensor:
    return F.mse_loss(x.sigmoid(), torch.ones_like(x), reduction="none")


def logistic(x: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none")


@figure(9, 3.9)
def information_sigmoid(page: Figure) -> None:
    axes = value, slope, path = page.subplots(1, 3)
    x = torch.linspace(-8, 4, 401, dtype=torch.float64)
    for loss, name, color, style in (
        (squared, "mse_loss of the sigmoid", BLUE, "--"),
        (logistic, "binary_cross_entropy_with_logits", ORANGE, "-"),
    ):
        line = dict(color=color, linewidth=2.2, linestyle=style)
        e, d = slopes(loss, x)
        value.plot(x, e, **line)
        slope.plot(x, d, label=name, **line)
        path.plot(*descent(loss), **line)
    for ax, title in zip(axes, ("loss", "gradient", "p while training"), strict=True):
        ax.set_title(title, fontsize="medium")
    for ax in (value, slope):
        ax.set(xlabel="logit x of a positive", xlim=(-8, 4), xticks=[-8, -4, 0, 4])
    value.set(ylim=(0, 4))
    slope.axhline(0, color=plot.INK, linewidth=0.6, alpha=0.6)
    slope.set(ylim=(-1.05, 0.25))
    path.set(xlabel="step", xlim=(0, 300), ylim=(0, 1))
    clean(axes)
    page.legend(*slope.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=10)


def descent(loss: Any, steps: int = 300) -> tuple[range, list[float]]:
    """The probability after each step of gradient descent from a logit of -6."""
    x = torch.tensor(-6.0)
    p = []
    for _ in range(steps):
        p.append(x.sigmoid().item())
        x = x - slopes(loss, x)[1]
    return range(steps), p
