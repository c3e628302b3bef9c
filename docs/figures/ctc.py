"""The lattice of CTC, with the probability of being in each state, and what the network's scores get as a gradient."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import manual_grad.functional as F
from figures import figure
from manual_grad.losses.path import ctc_loss as chapter
from manual_grad.study import plot

BLANK, LETTERS = 0, "C A T".split()
SYMBOLS = ["–", *LETTERS]
TARGET = [1, 2, 3]
FRAMES = 9


def scores() -> Tensor:
    """A network that hears C early, A in the middle, and is not sure of when T comes."""
    frame = torch.arange(FRAMES, dtype=torch.float64)
    heard = [(1.5, 1.2), (4.0, 1.0), (6.5, 1.6)]
    bumps = [2.5 * torch.exp(-(((frame - center) / width) ** 2)) for center, width in heard]
    return torch.stack([torch.full_like(frame, 1.0), *bumps], dim=1)


@figure(9, 3.6)
def ctc_lattice(page: Figure) -> None:
    z = scores().requires_grad_()
    x = z.log_softmax(1)
    inputs = x.detach()[:, None], torch.tensor([TARGET]), torch.tensor([FRAMES]), torch.tensor([len(TARGET)])
    gamma, _, _ = chapter._posterior(chapter._lattice(inputs, BLANK))
    loss = F.ctc_loss(x, torch.tensor(TARGET), (FRAMES,), (len(TARGET),), reduction="sum")
    (slope,) = torch.autograd.grad(loss, z)
    left, right = page.subplots(1, 2)
    states = [SYMBOLS[k] for k in (0, 1, 0, 2, 0, 3, 0)]
    heat(page, left, gamma[:, 0].T, states, "Blues", (0.0, 1.0))
    steps(left, gamma[:, 0], states)
    left.set_title("posterior of the states")
    heat(page, right, slope.T, SYMBOLS, "RdBu_r", (-0.6, 0.6))
    right.set_title("gradient by the scores, p − γ")


def heat(page: Figure, ax: Axes, values: Tensor, labels: list[str], colors: str, limits: tuple[float, float]) -> None:
    image = ax.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1], aspect="auto")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xlabel("frame")
    page.colorbar(image, ax=ax, pad=0.02).outline.set_visible(False)
    ax.spines[:].set_visible(False)


def steps(ax: Axes, gamma: Tensor, states: list[str]) -> None:
    """The allowed steps, as far as walks that spell the target take them."""
    for t in range(FRAMES - 1):
        for r in range(len(states)):
            for s in range(r, min(r + 3, len(states))):
                allowed = s - r < 2 or (states[s] != "–" and states[s] != states[r])
                if allowed and gamma[t, r] > 0 and gamma[t + 1, s] > 0:
                    ax.plot([t, t + 1], [r, s], color=plot.INK, linewidth=0.7, alpha=0.7)
