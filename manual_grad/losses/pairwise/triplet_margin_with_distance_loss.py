r"""Triplet margin loss with a custom distance.

**Where it comes from.** The triplet margin loss (:mod:`manual_grad.losses.pairwise.triplet_margin_loss`) requires an
anchor :math:`a` to be closer to a positive example :math:`p` than to a negative one :math:`n` by a margin :math:`m`.
This makes sense for any notion of distance.

**Definition.** For any distance :math:`d`, let :math:`x = d(a, p)`, :math:`y = d(a, n)` and, with ``swap`` (Balntas et
al. [1]), :math:`z = d(p, n)`. Then

.. math::
    e(x, y, z) = \max(0, s), \qquad s = m + x - \min(y, z) \tag{1}

(without ``swap``, :math:`z` is absent). The loss is treated as a function of the distances; autograd differentiates
:math:`d` itself.

**Gradient.** With :math:`\alpha` and :math:`\beta` the shares of the two distances in the minimum,

.. math::
    \frac{\partial e}{\partial x} = [s \ge 0], \qquad
    \frac{\partial e}{\partial y} = -\alpha\,[s \ge 0], \qquad
    \frac{\partial e}{\partial z} = -\beta\,[s \ge 0], \qquad \alpha = [y < z], \qquad \beta = [z < y] \tag{2}

**Second derivative.** There is no curvature except that of :math:`d`:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2} = \frac{\partial^2 e}{\partial z^2}
    = \frac{\partial^2 e}{\partial x\, \partial y} = \frac{\partial^2 e}{\partial x\, \partial z}
    = \frac{\partial^2 e}{\partial y\, \partial z} = 0 \tag{3}

**Kinks.** Equal distances get a share of :math:`\frac12` each, and at :math:`s = 0` the hinge counts as active, as in
torch.

**Stable form.** The default distance is the Euclidean one with torch's :math:`\epsilon = 10^{-6}`. For it the rule of
the triplet margin loss is used, which goes from the vectors to the loss in one step.

**Shapes and domain.** Anything that :math:`d` accepts; it must return one number per triplet. :math:`m > 0`.

Sources:

1. Vassileios Balntas, Edgar Riba, Daniel Ponsa and Krystian Mikolajczyk, "Learning Shallow Convolutional Feature
   Descriptors with Triplet Losses", BMVC (2016), `doi:10.5244/C.30.119 <https://doi.org/10.5244/C.30.119>`_.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pairwise import DistanceLoss
from manual_grad.engine.reduction import reduced
from manual_grad.losses.pairwise.triplet_margin_loss import check_dimensions, has_rule, nearer, of_vectors


class TripletMarginWithDistanceLossFunction(DistanceLoss):
    """``apply(x, y, z, None, margin, reduction)``: the distances, of which z may be None; the None is the weight."""

    kernel = "triplet_margin_with_distance_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, z: Tensor | None, margin: float) -> Tensor:
        return (margin + (x - nearer(y, z)[0])).clamp_min(0)  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, z: Tensor | None, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        nearest, alpha, beta = nearer(y, z)
        is_open = torch.where(margin + (x - nearest) < 0, 0.0, torch.ones_like(x))
        return is_open, -alpha * is_open, -beta * is_open  # (2)

    @staticmethod
    def second(x: Tensor, y: Tensor, z: Tensor | None, margin: float) -> tuple[tuple[int, int, int], ...]:
        return ((0, 0, 0),) * 3  # (3)


@arguments.overridable
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Triplet margin loss of any distance; see :func:`torch.nn.functional.triplet_margin_with_distance_loss`.

    Args:
        anchor, positive, negative: Tensors that the distance accepts, with the same number of dimensions.
        distance_function: Called on two of the three; returns their distances, a real tensor. The default,
            ``torch.pairwise_distance``, and instances of exactly ``torch.nn.PairwiseDistance`` are computed by the rule
            of :func:`triplet_margin_loss`.
        margin: By how much closer the positive should be; positive.
        swap: Whether to use the distance between positive and negative if it is smaller than that between anchor and
            negative.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the distances' shape, in their dtype. Autocast has no effect on the loss,
        but on CUDA it applies to the default distance. Which tensors may require a gradient depends on the distance; by
        default all three.

    Raises:
        ValueError: ``reduction`` is unknown, or ``margin`` is not positive.
        RuntimeError: the numbers of dimensions differ, or the sizes do not broadcast.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    check_dimensions(anchor, positive, negative)
    margin, swap = arguments.real("triplet_margin_with_distance_loss", "margin", margin), bool(swap)
    d = torch.pairwise_distance if distance_function is None else distance_function
    degree_and_eps = _of_norm(d)
    if degree_and_eps is not None and has_rule(anchor, positive, negative):
        # torch computes the distance from separate ops. On CUDA, autocast runs one of them, norm, in float32.
        autocasts = anchor.is_cuda
        return of_vectors(anchor, positive, negative, margin, *degree_and_eps, swap, reduction, autocasts)
    distances = d(anchor, positive), d(anchor, negative), d(positive, negative) if swap else None
    return _of_distances(*distances, margin, reduction)


def _of_norm(d: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float] | None:
    """Degree and epsilon of a distance that the rule for vectors covers, else None."""
    if d is torch.pairwise_distance:
        return 2.0, 1e-6
    if type(d) is torch.nn.PairwiseDistance and not d.keepdim:
        return float(d.norm), float(d.eps)
    return None


@arguments.functional
def _of_distances(x: Tensor, y: Tensor, z: Tensor | None, margin: float, reduction: str) -> Tensor:
    x, y, z = arguments.together(x, y, z, autocasts=False)
    if not x.is_floating_point():
        return reduced(TripletMarginWithDistanceLossFunction.elementwise(x, y, z, margin), reduction)
    return evaluate(TripletMarginWithDistanceLossFunction, x, y, z, None, margin, reduction)


class TripletMarginWithDistanceLoss(torch.nn.TripletMarginWithDistanceLoss):
    """:func:`triplet_margin_with_distance_loss` as a module, interchangeable with torch's."""

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=self.distance_function,
            margin=self.margin,
            swap=self.swap,
            reduction=self.reduction,
        )
