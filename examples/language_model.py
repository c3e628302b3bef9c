"""Train a small language model without storing its logits.

A transformer with two layers learns to continue the source code of Python's standard library, which every Python has.
Its vocabulary, 16,384 pieces of words, is taken from the text. For every token, the head scores the whole vocabulary:
far more numbers than anything else in the model. torch's loss stores these logits, and their gradient;
``linear_cross_entropy`` computes the same loss from the hidden states and the head's weight, block by block.

Two models, equal at first, are trained side by side, one with each loss. Their first steps must agree up to rounding.
The figure shows the loss curves, the tokens per second and the peak memory.

    python examples/language_model.py --steps 200 --output language_model.png
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import re
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

import manual_grad.functional

Head = Callable[[Tensor, Tensor, Tensor], Tensor]


def without_logits(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return manual_grad.functional.linear_cross_entropy(hidden, weight, target)


def with_logits(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(hidden @ weight.T, target)


HEADS: dict[str, Head] = {"manual_grad": without_logits, "torch": with_logits}

CONTEXT = 128  # tokens that the model sees
BATCH = 8  # contexts in a step
EVERY = 20  # steps between two test losses
STEPS_FOR_MEMORY = 3

# The largest permitted relative difference between the losses, and the norms of the gradients, of the first steps. The
# first are right to about 1e-6 (eps is 1e-7), and a wrong constant factor, which Adam hides from the losses, shows in
# the norms. From then on the trainings drift apart, as any two do that round differently, because Adam divides a
# gradient by its size, even one that is nothing but rounding: by 1e-5 in the second step, 1e-3 in the tenth. See the
# test losses.
EARLY = 2
ROUNDING = 1e-3

BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#9aa5b1"


@dataclass
class Text:
    train: Tensor  # token by token
    test: Tensor
    vocabulary: int


@dataclass
class Run:
    train: list[float] = field(default_factory=list)  # the loss of each step
    test: list[float] = field(default_factory=list)  # before training and after every EVERY steps
    norm: list[float] = field(default_factory=list)  # of the gradient in each step
    seconds: list[float] = field(default_factory=list)  # of each step

    @property
    def tokens_per_second(self) -> float:
        return BATCH * CONTEXT / statistics.median(self.seconds)


# -- the text


def load(vocabulary: int) -> Text:
    """The modules of the standard library, one after the other; a twentieth is for testing."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    words = split("".join(path.read_text(encoding="utf-8", errors="replace") for path in files))
    pieces = known_pieces(words, vocabulary)
    spelled = {word: [pieces[piece] for piece in spell(word, pieces)] for word in set(words)}
    tokens = torch.tensor([token for word in words for token in spelled[word]])
    tested = len(tokens) // 20
    return Text(tokens[:-tested], tokens[-tested:], len(pieces))


def split(text: str) -> list[str]:
    """Words with the space before them, single digits and signs, and runs of white space, such as an indentation."""
    return re.findall(r" ?[^\W\d_]+|\s+|.", text)


def known_pieces(words: list[str], most: int) -> dict[str, int]:
    """Number all characters, and then the most frequent words."""
    characters = sorted(set("".join(words)))
    frequent = (word for word, _ in Counter(words).most_common() if len(word) > 1)
    return {piece: i for i, (piece, _) in enumerate(zip([*characters, *frequent], range(most), strict=False))}


def spell(word: str, pieces: dict[str, int]) -> Iterator[str]:
    """Split a word into the longest known pieces, from left to right."""
    start = 0
    while start < len(word):
        end = next(end for end in range(len(word), start, -1) if word[start:end] in pieces)
        yield word[start:end]
        start = end


# -- the model


class Model(nn.Module):
    """A transformer that maps tokens to hidden states; ``head`` is the weight that scores the vocabulary."""

    def __init__(self, vocabulary: int, width: int = 128, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Parameter(0.02 * torch.randn(vocabulary, width))
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        hidden = self.embedding(tokens) + self.position
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return self.norm(hidden)

    def loss(self, head: Head, contexts: Tensor) -> Tensor:
        """The mean loss of each token of the contexts but the first, given those before it."""
        hidden, target = self(contexts[:, :-1]), contexts[:, 1:]
        return head(hidden.flatten(0, 1), self.head, target.flatten())


def contexts(tokens: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Stretches of the text: at random places or, without a generator, at equal distances."""
    last = len(tokens) - CONTEXT - 1
    if generator is None:
        starts = torch.linspace(0, last, count).long()
    else:
        starts = torch.randint(last + 1, (count,), generator=generator)
    return torch.stack([tokens[start : start + CONTEXT + 1] for start in starts.tolist()])


class Training:
    """A model, the optimizer of its weights, and the loss with which it is trained."""

    def __init__(self, head: Head, model: Model, text: Text) -> None:
        self.head, self.model, self.run = head, model, Run()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
        self.test_contexts = contexts(text.test, 2 * BATCH)

    def step(self, batch: Tensor) -> None:
        began = time.perf_counter()
        loss = self.model.loss(self.head, batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.run.seconds.append(time.perf_counter() - began)
        self.run.train.append(loss.item())
        self.run.norm.append(norm.item())

    @torch.no_grad()
    def test(self) -> None:
        self.run.test.append(self.model.loss(self.head, self.test_contexts).item())


def train(text: Text, steps: int, seed: int, report: Callable[[float], None], heads: dict[str, Head]) -> dict[str, Run]:
    """Train side by side: each step is taken by all, on the same batch, so that they meet the same conditions."""
    torch.manual_seed(seed)
    first = Model(text.vocabulary)
    trainings = {name: Training(head, copy.deepcopy(first), text) for name, head in heads.items()}
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps + 1):
        if step % EVERY == 0:
            for training in trainings.values():
                training.test()
        if step < steps:
            batch = contexts(text.train, BATCH, generator)
            for training in trainings.values():
                training.step(batch)
            report(training.run.train[-1])
    return {name: training.run for name, training in trainings.items()}


def largest_difference(ours: Run, theirs: Run) -> float:
    """The relative difference of the losses, and of the norms of the gradients, in the first steps."""
    early = [(*run.train[:EARLY], *run.norm[:EARLY]) for run in (ours, theirs)]
    return max(abs(a - b) / b for a, b in zip(*early, strict=True))


# -- memory


def peak_memory(name: str, vocabulary: int, seed: int) -> int:
    """The bytes that training needs at most, beyond those in use before it, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_training, (name, vocabulary, seed))


def _peak_of_training(name: str, vocabulary: int, seed: int) -> int:
    text = Text(*torch.randint(vocabulary, (2, 10_000)), vocabulary)
    before = _peak()
    train(text, STEPS_FOR_MEMORY, seed, lambda loss: None, {name: HEADS[name]})
    return _peak() - before


def _peak() -> int:
    """The peak resident memory of this process, in bytes."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")  # Linux: of this program alone
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


# -- the report


@contextmanager
def progress(steps: int) -> Iterator[Callable[[float], None]]:
    """Yield a callback for the loss of each step."""
    try:
        from rich import progress as rich
    except ImportError:
        yield lambda loss: print(f"loss {loss:.3f}", flush=True)
        return

    columns = (rich.BarColumn(), rich.MofNCompleteColumn(), rich.TextColumn("{task.fields[loss]}"))
    with rich.Progress(*columns, rich.TimeElapsedColumn()) as bars:
        task = bars.add_task("", total=steps, loss="")
        yield lambda loss: bars.update(task, advance=1, loss=f"loss {loss:.3f}")


def draw(runs: dict[str, Run], peaks: dict[str, int], output: Path) -> None:
    figure, (curves, speed, memory) = plt.subplots(
        1, 3, figsize=(12, 4.5), layout="constrained", width_ratios=(7, 3, 3)
    )
    draw_curves(curves, runs)
    draw_bars(speed, "tokens per second", {name: run.tokens_per_second for name, run in runs.items()}, "{:,.0f}")
    draw_bars(memory, "peak memory, MB", {name: peak / 1e6 for name, peak in peaks.items()}, "{:,.0f}")
    figure.savefig(output, dpi=150)


def draw_curves(ax: Axes, runs: dict[str, Run]) -> None:
    ours, theirs = runs["manual_grad"], runs["torch"]
    tested = range(0, len(ours.train) + 1, EVERY)
    ax.plot(ours.train, color=BLUE, lw=0.8, alpha=0.6, label="train, manual_grad")
    ax.plot(range(len(theirs.train))[::EVERY], theirs.train[::EVERY], "o", color=BLUE, mfc="none", ms=5, mew=0.8,
            label="train, torch")  # fmt: skip
    ax.plot(tested, ours.test, color=ORANGE, label="test, manual_grad")
    ax.plot(tested, theirs.test, "o", color=ORANGE, mfc="none", ms=5, mew=0.8, label="test, torch")
    ax.set(title="loss, nats per token", xlabel="step")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize="small")


def draw_bars(ax: Axes, title: str, values: dict[str, float], label: str) -> None:
    bars = ax.bar(list(values), list(values.values()), width=0.6, color=(BLUE, GREY))
    ax.bar_label(bars, labels=[label.format(value) for value in values.values()])
    ax.set_title(title)
    ax.set_yticks(())
    ax.spines[["left", "top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of training (%(default)s)")
    parser.add_argument("--vocabulary", type=int, default=16_384, help="pieces at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and the batches (%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("language_model.png"), help="file of the figure (%(default)s)"
    )
    args = parser.parse_args()

    text = load(args.vocabulary)
    print(f"{len(text.train):,} tokens to learn, {len(text.test):,} to test, a vocabulary of {text.vocabulary:,}")
    with progress(args.steps) as report:
        runs = train(text, args.steps, args.seed, report, HEADS)
    peaks = {name: peak_memory(name, text.vocabulary, args.seed) for name in HEADS}

    difference = largest_difference(*runs.values())
    print(f"\nlargest relative difference between manual_grad's and torch's first {EARLY} steps: {difference:.1e}\n")
    assert difference <= ROUNDING, "the steps differ by more than rounding"
    for name, run in runs.items():
        print(
            f"{name:<12} test loss {run.test[0]:.3f} -> {run.test[-1]:.3f}, {run.tokens_per_second:7,.0f} tokens per "
            f"second, peak memory {peaks[name] / 1e6:5,.0f} MB"
        )
    draw(runs, peaks, args.output)
    print(f"\nfigure: {args.output}")


if __name__ == "__main__":
    main()
