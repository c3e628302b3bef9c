"""Families: which entries of a function's tensors belong to one element, row, pair or path.

For every value of the unreduced result, a family gives the flat indices into each tensor, as nested lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradcheck.spec import Case

Indices = dict[str, list[Any]]  # from tensor name to one (nested list of) flat indices for each value


def pointwise(case: Case) -> Indices:
    """One element of each tensor, after broadcasting."""
    shape = torch.broadcast_shapes(*(t.shape for t in case.tensors.values()))
    return {k: _flat(t).expand(shape).flatten().tolist() for k, t in case.tensors.items()}


def rowwise(case: Case) -> Indices:
    """One row of class scores (dimension 1, or the only dimension) with its class, labels or probabilities.

    A tensor without a batch dimension has one entry for each class, the same for all rows. One with another number of
    entries in that dimension, such as some classes of each row, has a list for each row.
    """
    scores = next(iter(case.tensors.values()))
    classes = 1 if scores.dim() > 1 else 0
    rows = scores.numel() // max(scores.shape[classes], 1)

    def of(name: str, t: Tensor) -> list[Any]:
        if case.spec.by_name[name].batch is None:
            return _flat(t).expand(rows, -1).tolist()
        if t.dim() == scores.dim() and t.numel() % rows == 0 and (t.dim() > 1 or len(t) > 1):
            return _flat(t).movedim(classes, -1).reshape(rows, -1).tolist()
        return _flat(t).flatten().tolist()

    return {k: of(k, t) for k, t in case.tensors.items()}


def pairwise(case: Case) -> Indices:
    """One vector (the last dimension) of each tensor, or one entry of the tensors that lack that dimension."""
    most = max(t.dim() for t in case.tensors.values())
    shape = torch.broadcast_shapes(*(t.shape for t in case.tensors.values() if t.dim() == most))

    def of(t: Tensor) -> list[Any]:
        if t.dim() == most:
            return _flat(t).expand(shape).reshape(-1, shape[-1]).tolist()
        return _flat(t).expand(shape[:-1]).flatten().tolist()

    return {k: of(t) for k, t in case.tensors.items()}


def path(case: Case) -> Indices:
    """The scores (T, N, C) of one sample, its labels (padded to (N, S) or concatenated) and its lengths."""
    (scores_name, scores), (labels_name, labels), *lengths = case.tensors.items()
    batch = scores.shape[1] if scores.dim() == 3 else 1
    frames, counts = (_per_sample(t, batch).tolist() for _, t in lengths)
    if labels.dim() == 2 or batch == 1:
        spelled = _flat(labels).reshape(batch, -1).tolist()
    else:
        spelled = [part.tolist() for part in _flat(labels).split(counts)]
    every = _flat(scores).reshape(len(scores), batch, -1)
    return {
        scores_name: [every[:n, i].tolist() for i, n in enumerate(frames)],
        labels_name: [spelled[i][:n] for i, n in enumerate(counts)],
        **{k: _per_sample(_flat(t), batch).tolist() for k, t in lengths},
    }


def linear(case: Case) -> Indices:
    """One row of the first tensor (N, D) or (D), its entry or row of the target, and everything that the rows share.

    The second tensor is a weight (C, d1, …, D). There is one loss for each position in d1, …, to which a shared tensor
    (C, d1, …, *) contributes a slice (C, *).
    """
    (_, x), (_, weight), *_ = case.tensors.items()
    rows, positions = x.numel() // x.shape[-1], weight.shape[1:-1]
    count = positions.numel()

    def of(name: str, t: Tensor) -> list[Any]:
        flat = _flat(t)
        if t is x:
            return [row for row in flat.reshape(rows, -1).tolist() for _ in range(count)]
        if case.spec.by_name[name].batch is None:
            if positions and t.shape[1 : 1 + len(positions)] == positions:
                return flat.flatten(1, len(positions)).movedim(1, 0).tolist() * rows
            return [flat.tolist()] * (rows * count)
        if t.dim() < x.dim() + len(positions):
            return flat.flatten().tolist()
        return flat.reshape(rows, -1, count).movedim(1, 2).flatten(0, 1).tolist()

    return {k: of(k, t) for k, t in case.tensors.items()}


def contrastive(case: Case) -> Indices:
    """All vectors of every tensor, in a circle that begins with the value's own; a tensor without dimensions whole."""
    _, first = next(iter(case.tensors.items()))

    def of(t: Tensor) -> list[Any]:
        return [_flat(t).roll(-n, 0).tolist() if t.dim() else 0 for n in range(len(first))]

    return {k: of(t) for k, t in case.tensors.items()}


FAMILIES: dict[str, Callable[[Case], Indices]] = {  # in increasing order of audit time
    "pointwise": pointwise,
    "rowwise": rowwise,
    "pairwise": pairwise,
    "path": path,
    "linear": linear,
    "contrastive": contrastive,
}


def _flat(t: Tensor) -> Tensor:
    return torch.arange(t.numel()).reshape(t.shape)


def _per_sample(t: Tensor, batch: int) -> Tensor:
    return t.reshape(-1).expand(batch)
