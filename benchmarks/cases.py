"""What is timed: every loss in three sizes, on inputs of which the bytes that must move are known.

========  ======================  ==========================================================
large     beyond every cache      memory is read and written, and fresh pages are touched
medium    in the cache            arithmetic shows
small     a few hundred numbers   the cost of a call: Python, autograd, dispatch
========  ======================  ==========================================================

To add a loss, add an entry to :data:`CASES`; if none of the functions above it makes its inputs, write one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

ELEMENTS = {"large": (8 << 20,), "medium": (128 << 10,), "small": (640,)}
SCORES = {"large": (1024, 32000), "medium": (512, 1000), "small": (64, 10)}  # rows, classes
VECTORS = {"large": (65536, 256), "medium": (512, 256), "small": (10, 64)}  # pairs, dimensions
FRAMES = {"large": (256, 64, 512), "medium": (64, 16, 128), "small": (16, 4, 10)}  # time, samples, classes
SIZES = tuple(ELEMENTS)

Inputs = tuple[Tensor, ...]


def real(size: str) -> Inputs:
    x, target = torch.randn(2, *ELEMENTS[size])
    return x.requires_grad_(), target


def binary(size: str) -> Inputs:
    x, target = torch.randn(ELEMENTS[size]), torch.rand(ELEMENTS[size])
    return x.requires_grad_(), target


def class_indices(size: str) -> Inputs:
    rows, classes = SCORES[size]
    return torch.randn(rows, classes).requires_grad_(), torch.randint(classes, (rows,))


def class_probabilities(size: str) -> Inputs:
    return torch.randn(SCORES[size]).requires_grad_(), torch.randn(SCORES[size]).softmax(dim=1)


def vectors(size: str) -> Inputs:
    x1, x2 = torch.randn(VECTORS[size]), torch.randn(VECTORS[size])
    return x1.requires_grad_(), x2.requires_grad_(), torch.where(torch.rand(len(x1)) < 0.5, -1.0, 1.0)


def label_sequences(size: str) -> Inputs:
    """Log-probabilities of every frame; labels 1, 2, … (0 is the blank), at most one for four frames."""
    time, samples, classes = FRAMES[size]
    log_probs = torch.randn(time, samples, classes).log_softmax(dim=2)
    labels = torch.randint(1, classes, (samples, time // 4))
    lengths = torch.randint(time // 8, time // 4 + 1, (samples,))
    return log_probs.requires_grad_(), labels, torch.full((samples,), time), lengths


def behind_log_softmax(gradient: Tensor, log_probs: Tensor) -> Tensor:
    """The gradient of the scores behind the log-probabilities.

    torch's ctc_loss returns the derivative by the scores in place of that by the log-probabilities. The step through
    log_softmax takes both to the same.
    """
    return gradient - log_probs.exp() * gradient.sum(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Case:
    loss: str  # in torch.nn.functional and in manual_grad.functional
    make: Callable[[str], Inputs]  # the inputs of a size, requires_grad set where the gradient is timed
    variant: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    comparable: Callable[[Tensor, Tensor], Tensor] = lambda gradient, x: gradient  # where torch's means something else

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.variant}" if self.variant else self.loss

    def inputs(self, size: str) -> Inputs:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.make(size)


CASES = (
    Case("l1_loss", real),
    Case("mse_loss", real),
    Case("huber_loss", real),
    Case("binary_cross_entropy_with_logits", binary),
    Case("cross_entropy", class_indices, "class indices"),
    Case("cross_entropy", class_indices, "label_smoothing=0.1", {"label_smoothing": 0.1}),
    Case("cross_entropy", class_probabilities, "class probabilities"),
    Case("cosine_embedding_loss", vectors),
    Case("ctc_loss", label_sequences, comparable=behind_log_softmax),
)


def least_bytes(inputs: Inputs) -> int:
    """What any implementation must move: every input read once, every gradient written once.

    ===============================  =====  ======  =========================
    float32                          reads  writes  bytes
    ===============================  =====  ======  =========================
    pointwise                        x, t   dx      12 for an element
    cross_entropy, indices           x, t   dx      8 for a score, 8 for a row
    cross_entropy, probabilities     x, t   dx      12 for a score
    cosine_embedding_loss            a, b   da, db  16 for a component, 4 for a pair
    ctc_loss                         x, t   dx      8 for a log-probability; labels and lengths
    ===============================  =====  ======  =========================
    """
    return sum(t.nbytes * (2 if t.requires_grad else 1) for t in inputs)


def sweep(inputs: Inputs) -> Callable[[], None]:
    """The yardstick: the same reads, the same writes into fresh memory, and next to no arithmetic.

    It is ``torch.add(x, t)`` where the target is as large as x, else ``torch.mul(x, 2)`` for each input with a
    gradient. Targets far smaller than x are left out.
    """
    differentiable = [x.detach() for x in inputs if x.requires_grad]
    beside = [t for t in inputs if t.shape == inputs[0].shape and not t.requires_grad]

    def run() -> None:
        for x in differentiable:
            torch.add(x, *beside) if beside else torch.mul(x, 2)

    return run
