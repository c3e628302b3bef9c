"""What the dimensions of every function's tensors mean, and along which of them they may be spread over processes.

Each dimension has a letter, and the same letter in two tensors is the same dimension:

=========  =====================================================================================
``n``      rows (samples, positions), which may be spread: a loss is then a sum over processes
``c``      classes, which may be spread where a function takes a ``group``
``*``      any number of further dimensions of rows
``…``      further letters: features, labels, time steps, which every process must have whole
=========  =====================================================================================

Elementwise losses need no table: dimensions are counted from the last, as in broadcasting, and all may be spread.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from manual_grad.catalogue import of_family

SPREAD = "n*"  # the letters of rows

_PAIR = dict(input="n c *", target="n *", weight="c")
_TEACHER = dict(input="* c", mask="*", normalizer="")

# The first tensor is the one whose placement decides; for class indices and for probabilities, see labels_of.
LAYOUTS: dict[str, dict[str, str]] = {
    "cross_entropy": dict(_PAIR, token_weight="n *", normalizer=""),
    "nll_loss": _PAIR,
    "multi_margin_loss": dict(input="n c", target="n", weight="c"),
    "multilabel_margin_loss": dict(input="n c", target="n c"),
    "multilabel_soft_margin_loss": dict(input="* c", target="* c", weight="c"),
    "selected_log_prob": dict(input="* c", index="*"),
    "log_prob_and_entropy": dict(input="* c", index="*"),
    "distillation_loss": dict(_TEACHER, teacher="* c"),
    "topk_distillation_loss": dict(_TEACHER, teacher_log_probs="* k", teacher_indices="* k"),
    "cosine_embedding_loss": dict(input1="n d", input2="n d", target="n"),
    "triplet_margin_loss": dict(anchor="* d", positive="* d", negative="* d"),
    "triplet_margin_with_distance_loss": dict(anchor="* d", positive="* d", negative="* d"),
    "ctc_loss": dict(log_probs="t n c", targets="n s", input_lengths="n", target_lengths="n"),
    "linear_cross_entropy": dict(
        linear_weight="c * d", input="n d", target="n *", linear_bias="c *", weight="c", token_weight="n *",
        normalizer="",
    ),
    "linear_log_prob": dict(weight="c d", hidden="* d", index="*", bias="c"),
    "linear_distillation_loss": dict(
        hidden="* d", weight="c d", teacher_hidden="* e", teacher_weight="c e", bias="c", teacher_bias="c", mask="*",
        normalizer="",
    ),
    "info_nce_loss": dict(query="n d", key="n d", temperature=""),
    "clip_loss": dict(image_features="n d", text_features="n d", logit_scale=""),
    "nt_xent_loss": dict(input1="n d", input2="n d", temperature=""),
    "supervised_contrastive_loss": dict(features="n d", labels="n", temperature=""),
    "siglip_loss": dict(image_features="n d", text_features="n d", logit_scale="", logit_bias=""),
}  # fmt: skip

# Losses of all pairs of rows, which compute the whole loss in every process, for a group over which rows are spread.
OF_PAIRS = frozenset(("info_nce_loss", "clip_loss", "nt_xent_loss", "supervised_contrastive_loss", "siglip_loss"))

# Of one number for the last dimension of the input, where they have one dimension less.
BY_ROW = frozenset(("var", "scale", "total_count", "advantages"))
HIDDEN = dict(linear_cross_entropy="input", linear_log_prob="hidden")  # what all classes are scored from


def labels_of(name: str, given: dict[str, Tensor]) -> tuple[dict[str, list[str]], list[str]]:
    """The letter of every dimension of the tensors, numbered where there may be several, and of the result's rows."""
    layout = LAYOUTS.get(name)
    if layout is None:
        if name not in {loss.name for loss in of_family("pointwise")}:
            raise RuntimeError(f"{name}(): no DTensors are supported")
        return _elementwise(given)
    if name in ("cross_entropy", "linear_cross_entropy") and "target" in given:
        layout = dict(layout, **_targets(name, given))
    found = {argument: _expanded(layout[argument], t.dim()) for argument, t in given.items()}
    longest = max((rows_of(labels) for labels in found.values()), key=len)
    return found, longest


def rows_of(labels: list[str]) -> list[str]:
    return [label for label in labels if label[0] in SPREAD]


def _targets(name: str, given: dict[str, Tensor]) -> dict[str, str]:
    if name == "cross_entropy":
        same = given["target"].shape == given["input"].shape
        return dict(target="n c *") if same else {}
    x, W, t = given["input"], given["linear_weight"], given["target"]
    if x.dim() > 2:  # (batch, sequence, D)
        return dict(input="* d", target="*", token_weight="*", linear_weight="c d", linear_bias="c")
    return dict(target="n c *") if t.shape == (*x.shape[:-1], *W.shape[:-1]) else {}


def _expanded(layout: str, dims: int) -> list[str]:
    letters = layout.split()
    if "*" in letters:
        at, more = letters.index("*"), dims - len(letters) + 1
        letters[at : at + 1] = [f"*{i}" for i in range(more)]
    return letters[len(letters) - dims :] if len(letters) > dims else letters  # unbatched


def _elementwise(given: dict[str, Tensor]) -> tuple[dict[str, list[str]], list[str]]:
    first = next(iter(given.values()))
    size = max(t.dim() for t in given.values())
    shape = [max((t.shape[t.dim() - i] for t in given.values() if t.dim() >= i), default=1) for i in range(size, 0, -1)]

    def labels(argument: str, t: Tensor) -> list[str]:
        lead = 1 if argument in BY_ROW and t.dim() == first.dim() - 1 and t.shape == first.shape[:-1] else 0
        at = [size - t.dim() - lead + i for i in range(t.dim())]
        return [f"n{j}" if t.shape[i] == shape[j] else "-" for i, j in enumerate(at)]

    return {argument: labels(argument, t) for argument, t in given.items()}, [f"n{j}" for j in range(size)]


def whole(name: str, labels: list[str], arguments: dict[str, Any]) -> set[str]:
    """Labels of rows that this call needs whole, too."""
    if arguments.get("shift"):
        return set(labels[-1:])
    if arguments.get("reduction") == "sequence" or arguments.get("level") == "sequence":
        return set(labels[-1:])
    if arguments.get("reduction") == "batchmean":
        return set(labels[1:])
    if name == "ctc_loss" and arguments["targets"].dim() == 1:  # one after the other
        return set(labels)
    return set()
