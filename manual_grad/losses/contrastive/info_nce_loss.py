r"""@@info_nce"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, contrastive
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class InfoNCELossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def info_nce_loss(
    query: Tensor,
    key: Tensor,
    temperature: Tensor | float = 0.1,
    *,
    symmetric: bool = False,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """Cross entropy of finding each query's own key among all keys, whose scores are never stored whole.

    Args:
        query: Feature vectors, floating point, of shape (N, D). They are taken as they are: normalize them for cosines.
        key: Feature vectors of shape (M, D) in the same dtype. Key i belongs to query i; the others are its negatives,
            also those from N on.
        temperature: Divides the scores; positive. A tensor without dimensions may require a gradient.
        symmetric: Whether to return the mean of this loss and the one with queries and keys exchanged, for M = N.
        reduction: 'none', 'mean' or 'sum' over the queries.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and the numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit, and 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the temperature. So one that
    averages the gradients of the *parameters* over R processes, as DDP and FSDP do, leaves 1 / R of them:
    call ``(R * loss).backward()``. All processes must make the same calls.

    Returns:
        A scalar, or for 'none' a tensor of shape (N); float32 for halves and under autocast, else of the dtype of the
        features. ``query``, ``key`` and ``temperature`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group while torch.compile is tracing.
        ValueError: ``reduction`` is unknown, ``temperature`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import info_nce_loss
        >>> query, key = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
        >>> info_nce_loss(query, key, temperature=0.5, reduction="none")
        tensor([0.4608, 0.2067])
    """
    name = "info_nce_loss"
    reduction = arguments.reduction_of(reduction)
    symmetric = arguments.boolean(name, "symmetric", symmetric)
    x, y = contrastive.features_of(name, "query", query, "key", key, more=not symmetric)
    scale = contrastive.number_of(name, "temperature", temperature, x).reciprocal()
    spread = contrastive.spread_of(name, group, len(x), len(y), x.device)
    positive = torch.arange(len(x), device=x.device) + (0 if spread is None else spread.column)
    return contrastive.loss_of(
        InfoNCELossFunction, x, y, scale, spread, reduction, positive=positive, symmetric=symmetric
    )


class InfoNCELoss(torch.nn.Module):
    """:func:`info_nce_loss` as a module; a ``temperature`` that is a parameter is trained with the model."""

    def __init__(
        self, temperature: Tensor | float = 0.1, *, symmetric: bool = False, reduction: str = "mean", group: Any = None
    ) -> None:
        super().__init__()
        self.temperature, self.symmetric, self.reduction, self.group = temperature, symmetric, reduction, group

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return info_nce_loss(
            query, key, self.temperature, symmetric=self.symmetric, reduction=self.reduction, group=self.group
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, symmetric={self.symmetric}, reduction={self.reduction!r}"
