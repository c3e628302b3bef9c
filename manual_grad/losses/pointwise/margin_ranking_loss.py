r"""Margin ranking loss.

**Where it comes from.** Two items have scores :math:`x_1` and :math:`x_2`, and a label says which should rank higher:
the first (:math:`t = 1`) or the second (:math:`t = -1`). The loss is 0 if the right one leads by a margin :math:`m`,
and otherwise the shortfall. It is the hinge loss of the support vector machine applied to the difference of the scores
(Herbrich, Graepel and Obermayer [1]; in Joachims [2] the pairs come from clicks).

**Definition.**

.. math::
    e(x_1, x_2, t) = \max(0, s), \qquad s = m - t\,(x_1 - x_2) \tag{1}

**Gradient.** Each derivative is that of :math:`s` where the hinge is active:

.. math::
    \frac{\partial e}{\partial x_1} = -t\,[s \ge 0], \qquad
    \frac{\partial e}{\partial x_2} = t\,[s \ge 0], \qquad
    \frac{\partial e}{\partial t} = -(x_1 - x_2)\,[s \ge 0] \tag{2}

**Second derivatives.** The slopes are constant in the scores. They depend linearly on the target, which has a gradient,
as in torch:

.. math::
    \frac{\partial^2 e}{\partial x_1 \partial t} = -\frac{\partial^2 e}{\partial x_2 \partial t} = -[s \ge 0], \qquad
    \frac{\partial^2 e}{\partial x_1^2} = \frac{\partial^2 e}{\partial x_1 \partial x_2}
    = \frac{\partial^2 e}{\partial x_2^2} = \frac{\partial^2 e}{\partial t^2} = 0 \tag{3}

**Kinks.** At :math:`s = 0` the active side is chosen, as in torch. With the default margin of 0, equal scores are a tie
that the loss should break, and the other side would leave them unchanged. Where :math:`s` is NaN, so is the value; a
slope is NaN there only if its own factor is NaN or infinite, and otherwise 0.

**Stable form.** Near the kink, :math:`s` is the difference of two close numbers, of which float32 would leave little
but the rounding errors of the margin and the lead. Therefore float32 is computed in float64, where the difference of
two float32 scores of similar size is exact and there are digits to spare.

**Shapes and domain.** Scores and target broadcast; scores and margin may be any real numbers. Targets other than
:math:`\pm 1` scale the lead.

Sources:

1. Ralf Herbrich, Thore Graepel and Klaus Obermayer, "Large Margin Rank Boundaries for Ordinal Regression", Advances in
   Large Margin Classifiers, MIT Press (2000) 115-132.
2. Thorsten Joachims, "Optimizing Search Engines using Clickthrough Data", ACM SIGKDD (2002) 133-142,
   `doi:10.1145/775047.775067 <https://doi.org/10.1145/775047.775067>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.engine.reduction import reduced


class MarginRankingLossFunction(PointwiseLoss):
    """``apply(input1, input2, target, None, margin, reduction)``; None stands for the weight."""

    kernel = "margin_ranking_loss"

    @staticmethod
    def elementwise(x1: Tensor, x2: Tensor, t: Tensor, margin: float) -> Tensor:
        return (-t * (x1 - x2) + margin).clamp_min(0)  # (1)

    @staticmethod
    def first(x1: Tensor, x2: Tensor, t: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        r = x1 - x2
        s = margin - t * r

        def open_to(slope: Tensor) -> Tensor:  # if s is NaN: NaN for a slope that is NaN or infinite, 0 for others
            return torch.where(s >= 0, slope, torch.where(s < 0, 0, 0 * slope))

        return open_to(-t), open_to(t), open_to(-r)  # (2)

    @staticmethod
    def second(x1: Tensor, x2: Tensor, t: Tensor, margin: float) -> tuple[tuple[Tensor | int, ...], ...]:
        h = (margin - t * (x1 - x2) >= 0).to(x1.dtype)
        return (0, 0, -h), (0, 0, h), (-h, h, 0)  # (3)


@arguments.functional
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Margin ranking loss of each pair of scores; see :func:`torch.nn.functional.margin_ranking_loss`.

    Args:
        input1, input2: The scores, of any shape. Integers are subtracted as integers and have no gradient.
        target: 1 where ``input1`` should be the higher, -1 where ``input2`` should; any other number scales the
            difference. The three tensors must have the same number of dimensions, and broadcast.
        margin: The lead from which the loss is 0.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (the default one for integers,
        float32 under autocast). All three tensors may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: the numbers of dimensions differ, the sizes do not broadcast, or a tensor is boolean.
        TypeError: ``margin`` is not a number.
        NotImplementedError: a tensor is complex.
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.size()}, input2: {input2.size()}, target: {target.size()} "
        )
    margin = arguments.real("margin_ranking_loss", "margin", margin)
    if torch.bool in (input1.dtype, input2.dtype, target.dtype):
        raise RuntimeError(
            "margin_ranking_loss: boolean tensors are not supported: "
            f"got input1: {input1.dtype}, input2: {input2.dtype}, target: {target.dtype}"
        )
    x1, x2, t = arguments.together(input1, input2, target)
    if not x1.is_floating_point():
        return reduced(MarginRankingLossFunction.elementwise(x1, x2, t, margin), reduction)
    return evaluate(MarginRankingLossFunction, x1, x2, t, None, margin, reduction)


class MarginRankingLoss(torch.nn.MarginRankingLoss):
    """:func:`margin_ranking_loss` as a module, interchangeable with :class:`torch.nn.MarginRankingLoss`."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)
