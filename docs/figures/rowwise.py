"""What losses of classes, of pairs and of triplets do to their inputs."""

from __future__ import annotations

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import manual_grad.functional as F
from figures import BLUE, COLORS, GREEN, ORANGE, PURPLE, RED, clean, figure
from manual_grad.study import plot

STYLES = ("-", "--", "-.", ":")


def slope(loss: Tensor, at: Tensor) -> Tensor:
    (d,) = torch.autograd.grad(loss.sum(), at)
    return d.detach()


def points(low: float, high: float, count: int = 301) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64, requires_grad=True)


def beside(page: Figure, axis: str) -> tuple[Axes, Axes]:
    """Two panels, for a loss and its gradient."""
    left, right = page.subplots(1, 2)
    for ax, title in ((left, "loss"), (right, "gradient")):
        ax.set(title=title)
        ax.axhline(0, color=plot.INK, linewidth=0.6, alpha=0.6)
    clean((left, right))
    page.supxlabel(axis, color=plot.INK, fontsize="medium")
    return left, right


def two_classes(gap: Tensor) -> Tensor:
    """Scores of two classes, of which the first is ahead by ``gap``."""
    return torch.stack([gap, torch.zeros_like(gap)], -1)


@figure(9, 3.6)
def label_smoothing(page: Figure) -> None:
    """Cross entropy of ten classes against the lead of the right one."""
    left, right = beside(page, "lead of the right class over the nine others")
    classes = 10
    for eps, color, style in zip((0.0, 0.1, 0.3), COLORS, STYLES, strict=False):
        lead = points(-4, 10)
        z = torch.cat([lead.unsqueeze(1), torch.zeros(len(lead), classes - 1)], 1)
        y = torch.zeros(len(lead), dtype=torch.int64)
        value = F.cross_entropy(z, y, label_smoothing=eps, reduction="none")
        line = dict(color=color, linewidth=2, linestyle=style)
        left.plot(lead.detach(), value.detach(), **line)
        right.plot(lead.detach(), slope(value, lead), **line, label=f"ε = {eps:g}")
        if eps:
            best = math.log((1 - eps + eps / classes) / (eps / classes))
            right.plot(best, 0, "o", color=color, markersize=6)
            left.axvline(best, color=color, linewidth=1, alpha=0.7, linestyle=":")
    right.legend(frameon=False, loc="lower right")


@figure(9, 3.6)
def additions_of_a_head(page: Figure) -> None:
    """Cross entropy of three classes with a softcap, with a z-loss and with label smoothing."""
    left, right = page.subplots(1, 2)
    along = points(-10, 10)
    zero = torch.zeros_like(along)
    lines = (
        (left, "lead of the right class", torch.stack([along, zero, zero], -1)),
        (right, "shift of all scores", torch.stack([along + 1, along, along], -1)),
    )
    additions = {"none": {}, "softcap = 4": {"softcap": 4.0}, "z-loss, λ = 0.05": {"z_loss": 0.05}}
    additions["label smoothing, ε = 0.2"] = {"label_smoothing": 0.2}
    for ax, axis, z in lines:
        for (label, addition), color, style in zip(additions.items(), COLORS, STYLES, strict=False):
            loss = F.cross_entropy(z, torch.zeros(len(z), dtype=torch.int64), reduction="none", **addition)
            ax.plot(along.detach(), loss.detach(), color=color, linewidth=2, linestyle=style, label=label)
        ax.set(title="loss", xlabel=axis, ylim=(-0.2, 11 if ax is left else 4))
    left.legend(frameon=False)
    clean((left, right))


@figure(9, 4.2)
def triplet_regions(page: Figure) -> None:
    """The loss, and what pushes the negative, for every place that it may have."""
    left, right = page.subplots(1, 2, sharey=True)
    anchor, positive, span = (-0.6, 0.0), (0.6, 0.0), 3.2
    for ax, swap in ((left, False), (right, True)):
        for count, arrows in ((73, False), (13, True)):
            s = torch.linspace(-span, span, count, dtype=torch.float64)
            x, y = torch.meshgrid(s, s, indexing="xy")
            n = torch.stack([x, y], -1).requires_grad_()
            a, p = (torch.tensor(at, dtype=torch.float64).expand_as(n) for at in (anchor, positive))
            value = F.triplet_margin_loss(a, p, n, margin=1.0, swap=swap, reduction="none")
            if arrows:
                u, v = (-slope(value, n)).unbind(-1)
                moved = (u != 0) | (v != 0)
                ax.quiver(x[moved], y[moved], u[moved], v[moved], color=plot.INK, scale=22, width=0.005, zorder=3)
            else:
                # with a margin that is larger by 1 the loss is larger by 1, and has no kink where it was 0
                value = F.triplet_margin_loss(a, p, n, margin=2.0, swap=swap, reduction="none").detach()
                levels = torch.linspace(1, 3.2, 9).tolist()
                ax.contourf(x, y, value, levels, cmap="Blues", alpha=0.75, extend="max")
                ax.contour(x, y, value, levels[:1], colors=BLUE, linewidths=1.8)
        ax.plot(*anchor, "o", color=RED, markersize=8, zorder=4)
        ax.plot(*positive, "s", color=GREEN, markersize=8, zorder=4)
        for name, at, color in (("a", anchor, RED), ("p", positive, GREEN)):
            behind = dict(boxstyle="round,pad=0.15", facecolor="white", edgecolor="none", alpha=0.85)
            ax.annotate(name, at, (-4, 10), textcoords="offset points", color=color, fontweight="bold", bbox=behind)
        ax.text(-3, -3, "loss 0", color=BLUE)
        ax.set(title=f"swap={swap}", aspect="equal", xlim=(-span, span), ylim=(-span, span))
    clean((left, right))


@figure(9, 3.6)
def cosine_angle(page: Figure) -> None:
    """Cosine embedding loss against the angle of two unit vectors."""
    left, right = beside(page, "angle in degrees")
    pairs = ((1, 0.0, "y = 1"), (-1, 0.0, "y = −1, m = 0"), (-1, 0.5, "y = −1, m = 0.5"))
    for (y, margin, label), color, style in zip(pairs, COLORS, STYLES, strict=False):
        angle = points(0, math.pi)
        a = torch.stack([angle.cos(), angle.sin()], -1)
        b = torch.tensor([1.0, 0.0], dtype=torch.float64).expand_as(a)
        target = torch.full((len(angle),), float(y), dtype=torch.float64)
        value = F.cosine_embedding_loss(a, b, target, margin, reduction="none")
        line = dict(color=color, linewidth=2, linestyle=style)
        degrees = angle.detach().rad2deg()
        left.plot(degrees, value.detach(), **line, label=label)
        right.plot(degrees, slope(value, angle), **line)
    right.set_title("gradient by the angle, in radians")
    for ax in (left, right):
        ax.set_xticks(range(0, 181, 45))
    left.legend(frameon=False)


@figure(9, 3.6)
def temperature_of_negatives(page: Figure) -> None:
    """Which negatives push a query away, at four temperatures, and the loss that remains."""
    left, right = page.subplots(1, 2)
    cosine = torch.linspace(-1, 0.9, 39, dtype=torch.float64)
    for T, color, style in zip((1.0, 0.5, 0.2, 0.07), COLORS, STYLES, strict=False):
        query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        every = torch.cat([torch.tensor([0.8], dtype=torch.float64), cosine])  # the first is the positive
        key = torch.stack([every, (1 - every.square()).sqrt()], -1).requires_grad_()
        push = slope(F.info_nce_loss(query, key, T), key)[1:, 0]  # that of a key is its probability / T
        left.plot(cosine, push / push.sum(), color=color, linewidth=2, linestyle=style, label=f"T = {T:g}")

        own = points(-1, 1)
        value = []
        for c in own.unbind():
            keys = torch.stack([torch.cat([c.view(1), cosine]), torch.zeros(len(cosine) + 1, dtype=torch.float64)], -1)
            value.append(F.info_nce_loss(query, keys, T))
        right.plot(own.detach(), torch.stack(value).detach(), color=color, linewidth=2, linestyle=style)
    left.set(title="share of each negative in the push", xlabel="cosine of the negative", ylim=(-0.01, 0.5))
    right.set(title="loss", xlabel="cosine of the own key", ylim=(-0.2, 8))
    left.legend(frameon=False)
    right.set_xticks((-1, -0.5, 0, 0.5, 1))
    clean((left, right))


@figure(9, 3.6)
def distillation_temperature(page: Figure) -> None:
    """Distillation of two classes at three temperatures, and the parabola to which it tends."""
    left, right = beside(page, "the student's lead of the first class; the teacher's is 4")
    for T, color, style in zip((1.0, 2.0, 4.0), (BLUE, ORANGE, GREEN), STYLES, strict=False):
        lead = points(-4, 12)
        teacher = two_classes(torch.full_like(lead, 4.0)).detach()
        value = F.distillation_loss(two_classes(lead), teacher, temperature=T, reduction="none")
        line = dict(color=color, linewidth=2, linestyle=style)
        left.plot(lead.detach(), value.detach(), **line)
        right.plot(lead.detach(), slope(value, lead), **line, label=f"T = {T:g}")
    lead = points(-4, 12)
    value = F.mse_loss(lead, torch.full_like(lead, 4.0), reduction="none") / 8
    line = dict(color=plot.INK, linewidth=1.4, linestyle=":")
    left.plot(lead.detach(), value.detach(), **line)
    right.plot(lead.detach(), slope(value, lead), **line, label="T → ∞")
    right.legend(frameon=False)


@figure(9, 3.6)
def distillation_divergences(page: Figure) -> None:
    """Four divergences of a student from a teacher."""
    left, right = beside(page, "the student's lead of the first class; the teacher's is 2")
    names = {"forward_kl": BLUE, "reverse_kl": ORANGE, "jsd": GREEN, "tv": PURPLE}
    for (name, color), style in zip(names.items(), STYLES, strict=True):
        lead = points(-6, 8)
        teacher = two_classes(torch.full_like(lead, 2.0)).detach()
        value = F.distillation_loss(two_classes(lead), teacher, name, reduction="none")
        line = dict(color=color, linewidth=2, linestyle=style)
        left.plot(lead.detach(), value.detach(), **line, label=name)
        right.plot(lead.detach(), slope(value, lead), **line)
    left.set_ylim(-0.1, 3)
    left.legend(frameon=False)
