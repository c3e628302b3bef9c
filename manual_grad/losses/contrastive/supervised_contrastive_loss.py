r"""@@supcon"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, contrastive
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class SupervisedContrastiveLossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def supervised_contrastive_loss(
    features: Tensor,
    labels: Tensor,
    temperature: Tensor | float = 0.1,
    *,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """The loss of vectors that share a label with others, of which the scores of all pairs are never stored whole.

    Args:
        features: Feature vectors, floating point, of shape (N, D): for several views of a sample, a row for each. They
            are taken as they are: normalize them for cosines.
        labels: Integers of shape (N).
        temperature: Divides the scores; positive. A tensor without dimensions may require a gradient.
        reduction: 'none', 'mean' or 'sum' over the vectors. The mean divides by N, whether or not a vector has a
            positive.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and the numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit, and 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the temperature. So one that
    averages the gradients of the *parameters* over R processes, as DDP and FSDP do, leaves 1 / R of them:
    call ``(R * loss).backward()``. All processes must make the same calls.

    Returns:
        A scalar, or for 'none' a tensor of shape (N), 0 for a vector whose label no other has; float32 for halves and
        under autocast, else of the dtype of the features. ``features`` and ``temperature`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group while torch.compile is tracing.
        ValueError: ``reduction`` is unknown, ``temperature`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import supervised_contrastive_loss
        >>> features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> supervised_contrastive_loss(features, torch.tensor([1, 1, 2]), temperature=0.5, reduction="none")
        tensor([0.1839, 0.5130, 0.0000])
    """
    name = "supervised_contrastive_loss"
    reduction = arguments.reduction_of(reduction)
    if labels.shape != features.shape[:1]:
        raise RuntimeError(f"labels: expected shape {list(features.shape[:1])}, but got {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise RuntimeError(f"labels: expected integers, but found {arguments.scalar_type(labels.dtype)}")
    x, _ = contrastive.features_of(name, "features", features, "features", features)
    scale = contrastive.number_of(name, "temperature", temperature, x).reciprocal()
    spread = contrastive.spread_of(name, group, len(x), len(x), x.device)
    own, label = torch.arange(len(x), device=x.device), labels.long()
    every = label
    if spread is not None:
        own, every = own + spread.row, contrastive.gathered(label, spread)
    in_order = every.sort().values
    positives = torch.searchsorted(in_order, label, right=True) - torch.searchsorted(in_order, label) - 1
    share = torch.where(positives > 0, positives.double().reciprocal(), 0.0)
    return contrastive.loss_of(
        SupervisedContrastiveLossFunction, x, x, scale, spread, reduction, own=own, label=label, labels=every,
        share=share,
    )  # fmt: skip


class SupervisedContrastiveLoss(torch.nn.Module):
    """:func:`supervised_contrastive_loss` as a module; a ``temperature`` that is a parameter is trained too."""

    def __init__(self, temperature: Tensor | float = 0.1, *, reduction: str = "mean", group: Any = None) -> None:
        super().__init__()
        self.temperature, self.reduction, self.group = temperature, reduction, group

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return supervised_contrastive_loss(
            features, labels, self.temperature, reduction=self.reduction, group=self.group
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"
