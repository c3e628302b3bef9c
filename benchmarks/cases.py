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
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

ELEMENTS = {"large": (8 << 20,), "medium": (128 << 10,), "small": (640,)}
SCORES = {"large": (1024, 32000), "medium": (512, 1000), "small": (64, 10)}  # rows, classes
TAGS = {"large": (8192, 1024), "medium": (128, 1024), "small": (64, 10)}  # rows, classes of which several are true
VECTORS = {"large": (65536, 256), "medium": (512, 256), "small": (10, 64)}  # pairs or triplets, dimensions
FRAMES = {"large": (256, 64, 512), "medium": (64, 16, 128), "small": (16, 4, 10)}  # time, samples, classes
FEATURES = {"large": (1024, 512, 16000), "medium": (256, 128, 1000), "small": (64, 16, 10)}  # rows, features, classes
SIZES = tuple(ELEMENTS)

Inputs = tuple[Tensor, ...]


def real(size: str) -> Inputs:
    x, target = torch.randn(2, *ELEMENTS[size])
    return x.requires_grad_(), target


def fractions(size: str) -> Inputs:
    x, target = torch.randn(ELEMENTS[size]), torch.rand(ELEMENTS[size])
    return x.requires_grad_(), target


def probabilities(size: str) -> Inputs:
    p, target = torch.rand(2, *ELEMENTS[size]).clamp(0.01, 0.99)
    return p.requires_grad_(), target


def log_probabilities(size: str) -> Inputs:
    p, target = torch.rand(2, *ELEMENTS[size]).clamp(0.01, 0.99)
    return p.log().requires_grad_(), target


def counts(size: str) -> Inputs:
    x = torch.randn(ELEMENTS[size]) / 2  # with a variance of 1 the mean loss is 0
    return x.requires_grad_(), torch.poisson(x.detach().exp())


def spread(size: str) -> Inputs:
    x, target = torch.randn(2, *ELEMENTS[size])
    variance = torch.rand(ELEMENTS[size]) + 0.1
    return x.requires_grad_(), target, variance.requires_grad_()


def signs(*shape: int) -> Tensor:
    return torch.where(torch.rand(shape) < 0.5, -1.0, 1.0)


def signed(size: str) -> Inputs:
    x = torch.randn(ELEMENTS[size])
    return x.requires_grad_(), signs(*ELEMENTS[size])


def ranked(size: str) -> Inputs:
    x1, x2 = torch.randn(2, *ELEMENTS[size])
    return x1.requires_grad_(), x2.requires_grad_(), signs(*ELEMENTS[size])


def class_indices(size: str) -> Inputs:
    rows, classes = SCORES[size]
    return torch.randn(rows, classes).requires_grad_(), torch.randint(classes, (rows,))


def class_probabilities(size: str) -> Inputs:
    return torch.randn(SCORES[size]).requires_grad_(), torch.randn(SCORES[size]).softmax(dim=1)


def log_class_probabilities(size: str) -> Inputs:
    scores, labels = class_indices(size)
    return scores.detach().log_softmax(dim=1).requires_grad_(), labels


def tags(size: str) -> Inputs:
    """About one class in ten is true."""
    return torch.randn(TAGS[size]).requires_grad_(), (torch.rand(TAGS[size]) < 0.1).float()


def listed_tags(size: str) -> Inputs:
    """Four classes are true, listed first; -1 ends the list."""
    rows, classes = TAGS[size]
    target = torch.full((rows, classes), -1)
    target[:, :4] = torch.rand(rows, classes).topk(4).indices
    return torch.randn(rows, classes).requires_grad_(), target


def vectors(size: str) -> Inputs:
    x1, x2 = torch.randn(VECTORS[size]), torch.randn(VECTORS[size])
    return x1.requires_grad_(), x2.requires_grad_(), signs(len(x1))


def triplets(size: str) -> Inputs:
    return tuple(torch.randn(VECTORS[size]).requires_grad_() for _ in range(3))


def projected(size: str) -> Inputs:
    """Features, the weights of a linear layer, and class indices."""
    rows, features, classes = FEATURES[size]
    weight = torch.randn(classes, features) / features**0.5
    return torch.randn(rows, features).requires_grad_(), weight.requires_grad_(), torch.randint(classes, (rows,))


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
    Case("smooth_l1_loss", real),
    Case("huber_loss", real),
    Case("binary_cross_entropy", probabilities),
    Case("binary_cross_entropy_with_logits", fractions),
    Case("poisson_nll_loss", counts),
    Case("gaussian_nll_loss", spread),
    Case("kl_div", log_probabilities, options={"reduction": "batchmean"}),
    Case("soft_margin_loss", signed),
    Case("hinge_embedding_loss", signed),
    Case("margin_ranking_loss", ranked, options={"margin": 0.5}),
    Case("cross_entropy", class_indices, "class indices"),
    Case("cross_entropy", class_indices, "label_smoothing=0.1", {"label_smoothing": 0.1}),
    Case("cross_entropy", class_probabilities, "class probabilities"),
    Case("nll_loss", log_class_probabilities),
    Case("multi_margin_loss", class_indices),
    Case("multilabel_margin_loss", listed_tags),
    Case("multilabel_soft_margin_loss", tags),
    Case("cosine_embedding_loss", vectors),
    Case("triplet_margin_loss", triplets),
    Case("triplet_margin_with_distance_loss", triplets),
    Case("ctc_loss", label_sequences, comparable=behind_log_softmax),
    Case("linear_cross_entropy", projected),
)


def least_bytes(inputs: Inputs) -> int:
    """What any implementation must move: every input read once, every gradient written once.

    ===============================  ==========  ==========  ===================================================
    float32                          reads       writes      bytes
    ===============================  ==========  ==========  ===================================================
    pointwise                        x, t        dx          12 for an element
    gaussian_nll_loss                x, t, v     dx, dv      20 for an element
    margin_ranking_loss              x1, x2, t   dx1, dx2    20 for an element
    class indices                    x, t        dx          8 for a score, 8 for a row
    cross_entropy, probabilities     x, t        dx          12 for a score
    multilabel_margin_loss           x, t        dx          16 for a score, since t are integers
    multilabel_soft_margin_loss      x, t        dx          12 for a score
    cosine_embedding_loss            a, b, t     da, db      16 for a component, 4 for a pair
    triplet losses                   a, p, n     da, dp, dn  24 for a component
    ctc_loss                         x, t        dx          8 for a log-probability; labels and lengths
    linear_cross_entropy             x, w, t     dx, dw      8 for a feature and for a weight, 8 for a row
    ===============================  ==========  ==========  ===================================================
    """
    return sum(t.nbytes * (2 if t.requires_grad else 1) for t in inputs)


def sweep(inputs: Inputs) -> Callable[[], None]:
    """The yardstick: the same reads, the same writes into fresh memory, and next to no arithmetic.

    For each input with a gradient it is ``torch.add(x, t)`` with a target t as large as x that is not yet read, or else
    ``torch.mul(x, 2)``. Targets far smaller than x are left out. (A linear layer is arithmetic above all.)
    """
    differentiable = [x.detach() for x in inputs if x.requires_grad]
    targets = [t for t in inputs if t.shape == inputs[0].shape and not t.requires_grad]

    def run() -> None:
        for x, t in zip_longest(differentiable, targets):
            torch.mul(x, 2) if t is None else torch.add(x, t)

    return run
