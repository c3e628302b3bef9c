"""What is timed: every loss in three sizes.

========  ======================  ==========================================================
large     larger than any cache   shows memory traffic, including first use of pages
medium    fits into the cache     shows arithmetic
small     a few hundred numbers   shows the cost of a call: Python, autograd, dispatch
========  ======================  ==========================================================

A pointwise loss is timed on the first sample of its spec, enlarged. To add another loss, add an entry to
:data:`CASES`, and a function that makes its inputs unless there is one already.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

import manual_grad.functional
from gradcheck import Draw
from manual_grad import catalogue, specs

ELEMENTS = {"large": (8 << 20,), "medium": (128 << 10,), "small": (640,)}
SCORES = {"large": (1024, 32000), "medium": (512, 1000), "small": (64, 10)}  # rows, classes
TAGS = {"large": (8192, 1024), "medium": (128, 1024), "small": (64, 10)}  # rows, classes; several are true
VECTORS = {"large": (65536, 256), "medium": (512, 256), "small": (10, 64)}  # pairs or triplets, dimensions
FRAMES = {"large": (256, 64, 512), "medium": (64, 16, 128), "small": (16, 4, 10)}  # time, samples, classes
FEATURES = {"large": (1024, 512, 16000), "medium": (256, 128, 1000), "small": (64, 16, 10)}  # rows, features, classes
SIZES = tuple(ELEMENTS)

HUGE = 2 << 20  # bytes of a huge page
MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", None)  # only on Linux
if MADV_HUGEPAGE is not None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

FIXED = re.compile("target|^ref_|^old_")  # names of inputs that are data, or come from a model that is not trained

Inputs = tuple[Tensor, ...]


def signs(*shape: int) -> Tensor:
    return torch.where(torch.rand(shape) < 0.5, -1.0, 1.0)


def class_indices(rows: int, classes: int) -> Inputs:
    return torch.randn(rows, classes).requires_grad_(), torch.randint(classes, (rows,))


def class_probabilities(rows: int, classes: int) -> Inputs:
    return torch.randn(rows, classes).requires_grad_(), torch.randn(rows, classes).softmax(dim=1)


def log_class_probabilities(rows: int, classes: int) -> Inputs:
    scores, labels = class_indices(rows, classes)
    return scores.detach().log_softmax(dim=1).requires_grad_(), labels


def tags(rows: int, classes: int) -> Inputs:
    """About one class in ten is true."""
    return torch.randn(rows, classes).requires_grad_(), (torch.rand(rows, classes) < 0.1).float()


def listed_tags(rows: int, classes: int) -> Inputs:
    """Four classes are true, listed first; -1 ends the list."""
    target = torch.full((rows, classes), -1)
    target[:, :4] = torch.rand(rows, classes).topk(4).indices
    return torch.randn(rows, classes).requires_grad_(), target


def vectors(pairs: int, dimensions: int) -> Inputs:
    x1, x2 = torch.randn(pairs, dimensions), torch.randn(pairs, dimensions)
    return x1.requires_grad_(), x2.requires_grad_(), signs(pairs)


def triplets(count: int, dimensions: int) -> Inputs:
    return tuple(torch.randn(count, dimensions).requires_grad_() for _ in range(3))


def projected(rows: int, features: int, classes: int) -> Inputs:
    """Features, the weights of a linear layer, and class indices."""
    weight = torch.randn(classes, features) / features**0.5
    return torch.randn(rows, features).requires_grad_(), weight.requires_grad_(), torch.randint(classes, (rows,))


def label_sequences(time: int, samples: int, classes: int) -> Inputs:
    """Log-probabilities of every frame, and labels 1, 2, … (0 is the blank), at most one per four frames."""
    log_probs = torch.randn(time, samples, classes).log_softmax(dim=2)
    labels = torch.randint(1, classes, (samples, time // 4))
    lengths = torch.randint(time // 8, time // 4 + 1, (samples,))
    return log_probs.requires_grad_(), labels, torch.full((samples,), time), lengths


def as_it_is(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient


def behind_log_softmax(gradient: Tensor, log_probs: Tensor) -> Tensor:
    """The gradient of the scores from which log_softmax made the log-probabilities.

    torch's ctc_loss returns the gradient of the scores in place of that of the log-probabilities. Backward of
    log_softmax maps both to the same result.
    """
    return gradient - log_probs.exp() * gradient.sum(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Case:
    loss: str  # in manual_grad.functional
    make: Callable[..., Inputs]  # the inputs for a shape; requires_grad is set where the gradient is timed
    shapes: Mapping[str, tuple[int, ...]]  # by size
    variant: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    comparable: Callable[[Tensor, Tensor], Tensor] = (
        as_it_is  # applied to both gradients where torch's means something else
    )

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.variant}" if self.variant else self.loss

    @property
    def ours(self) -> Callable[..., Tensor]:
        return getattr(manual_grad.functional, self.loss)

    @property
    def theirs(self) -> Callable[..., Tensor]:
        return theirs(self.loss)

    def inputs(self, size: str | tuple[int, ...]) -> Inputs:
        """The inputs for a named size, or for a shape."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.make(*(self.shapes[size] if isinstance(size, str) else size))


def theirs(loss: str) -> Callable[..., Tensor]:
    """torch's own function, or if there is none, what people would write: the definition in torch ops."""
    return catalogue.BY_NAME[loss].peer or specs.load(loss).definition


class Enlarged(Draw):
    """Draws tensors of one shape, whatever shape is requested."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        super().__init__(0, dtype, device)
        self.shape = shape

    def normal(self, *shape: int, **options: Any) -> Tensor:
        return super().normal(*self.shape, **options)

    def uniform(self, *shape: int, **options: Any) -> Tensor:
        return super().uniform(*self.shape, **options)

    def sign(self, *shape: int) -> Tensor:
        return super().sign(*self.shape)

    def integers(self, *shape: int, **options: Any) -> Tensor:
        return super().integers(*self.shape, **options)


def sample(loss: str, draw: Draw) -> Inputs:
    """The tensors of the first sample of the spec; those that the model in training predicts require gradients."""
    spec = specs.load(loss)
    made = next(iter(spec.samples.values()))(draw)
    inputs = [i for i in spec.inputs if i.name in made]
    return tuple(made[i.name].requires_grad_(i.differentiable is True and not FIXED.search(i.name)) for i in inputs)


def options_of(loss: str) -> dict[str, Any]:
    """The options of the first sample, with the first params that reduce the loss."""
    spec = specs.load(loss)
    made = next(iter(spec.samples.values()))(Enlarged(1))
    params = next(p for p in spec.params if p.get("reduction") != "none")
    return {**params, **{k: v for k, v in made.items() if not isinstance(v, Tensor)}}


def enlarged(loss: str, *shape: int) -> Inputs:
    return sample(loss, Enlarged(*shape))


def pointwise(loss: catalogue.Loss) -> Case:
    return Case(loss.name, partial(enlarged, loss.name), ELEMENTS, options=options_of(loss.name))


CASES = (
    *map(pointwise, catalogue.of_family("pointwise")),
    Case("cross_entropy", class_indices, SCORES, "class indices"),
    Case("cross_entropy", class_indices, SCORES, "label_smoothing=0.1", {"label_smoothing": 0.1}),
    Case("cross_entropy", class_probabilities, SCORES, "class probabilities"),
    Case("nll_loss", log_class_probabilities, SCORES),
    Case("multi_margin_loss", class_indices, SCORES),
    Case("multilabel_margin_loss", listed_tags, TAGS),
    Case("multilabel_soft_margin_loss", tags, TAGS),
    Case("cosine_embedding_loss", vectors, VECTORS),
    Case("triplet_margin_loss", triplets, VECTORS),
    Case("triplet_margin_with_distance_loss", triplets, VECTORS),
    Case("ctc_loss", label_sequences, FRAMES, comparable=behind_log_softmax),
    Case("linear_cross_entropy", projected, FEATURES),
)


def least_bytes(inputs: Inputs) -> int:
    """The bytes that any implementation must move: every input is read once, every gradient written once.

    ===============================  ==========  ==========  ===================================================
    float32                          reads       writes      bytes
    ===============================  ==========  ==========  ===================================================
    pointwise, two inputs            x, t        dx          12 per element
    three: gaussian_nll_loss, …      x, t, v     dx, dv      20 per element
    class indices                    x, t        dx          8 per score, 8 per row
    cross_entropy, probabilities     x, t        dx          12 per score
    multilabel_margin_loss           x, t        dx          16 per score, since t are integers
    multilabel_soft_margin_loss      x, t        dx          12 per score
    cosine_embedding_loss            a, b, t     da, db      16 per component, 4 per pair
    triplet losses                   a, p, n     da, dp, dn  24 per component
    ctc_loss                         x, t        dx          8 per log-probability; labels, lengths
    linear_cross_entropy             x, w, t     dx, dw      8 per feature and weight, 8 per row
    ===============================  ==========  ==========  ===================================================
    """
    return sum(t.nbytes * (2 if t.requires_grad else 1) for t in inputs)


def sweep(inputs: Inputs) -> Callable[[], None]:
    """The yardstick: the same reads, the same writes into fresh memory, and next to no arithmetic.

    For each input with a gradient, it runs ``torch.add(x, t)`` with a target t of the size of x that has not been read
    yet, or else ``torch.mul(x, 2)``; further targets are summed. Huge pages are requested for the result, as the
    kernels do. Targets far smaller than x are left out. (For a linear layer the sweep says little: arithmetic
    dominates.)
    """
    differentiable = [x.detach() for x in inputs if x.requires_grad]
    targets = [t for t in inputs if t.shape == inputs[0].shape and not t.requires_grad]

    def run() -> None:
        for x, t in zip_longest(differentiable, targets):
            if x is None:
                t.sum()
                continue
            result = torch.empty_like(x)
            advise_huge_pages(result)
            torch.mul(x, 2, out=result) if t is None else torch.add(x, t, out=result)

    return run


def advise_huge_pages(result: Tensor) -> None:
    """What the kernels do before they write a large result; see the same function in kernels/cpu/layout.h."""
    begin, end = -(-result.data_ptr() // HUGE) * HUGE, (result.data_ptr() + result.nbytes) // HUGE * HUGE
    if MADV_HUGEPAGE is not None and result.nbytes >= 2 * HUGE and end > begin:
        madvise(begin, end - begin, MADV_HUGEPAGE)
