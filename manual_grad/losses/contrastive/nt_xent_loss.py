r"""@@nt_xent"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, contrastive
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class NTXentLossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def nt_xent_loss(
    input1: Tensor,
    input2: Tensor,
    temperature: Tensor | float = 0.5,
    *,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """SimCLR's loss of two views of each sample, of which the scores of all pairs are never stored whole.

    Args:
        input1: Feature vectors of one view, floating point, of shape (N, D). They are taken as they are: normalize them
            for cosines.
        input2: Those of the other view, of the same shape and dtype.
        temperature: Divides the scores; positive. A tensor without dimensions may require a gradient.
        reduction: 'none', 'mean' or 'sum' over the 2N vectors.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and the numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit, and 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the temperature. So one that
    averages the gradients of the *parameters* over R processes, as DDP and FSDP do, leaves 1 / R of them:
    call ``(R * loss).backward()``. All processes must make the same calls.

    Returns:
        A scalar, or for 'none' a tensor of shape (2N), first the values of ``input1``; float32 for halves and under
        autocast, else of the dtype of the features. Both inputs and ``temperature`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group while torch.compile is tracing.
        ValueError: ``reduction`` is unknown, ``temperature`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import nt_xent_loss
        >>> input1, input2 = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
        >>> nt_xent_loss(input1, input2, reduction="none")
        tensor([0.3125, 0.3786, 0.8335, 0.4550])
    """
    name = "nt_xent_loss"
    reduction = arguments.reduction_of(reduction)
    x = torch.cat(contrastive.features_of(name, "input1", input1, "input2", input2))
    scale = contrastive.number_of(name, "temperature", temperature, x).reciprocal()
    spread = contrastive.spread_of(name, group, len(x), len(x), x.device)
    own = torch.arange(len(x), device=x.device)
    positive = own.roll(len(input1))  # the other view
    if spread is not None:
        own, positive = own + spread.row, positive + spread.row
    return contrastive.loss_of(NTXentLossFunction, x, x, scale, spread, reduction, positive=positive, own=own)


class NTXentLoss(torch.nn.Module):
    """:func:`nt_xent_loss` as a module; a ``temperature`` that is a parameter is trained with the model."""

    def __init__(self, temperature: Tensor | float = 0.5, *, reduction: str = "mean", group: Any = None) -> None:
        super().__init__()
        self.temperature, self.reduction, self.group = temperature, reduction, group

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return nt_xent_loss(input1, input2, self.temperature, reduction=self.reduction, group=self.group)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"
