"""Losses of preferences and policies: what each completion and each token is told."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import manual_grad.functional as F
from figures import BLUE, GREEN, ORANGE, PURPLE, clean, figure
from manual_grad.study import plot

STYLES = {BLUE: "-", ORANGE: "--", GREEN: "-.", PURPLE: ":"}
ANCHORED: tuple[tuple[str, Callable[..., Tensor]], ...] = (
    ("dpo_loss", F.dpo_loss),
    ("sppo_loss", F.sppo_loss),
    ("nca_loss", F.nca_loss),
    ("apo_loss, zero", F.apo_loss),
)


def traced(loss: Callable[[Tensor], Tensor], s: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope of an elementwise function."""
    s = s.detach().requires_grad_()
    value = loss(s)
    (slope,) = torch.autograd.grad(value.sum(), s)
    return value.detach(), slope


def finished(page: Figure, axes: list[Axes], axis: str) -> None:
    """Zero lines, a clean ground, one label for all axes, and one legend without repetitions."""
    handles = {}
    for ax in axes:
        ax.axhline(0, color=plot.INK, linewidth=0.6, alpha=0.6)
        lines, names = ax.get_legend_handles_labels()
        handles |= dict(zip(names, lines, strict=True))
    clean(axes)
    page.supxlabel(axis, color=plot.INK, fontsize="medium")
    page.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)


@figure(9, 3.9)
def anchored_preferences(page: Figure) -> None:
    axes = list(page.subplots(1, 2, sharey=True))
    s = torch.linspace(-6, 6, 301, dtype=torch.float64)
    o = torch.zeros_like(s)
    for (name, loss), (color, dashes) in zip(ANCHORED, STYLES.items(), strict=True):
        line = dict(color=color, linewidth=2, linestyle=dashes, label=name)
        axes[0].plot(s, traced(lambda a, f=loss: f(a, o, o, o, beta=1.0, reduction="none"), s)[1], **line)
        axes[1].plot(s, traced(lambda b, f=loss: f(o, b, o, o, beta=1.0, reduction="none"), s)[1], **line)
    axes[0].set(title="gradient of the chosen answer", xlim=(-6, 6), ylim=(-1.6, 1.6))
    axes[1].set(title="gradient of the rejected answer", xlim=(-6, 6))
    finished(page, axes, "log-ratio of that answer; the other one is where the reference has it")


@figure(10, 3.9)
def clipped_surrogates(page: Figure) -> None:
    axes = list(page.subplots(1, 3))
    ratio = torch.linspace(0.005, 4, 800, dtype=torch.float64)

    def ppo(advantage: float, delta: float | None = None) -> tuple[Tensor, Tensor]:
        A = torch.full_like(ratio, advantage)
        return traced(lambda x: F.ppo_clip_loss(x, torch.zeros_like(x), A, delta=delta, reduction="none"), ratio.log())

    def cispo(advantage: float) -> Tensor:
        A = torch.full_like(ratio, advantage)
        return traced(lambda x: F.cispo_loss(x, x, A, ratio_max=3.0, reduction="none"), ratio.log())[1]

    plain = dict(color=BLUE, linewidth=2.4, label="ppo_clip_loss")
    dual = dict(color=GREEN, linewidth=2.4, linestyle="-.", label="ppo_clip_loss, delta = 3")
    truncated = dict(color=ORANGE, linewidth=2, linestyle="--", label="cispo_loss, ratio_max = 3")
    axes[0].plot(ratio, ppo(1.0)[0], **plain)
    axes[0].plot(ratio, ppo(-1.0, 3.0)[0], **dual)
    axes[0].plot(ratio, ppo(-1.0)[0], **plain)
    axes[0].text(2.2, -1.05, "A = 1", color=plot.INK)
    axes[0].text(1.1, 2.1, "A = −1", color=plot.INK)
    axes[1].plot(ratio, cispo(1.0), **truncated)
    axes[1].plot(ratio, ppo(1.0)[1], **plain)
    axes[2].plot(ratio, ppo(-1.0)[1], **plain)
    axes[2].plot(ratio, ppo(-1.0, 3.0)[1], **dual)
    axes[2].plot(ratio, cispo(-1.0), **truncated)
    for ax, title in zip(axes, ("loss", "gradient, A = 1", "gradient, A = −1"), strict=True):
        ax.set(title=title, xlim=(0, 4))
    finished(page, axes, "probability of the token, relative to when it was sampled")


@figure(9, 3.7)
def divergence_estimators(page: Figure) -> None:
    axes = list(page.subplots(1, 2))
    s = torch.linspace(-3, 3, 301, dtype=torch.float64)
    for k, (color, dashes) in zip(("k1", "k2", "k3"), STYLES.items(), strict=False):
        both = traced(lambda x, k=k: F.sampled_kl(x, torch.zeros_like(x), estimator=k, reduction="none"), s)
        for ax, y in zip(axes, both, strict=True):
            ax.plot(s, y, color=color, linewidth=2, linestyle=dashes, label=k)
    axes[0].set(title="estimate", xlim=(-3, 3), ylim=(-3, 5))
    axes[1].set(title="gradient", xlim=(-3, 3), ylim=(-4, 3))
    finished(page, axes, "log-probability of the sampled token, less that of the reference")
