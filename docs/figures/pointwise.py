"""Figures of single elementwise losses: what a parameter does, and where the minimum is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import manual_grad.functional as F
from figures import BLUE, COLORS, GREEN, ORANGE, PURPLE, RED, clean, figure, frame
from manual_grad.study import plot

STYLES = ("-", "--", "-.", ":", (0, (6, 2)))
Loss = Callable[[Tensor], Tensor]


def draw(ax: Axes, loss: Loss, s: Tensor, order: int, **line: Any) -> None:
    """Draw the loss at each position, or its gradient."""
    s = s.double().requires_grad_()
    y = loss(s)
    if order == 1:
        (y,) = torch.autograd.grad(y.sum(), s)
    ax.plot(s.detach(), y.detach(), linewidth=2, **line)


def minimize(loss: Callable[[], Tensor], *parameters: Tensor) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return float(value.detach())

    optimizer.step(step)


def to_zero(loss: Callable[..., Tensor], **options: Any) -> Loss:
    """The loss of each element against a target of 0."""
    return lambda x: loss(x, torch.zeros_like(x), reduction="none", **options)


@figure(9, 3.4)
def smooth_l1_and_huber(page: Figure) -> None:
    left, right = page.subplots(1, 2)
    s = torch.linspace(-3, 3, 601)
    for bend, color, style in zip((0.25, 1.0, 2.0), (BLUE, ORANGE, GREEN), STYLES, strict=False):
        for ax, loss, name in ((left, F.smooth_l1_loss, "beta"), (right, F.huber_loss, "delta")):
            line = dict(color=color, linestyle=style, label=f"{name} = {bend:g}")
            draw(ax, to_zero(loss, **{name: bend}), s, 1, **line)
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=9, loc="upper left")
    limits = dict.fromkeys(("gradient of smooth_l1_loss", "gradient of huber_loss"), (-2.3, 2.3))
    frame(page, "residual x − t", (-3, 3), limits)


@figure(9, 3.6)
def quantile_fits(page: Figure) -> None:
    ax = page.subplots()
    random = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 4, 400, dtype=torch.float64)
    t = 0.5 + (0.3 + 0.5 * x) * -torch.rand(400, generator=random, dtype=torch.float64).log()
    ax.scatter(x, t, s=7, color=plot.INK, alpha=0.55, linewidth=0, label="sample")

    def fitted(line: Tensor) -> Tensor:
        return line[0] + line[1] * x

    for quantile, color, style in zip((0.9, 0.5, 0.1), (ORANGE, BLUE, GREEN), ("--", "-", "-."), strict=True):
        line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        minimize(lambda line=line, q=quantile: F.quantile_loss(fitted(line), t, quantile=q), line)
        y = fitted(line.detach())
        label = f"quantile = {quantile}: {100 * (t < y).double().mean():.0f} % are below"
        ax.plot(x, y, color=color, linestyle=style, linewidth=2.2, label=label)
    ax.set(xlim=(0, 4), ylim=(0, 9), xlabel="x", ylabel="target")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    clean(ax)


@figure(9, 3.4)
def gaussian_variance(page: Figure) -> None:
    left, right = page.subplots(1, 2)
    v = torch.linspace(0.01, 6, 600, dtype=torch.float64)

    def loss(v: Tensor, r: float) -> Tensor:
        return F.gaussian_nll_loss(torch.full_like(v, r), torch.zeros_like(v), v, reduction="none")

    for r, color, style in zip((0.5, 1.0, 2.0), (BLUE, ORANGE, GREEN), STYLES, strict=False):
        best = torch.tensor([r * r], dtype=torch.float64)
        for order, ax in enumerate((left, right)):
            draw(ax, partial(loss, r=r), v, order, color=color, linestyle=style, label=f"r = {r:g}")
            ax.plot(best, loss(best, r) if order == 0 else 0 * best, "o", color=color, markersize=6)
    left.legend(frameon=False, fontsize=9, loc="upper right", ncols=3)
    limits = {"loss": (-0.6, 2.6), "gradient of the variance": (-1.6, 0.6)}
    frame(page, "variance v; a dot is at r²", (0, 6), limits)


@figure(9, 3.4)
def kl_directions(page: Figure) -> None:
    ax = page.subplots()
    s = torch.linspace(-6, 7, 521, dtype=torch.float64)

    def normal(mean: Tensor, log_width: Tensor) -> Tensor:
        return (-0.5 * ((s - mean) / log_width.exp()) ** 2).log_softmax(0)

    left, right = (normal(torch.tensor(mean), torch.tensor(log_width)) for mean, log_width in ((-2, -0.2), (3, -0.4)))
    log_p = torch.logaddexp(left + torch.tensor(0.6).log(), right + torch.tensor(0.4).log())

    def divergence(forward: bool, mean: Tensor, log_width: Tensor) -> Tensor:
        log_q = normal(mean, log_width)
        return F.kl_div(*((log_q, log_p) if forward else (log_p, log_q)), reduction="sum", log_target=True)

    ax.fill_between(s, log_p.exp(), color=plot.INK, alpha=0.3, linewidth=0, label="p, the target")
    for forward, name, color, style in (
        (True, "KL(p‖q), mode covering", BLUE, "-"),
        (False, "KL(q‖p), mode seeking", ORANGE, "--"),
    ):
        fit = [torch.tensor(start, dtype=torch.float64, requires_grad=True) for start in (-0.5, 0.5)]
        minimize(partial(divergence, forward, *fit), *fit)
        q = normal(*fit).exp().detach()
        ax.plot(s, q, color=color, linestyle=style, linewidth=2.2, label=f"q with the least {name}")
    ax.set(xlim=(-6, 7), ylim=(0, None), yticks=[], xlabel="x")
    ax.legend(frameon=False, fontsize=9, loc="upper right")
    clean(ax)


@figure(9, 3.6)
def focal_gammas(page: Figure) -> None:
    left, right = page.subplots(1, 2)
    s = torch.linspace(-5, 5, 501)

    def loss(x: Tensor, gamma: float) -> Tensor:
        return F.sigmoid_focal_loss(x, torch.ones_like(x), alpha=-1, gamma=gamma)

    for gamma, color, style in zip((0.0, 0.5, 1.0, 2.0, 5.0), COLORS, STYLES, strict=False):
        for order, ax in enumerate((left, right)):
            draw(ax, partial(loss, gamma=gamma), s, order, color=color, linestyle=style, label=f"gamma = {gamma:g}")
    left.legend(frameon=False, fontsize=9, loc="upper right")
    frame(page, "logit x of a positive, without alpha", (-5, 5), {"loss": (-0.2, 5), "gradient": (-1.4, 0.1)})


@figure(9, 3.6)
def asymmetric_negatives(page: Figure) -> None:
    ax = page.subplots()
    x = torch.linspace(-7, 9, 801)
    kinds = {
        "binary_cross_entropy_with_logits": to_zero(F.binary_cross_entropy_with_logits),
        "sigmoid_focal_loss, gamma = 2": to_zero(F.sigmoid_focal_loss, alpha=-1, gamma=2),
        "asymmetric_loss, gamma_neg = 4, clip = 0": to_zero(F.asymmetric_loss, clip=0),
        "asymmetric_loss, gamma_neg = 4, clip = 0.05": to_zero(F.asymmetric_loss, clip=0.05),
    }
    for (name, loss), color, style in zip(kinds.items(), (BLUE, ORANGE, GREEN, PURPLE), STYLES, strict=False):
        draw(ax, loss, x, 1, color=color, linestyle=style, label=name)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    frame(page, "logit x of a negative", (-7, 9), {"gradient": (-0.05, 1.5)})


@figure(9, 3.9)
def margins(page: Figure) -> None:
    left, right = page.subplots(1, 2)
    s = torch.linspace(-3, 3, 601)

    def hinge(x: Tensor, margin: float) -> Tensor:
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return F.margin_ranking_loss(x, zero, one, margin=margin, reduction="none")

    kinds: dict[str, Loss] = {
        "soft_margin_loss": lambda x: F.soft_margin_loss(x, torch.ones_like(x), reduction="none"),
        "margin_ranking_loss, margin = 1": partial(hinge, margin=1),
        "margin_ranking_loss, margin = 0": partial(hinge, margin=0),
    }
    for (name, loss), color, style in zip(kinds.items(), (BLUE, ORANGE, GREEN), STYLES, strict=False):
        for order, ax in enumerate((left, right)):
            draw(ax, loss, s, order, color=color, linestyle=style, label=name)
    left.plot([-3, 0, 0, 3], [1, 1, 0, 0], color=RED, linestyle=":", linewidth=2, label="errors: 1 for a wrong sign")
    axis = "margin: by how much the score, or the difference of two, is on the right side"
    frame(page, axis, (-3, 3), {"loss": (-0.15, 3.5), "gradient": (-1.15, 0.15)})
    page.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=9)
