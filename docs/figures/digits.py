"""What the cost of a nine does to the errors of ``examples/digits.py``, trained here for a few epochs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import Tensor

import manual_grad
from figures import BLUE, GREEN, ORANGE, PURPLE, clean, figure
from manual_grad.study import plot

sys.path.append(str(Path(manual_grad.__file__).parents[1] / "examples"))  # which is not a package

import digits as example

COSTS = {1: BLUE, 2: GREEN, 5: ORANGE, 20: PURPLE}
BESIDE_TORCH = (1, 20)  # not all, since the site should build fast
EPOCHS, SEED = 12, 1


@figure(9, 3.6)
def digits(page: Figure) -> None:
    data = example.load(SEED)
    curves, *counts = page.subplots(1, 3, width_ratios=(6, 4, 4))
    trained, shifted = [], []
    for cost, color in COSTS.items():
        price = torch.ones(10, dtype=torch.float64)
        price[example.NINE] = cost
        ours = train(data, example.LIBRARIES["manual_grad"], price)
        curves.plot(ours.test, color=color, linewidth=2, label=f"cost {cost}")
        if cost in BESIDE_TORCH:
            theirs = train(data, example.LIBRARIES["torch"], price)
            assert example.largest_difference(ours, theirs) <= example.ROUNDING
            curves.plot(theirs.test, "o", color=color, mfc="none")
        trained.append(errors(ours.prediction, data.test_target))
        if cost == 1:
            plain = ours
        shifted.append(errors((plain.probability * price).argmax(dim=1), data.test_target))
    for runs in (trained, shifted):
        saved, alarms = runs[0][0] - runs[-1][0], runs[-1][1] - runs[0][1]
        assert 0 < saved < alarms, "the guide says that more others are called nine than nines are saved"
    assert shifted[-1][1] > trained[-1][1], "the guide says that weighting afterwards raises more false alarms"

    curves.set(title="test loss", xlabel="epoch", yscale="log")
    curves.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    curves.yaxis.set_major_formatter("{x:g}")
    curves.yaxis.set_minor_locator(NullLocator())
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    clean(curves)
    curves.legend(frameon=False, fontsize="small")
    for ax, kind, title in zip(counts, (0, 1), ("nines missed", "others called nine"), strict=True):
        draw_counts(ax, [run[kind] for run in trained], [run[kind] for run in shifted])
        ax.set_title(title)
    counts[1].legend(frameon=False, fontsize="small", loc="upper left")


def train(data: example.Digits, cross_entropy: example.Loss, price: Tensor) -> example.Run:
    with torch.random.fork_rng(devices=[]):
        return example.train(example.cost_sensitive(cross_entropy, price), data, EPOCHS, SEED, lambda loss: None)


def errors(prediction: Tensor, target: Tensor) -> tuple[int, int]:
    """How many nines are missed, and how many other digits are called nine."""
    is_nine, called = target == example.NINE, prediction == example.NINE
    return int((is_nine & ~called).sum()), int((~is_nine & called).sum())


def draw_counts(ax: Axes, trained: list[int], shifted: list[int]) -> None:
    places = range(len(COSTS))
    ax.bar_label(ax.bar(places, trained, width=0.56, color=COSTS.values()), padding=2)
    ax.plot(
        [place + 0.4 for place in places], shifted, "o", color=plot.INK, mfc="none", label="plain, weighted\nafterwards"
    )
    ax.set_xticks(places, [f"cost {cost}" for cost in COSTS], fontsize="small")
    ax.set_ylim(0, 1.2 * max(trained + shifted))
    clean(ax)
