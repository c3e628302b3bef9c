"""Figures of losses for regression."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

import manual_grad.functional as F
from figures import BLUE, GREEN, ORANGE, clean, figure


@figure(6, 3.4)
def huber_explained(page: Figure) -> None:
    ax = page.subplots()
    r = torch.linspace(-3, 3, 301, dtype=torch.float64)
    zero, delta = torch.zeros_like(r), 1.0
    ax.plot(r, F.mse_loss(r, zero, reduction="none") / 2, color=ORANGE, linewidth=1, label="all noise: ½ r²")
    ax.plot(r, delta * F.l1_loss(r, zero, reduction="none"), color=GREEN, linewidth=1, label="all error: δ |r|")
    ax.plot(r, F.huber_loss(r, zero, delta=delta, reduction="none"), color=BLUE, linewidth=2.5, label="cheapest")
    for side in (-delta, delta):
        ax.axvline(side, color=BLUE, linewidth=0.8, linestyle=":")
    ax.set(xlim=(-3, 3), ylim=(0, 3), xlabel="residual r")
    ax.legend(frameon=False, loc="upper center", fontsize="small")
    clean(ax)
