r"""Hinge embedding loss.

**Where it comes from.** The input :math:`x` is the distance between two items, learned from pairs alone. Items that
belong together (:math:`t = 1`) should have distance 0; others (:math:`t = -1`) should be at least a margin :math:`m`
apart. It is the contrastive loss of Hadsell, Chopra and LeCun [1] without the squares.

**Definition.**

.. math::
    e(x, t) = \begin{cases} x & t = 1 \\ \max(0,\, m - x) & t = -1 \\
                            \max(x, m) & \text{otherwise} \end{cases}, \qquad
    \max(x, m) = x + \max(0,\, m - x) \tag{1}

The third case has no meaning for pairs, but it is what torch computes for a target of, say, 0: it adds the two terms
for :math:`t \ne -1` and :math:`t \ne 1`. Written as a maximum, it involves no cancellation.

**Gradient.** The hinge is active where :math:`x \le m`:

.. math::
    \frac{\partial e}{\partial x} = \begin{cases} 1 & t = 1 \\ -[x \le m] & t = -1 \\ 1 - [x \le m] & \text{otherwise}
    \end{cases} \tag{2}

**Second derivative.** There is no curvature, and the target, which only selects a case, has no derivative:

.. math::
    \frac{\partial^2 e}{\partial x^2} = 0 \tag{3}

**Kinks.** At :math:`x = m` the hinge counts as active, as in torch. A NaN input makes the value NaN; the slope is that
of the inactive hinge.

**Stable form.** A margin such as 0.7 is not exact in float32, so if it were rounded first, :math:`m - x` could lose
every digit near the kink. Therefore float32 is computed in float64.

**Shapes and domain.** Input and target broadcast. Any real input is accepted, though a distance is meant; the margin is
any real number.

Sources:

1. Raia Hadsell, Sumit Chopra and Yann LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", IEEE
   Conference on Computer Vision and Pattern Recognition (2006) 1735-1742,
   `doi:10.1109/CVPR.2006.100 <https://doi.org/10.1109/CVPR.2006.100>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.dtypes import in_dtype
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.engine.reduction import reduced


class HingeEmbeddingLossFunction(PointwiseLoss):
    """``apply(input, target, None, margin, reduction)``; None stands for the weight."""

    kernel = "hinge_embedding_loss"
    curved = False

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, margin: float) -> Tensor:
        return torch.where(t == 1, x, torch.where(t == -1, (margin - x).clamp_min(0), x.clamp_min(margin)))  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        is_open = (x <= margin).to(x.dtype)
        return torch.where(t == 1, 1, torch.where(t == -1, -is_open, 1 - is_open)), torch.zeros_like(t)  # (2)

    @staticmethod
    def second(x: Tensor, t: Tensor, margin: float) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, 0), (0, 0)


@arguments.functional
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Hinge embedding loss of each distance; see :func:`torch.nn.functional.hinge_embedding_loss`.

    Args:
        input: Distances, of any shape. Integers have no gradient and no mean, and round the margin towards 0.
        target: 1 for items that belong together, -1 for those that do not, in any real dtype; it broadcasts. For any
            other number both terms are added.
        margin: The distance beyond which items with target -1 have loss 0.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the input's dtype (float32 under autocast).
        The target has no gradient.

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: the sizes do not broadcast; the input is boolean; the mean of integers.
        TypeError: ``margin`` is not a number.
        NotImplementedError: the input is complex.
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    margin = arguments.real("hinge_embedding_loss", "margin", margin)
    input, target = arguments.autocast(input, target)
    if target.dtype is torch.uint8:  # -1 is stored as 255
        target = target.view(torch.int8)
    if not input.is_floating_point():
        margin = margin if input.is_complex() else int(margin)
        return reduced(HingeEmbeddingLossFunction.elementwise(input, target, margin), reduction)
    # in the wider of the two dtypes, so that no target is rounded to 1 or -1
    x, t = arguments.together(input, target.detach() if target.requires_grad else target)
    return in_dtype(evaluate(HingeEmbeddingLossFunction, x, t, None, margin, reduction), input.dtype)


class HingeEmbeddingLoss(torch.nn.HingeEmbeddingLoss):
    """:func:`hinge_embedding_loss` as a module, interchangeable with :class:`torch.nn.HingeEmbeddingLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)
