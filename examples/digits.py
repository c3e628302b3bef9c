"""Classify handwritten digits when missing a nine is expensive.

A small convolutional network learns scikit-learn's 1,797 handwritten digits twice: with plain cross entropy, and with a
cost-sensitive one that charges several times more for a misclassified nine. Each is trained with manual_grad's loss and
with torch's, from the same seed. The loss curves must agree up to rounding.

The cost depends on the true digit: it penalizes nines that are missed, not other digits that are taken for nines. The
network then misses fewer nines, but calls more other digits nine. The figure shows both.

    python examples/digits.py --cost 5 --output digits.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import manual_grad.functional

LIBRARIES = {"manual_grad": manual_grad.functional.cross_entropy, "torch": nn.functional.cross_entropy}
NINE = 9
BATCH = 32

# The largest permitted difference between the curves. Everything runs in float64 (eps 2e-16), so this allows a few
# thousand eps for hundreds of training steps, but no mistake in a gradient.
ROUNDING = 1e-12

BLUE, ORANGE, GREY, PURPLE, GREEN, RED = "#1f77b4", "#ff7f0e", "#9aa5b1", "#7b3fa0", "#2a7f3f", "#c0392b"

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Digits:
    train_images: Tensor
    test_images: Tensor
    train_target: Tensor
    test_target: Tensor


@dataclass
class Run:
    train: list[float]  # loss before training and after every epoch
    test: list[float]
    probability: Tensor  # of each class, for every test image

    @property
    def prediction(self) -> Tensor:
        return self.probability.argmax(dim=1)


def load(seed: int) -> Digits:
    """A third for training and two thirds for testing, so that the test set has 120 nines."""
    images, target = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, target, test_size=2 / 3, stratify=target, random_state=seed)
    train_images, test_images = (torch.tensor(part).reshape(-1, 1, 8, 8) for part in parts[:2])
    return Digits(train_images, test_images, *(torch.tensor(part) for part in parts[2:]))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 10),
    ).double()


def cost_sensitive(cross_entropy: Callable[..., Tensor], cost: Tensor) -> Loss:
    """Cross entropy weighted by cost: a sample of class c counts cost[c] times in the mean.

    A common mistake is to average first and then multiply the scalar by a mask of the nines. That scales all samples of
    the batch alike: the step grows with the number of nines, but no nine counts more than the other samples. The cost
    must multiply each sample's own loss, before the mean.
    """

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        price = cost[target]
        return (price * cross_entropy(scores, target, reduction="none")).sum() / price.sum()

    return loss


def train(loss: Loss, digits: Digits, epochs: int, seed: int, report: Callable[[float], None]) -> Run:
    torch.manual_seed(seed)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)  # Adam would hide a wrong constant factor in the gradient
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    run = Run([], [], torch.empty(0))

    @torch.no_grad()
    def evaluate() -> None:
        run.train.append(loss(net(digits.train_images), digits.train_target).item())
        run.test.append(loss(net(digits.test_images), digits.test_target).item())

    evaluate()
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.train_target)).split(BATCH):
            optimizer.zero_grad()
            loss(net(digits.train_images[batch]), digits.train_target[batch]).backward()
            optimizer.step()
        schedule.step()
        evaluate()
        report(run.test[-1])
    with torch.no_grad():
        run.probability = net(digits.test_images).softmax(dim=1)
    return run


def largest_difference(ours: Run, theirs: Run) -> float:
    curves = zip(ours.train + ours.test, theirs.train + theirs.test, strict=True)
    return max(abs(a - b) for a, b in curves)


@contextmanager
def progress(epochs: int) -> Iterator[Callable[[str], Callable[[float], None]]]:
    """Yield a function that announces a run and returns a callback for the test loss of each epoch."""
    try:
        from rich import progress as rich
    except ImportError:
        yield lambda name: lambda loss: print(f"{name}: test loss {loss:.4f}", flush=True)
        return

    columns = (rich.TextColumn("{task.description:<29}"), rich.BarColumn(), rich.TextColumn("{task.fields[loss]}"))
    with rich.Progress(*columns, rich.TimeElapsedColumn()) as bars:

        def announce(name: str) -> Callable[[float], None]:
            task = bars.add_task(name, total=epochs, loss="")
            return lambda loss: bars.update(task, advance=1, loss=f"test loss {loss:.4f}")

        yield announce


def describe(runs: dict[str, Run], target: Tensor) -> str:
    """Accuracy, and the row and column of the confusion matrix for the nines."""
    is_nine = target == NINE
    lines = [f"{name:<15} {(run.prediction == target).double().mean():.1%} right" for name, run in runs.items()]
    lines += ["", f"{is_nine.sum()} nines are read as   " + "".join(f"{digit:>5}" for digit in range(10))]
    lines += [f"  {name:<21}" + counts(run.prediction[is_nine]) for name, run in runs.items()]
    lines += ["", "what is called nine is"]
    lines += [f"  {name:<21}" + counts(target[run.prediction == NINE]) for name, run in runs.items()]
    return "\n".join(lines)


def counts(digits: Tensor) -> str:
    return "".join(f"{count or '·':>5}" for count in torch.bincount(digits, minlength=10).tolist())


def telling_images(plain: Run, costly: Run, target: Tensor) -> list[int]:
    """Six test images: nines that the cost saved, a nine still missed, false alarms; then any nines."""
    is_nine, before, after = target == NINE, plain.prediction == NINE, costly.prediction == NINE
    saved, missed, alarms = is_nine & ~before & after, is_nine & ~after, ~is_nine & ~before & after
    groups = ((saved, 3), (missed, 1), (alarms, 2), (is_nine, 6), (~is_nine, 6))
    return list(dict.fromkeys(i for group, most in groups for i in group.nonzero()[:most, 0].tolist()))[:6]


def draw(runs: dict[str, dict[str, Run]], digits: Digits, output: Path) -> None:
    figure = plt.figure(figsize=(12, 7.2), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(9, 7))
    shown = {name: by_library["manual_grad"] for name, by_library in runs.items()}

    *curves, mistakes = above.subplots(1, 3, width_ratios=(5, 5, 4))
    curves[0].sharey(curves[1])
    for ax, (name, by_library) in zip(curves, runs.items(), strict=True):
        draw_curves(ax, by_library)
        ax.set(title=f"{name}: loss", xlabel="epoch")
    curves[0].legend(frameon=False, fontsize="small")

    draw_mistakes(mistakes, shown, digits.test_target == NINE)
    plain, costly = shown.values()
    for ax, i in zip(below.subplots(1, 6), telling_images(plain, costly, digits.test_target), strict=True):
        draw_image(ax, i, shown, digits)
    figure.savefig(output, dpi=150, bbox_inches="tight")


def draw_curves(ax: Axes, runs: dict[str, Run]) -> None:
    for part, color in (("train", BLUE), ("test", ORANGE)):
        ax.plot(getattr(runs["manual_grad"], part), color=color, label=f"{part}, manual_grad")
        ax.plot(getattr(runs["torch"], part), "o", color=color, mfc="none", ms=5, mew=0.8, label=f"{part}, torch")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    ax.grid(alpha=0.25)


def draw_mistakes(ax: Axes, runs: dict[str, Run], is_nine: Tensor) -> None:
    for row, ((name, run), color) in enumerate(zip(runs.items(), (GREY, PURPLE), strict=True)):
        called = run.prediction == NINE
        counted = [int((is_nine & ~called).sum()), int((~is_nine & called).sum())]
        ax.bar_label(ax.bar([0.2 + 0.4 * row, 1.4 + 0.4 * row], counted, width=0.36, color=color, label=name))
    ax.set_title(f"{is_nine.sum()} nines in {len(is_nine):,} test images")
    ax.set_xticks((0.4, 1.6), ("nines missed", "others called nine"))
    ax.set_yticks(())
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")


def draw_image(ax: Axes, i: int, runs: dict[str, Run], digits: Digits) -> None:
    truth = int(digits.test_target[i])
    ax.imshow(digits.test_images[i, 0], cmap="gray_r")
    ax.set(xticks=(), yticks=(), title=f"a {truth}")
    for row, (name, run) in enumerate(runs.items()):
        read = int(run.prediction[i])
        text, color = f"{name}: {read} ({run.probability[i, read]:.0%})", GREEN if read == truth else RED
        ax.text(0.5, -0.12 - 0.13 * row, text, color=color, ha="center", va="center", transform=ax.transAxes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images (%(default)s)")
    parser.add_argument(
        "--cost", type=float, default=5.0, help="cost of missing a nine; other digits cost 1 (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the split, the network and the batches (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("digits.png"), help="file of the figure (%(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)  # the network is too small to gain from a second thread
    digits = load(args.seed)
    cost = torch.ones(10, dtype=torch.float64)
    cost[NINE] = args.cost

    runs: dict[str, dict[str, Run]] = {"plain": {}, f"nines cost {args.cost:g}": {}}
    with progress(args.epochs) as announce:
        for library, cross_entropy in LIBRARIES.items():
            objectives = (cross_entropy, cost_sensitive(cross_entropy, cost))
            for (name, by_library), loss in zip(runs.items(), objectives, strict=True):
                by_library[library] = train(loss, digits, args.epochs, args.seed, announce(f"{library}, {name}"))

    difference = max(largest_difference(*by_library.values()) for by_library in runs.values())
    print(f"\nlargest difference between manual_grad's and torch's loss curves: {difference:.1e}\n")
    assert difference <= ROUNDING, "the curves differ by more than rounding"
    print(describe({name: by_library["manual_grad"] for name, by_library in runs.items()}, digits.test_target))
    draw(runs, digits, args.output)
    print(f"\nfigure: {args.output}")


if __name__ == "__main__":
    main()
