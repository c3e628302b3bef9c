"""Losses of one row of class scores, and the checks of class indices that several of them share.

Scores are (C), (N, C) or (N, C, d1, …): the class dimension is dimension 1, or the only one. There is one value per
row, so the loss has shape (), (N) or (N, d1, …).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine.arguments import readable, scalar_type
from manual_grad.engine.function import LossFunction, Tensors, per_row


class RowwiseLoss(LossFunction):
    """A loss whose first tensor holds class scores."""

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        x = X[0]
        return x.shape[:1] + x.shape[2:] if x.dim() > 1 else x.shape[:0]

    scale = classmethod(per_row)

    @staticmethod
    def contract(terms: Tensor, *options: Any) -> Tensor:
        return terms.sum(class_dim(terms))


def class_dim(x: Tensor) -> int:
    return 1 if x.dim() > 1 else 0


def class_indices(name: str, shape: torch.Size, y: Tensor, ignore_index: int, sharded: bool = False) -> Tensor:
    """The class indices ``y`` of scores of that shape as int64, in the shape of the loss; the errors are nll_loss's.

    With ``sharded``, there are more classes in other processes.
    """
    rows = shape[:1] if len(shape) == 2 else shape[:1] + shape[2:] if len(shape) > 2 else ()
    if y.shape != rows:
        if len(shape) == 1 and y.dim() == 1:
            if y.shape[0] != 1:
                raise ValueError(f"For 1D input, 1D target must have size 1, but got target size: {y.shape[0]}")
            return class_indices(name, shape, y.view(()), ignore_index, sharded)
        batch = y.shape[0] if y.dim() else 0
        if len(shape) > 1 and batch != shape[0]:
            raise ValueError(f"Expected input batch_size ({shape[0]}) to match target batch_size ({batch}).")
        if len(shape) <= 2:
            hint = "; is it target.squeeze(1)?" if y.shape == (*rows, 1) else ""
            raise RuntimeError(
                "0D or 1D target tensor expected, multi-target not supported: "
                f"input of shape {list(shape)}, target of shape {list(y.shape)}{hint}"
            )
        last = "; are the classes last? They belong in dimension 1: input.movedim(-1, 1)"
        hint = last if y.shape == shape[:-1] else ""
        raise RuntimeError(
            f"Expected target size {list(rows)}, got {list(y.shape)}, for an input of size {list(shape)}{hint}"
        )
    if 0 in shape and shape[min(len(shape), 2) - 1] == 0 and not sharded and readable(y) and (y != ignore_index).any():
        raise IndexError(f"Target is out of bounds: {name}'s input has no classes")
    if y.dtype is torch.int64:
        return y
    if y.dtype is torch.uint8:
        return y.long()
    hint = "" if y.is_floating_point() else "; use target.long()"
    raise RuntimeError(f"expected target dtype to be Long or Byte, but got {y.dtype}{hint}")


def check_probabilities(t: Tensor) -> None:
    if not t.is_floating_point():
        raise RuntimeError(
            f"Expected floating point type for target with class probabilities, got {t.dtype}; "
            "for one-hot labels pass class indices, target.argmax(1), or target.to(input.dtype)"
        )


def class_weight(x: Tensor, w: Tensor, by_index: bool = True) -> Tensor:
    """The class weights as a vector; like torch, accepts any shape of C elements for class indices of an image."""
    classes = x.shape[class_dim(x)]
    if w.shape == (classes,):
        return w
    if by_index and x.dim() > 2 and w.numel() == classes:
        return w.reshape(classes)
    raise RuntimeError(
        f"weight tensor should be defined either for all {classes} classes or no classes "
        f"but got weight tensor of shape: {list(w.shape)}"
    )


def constant_weight(name: str, x: Tensor, w: Tensor) -> Tensor:
    """The weight, a constant. As torch does with class indices, require the scores' dtype and no gradient."""
    if w.dtype is not x.dtype:
        raise RuntimeError(f"weight: expected scalar type {scalar_type(x.dtype)} but found {scalar_type(w.dtype)}")
    if w.requires_grad:
        raise RuntimeError(
            f"{name} is not differentiable with respect to argument 'weight' if the target holds class indices. "
            "This input cannot have requires_grad True."
        )
    return w.detach()


def kept_rows(name: str, y: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """A mask of the rows that are not ignored, and an index that is in range for every row."""
    bad = label_outside(y, classes, ignore_index)
    if bad is not None:
        raise IndexError(
            f"Target {bad} is out of bounds: {name}'s target must be in [0, {classes - 1}] "
            f"or ignore_index ({ignore_index})."
        )
    kept = y != ignore_index
    return kept, torch.where(kept, y, 0)


def each_of(w: Tensor, y: Tensor) -> Tensor:
    """w[y], without reading the value of a 0-d ``y``, as indexing would."""
    return w.index_select(0, y.flatten()).view(y.shape)


def kept_weight(y: Tensor, w: Tensor | None, ignore_index: int, like: Tensor) -> Tensor:
    """The total weight of the rows that are not ignored: the divisor of the mean for class indices."""
    kept = y != ignore_index
    weights = torch.ones_like(like) if w is None or not w.numel() else each_of(w, torch.where(kept, y, 0))
    return torch.where(kept, weights, 0).sum().to(like.dtype)


def label_outside(y: Tensor, classes: int, *others: int) -> int | None:
    """A label that is neither in [0, classes) nor one of ``others``, or None.

    The kernels check this before they touch memory; the formulas check it here, only where that needs no
    synchronization (on the CPU).
    """
    if not readable(y):
        return None
    outside = (y < 0) | (y >= classes)
    for other in others:
        outside &= y != other
    return int(y[outside][0]) if outside.any() else None


def matrix_size(x: Tensor) -> tuple[int, int]:
    """The numbers of rows and classes of (N, C), (C) or (); torch's error for any other shape."""
    sizes = (1, 1, *x.shape)
    if len(sizes) > 4 or not sizes[-1]:
        raise RuntimeError(
            f"Expected non-empty vector or matrix with optional 0-dim batch size, but got: {list(x.shape)}"
        )
    return sizes[-2], sizes[-1]


def check_long(labels: Tensor) -> None:
    if labels.dtype is not torch.int64:
        raise RuntimeError(f"target: expected scalar type Long but found {scalar_type(labels.dtype)}")


def step(excess: Tensor) -> Tensor:
    """The slope of max(0, h) by h, given its value: 1 where that is positive, NaN where it is NaN, else 0."""
    return torch.where(excess > 0, 1, excess)
