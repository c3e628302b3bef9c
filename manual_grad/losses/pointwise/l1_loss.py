r"""Absolute error.

**Where it comes from.** If the target is the input plus Laplace noise of constant scale, the negative log-likelihood
is, up to constants, the absolute value of the residual :math:`r`. Its minimizer is the median, which no single outlier
can move (Boscovich 1757; Laplace [1], who found the corresponding law of errors).

**Definition.**

.. math::
    e(x, t) = |r|, \qquad r = x - t \tag{1}

**Gradient.** Every residual contributes the same slope, whatever its size:

.. math::
    \frac{\partial e}{\partial x} = \operatorname{sgn} r, \qquad
    \frac{\partial e}{\partial t} = -\operatorname{sgn} r, \qquad \operatorname{sgn} 0 = 0 \tag{2}

**Second derivative.** The slope is constant on each side, so the curvature vanishes:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial x\, \partial t}
    = \frac{\partial^2 e}{\partial t^2} = 0 \tag{3}

**Kinks.** At :math:`r = 0`, any slope in :math:`[-1, 1]` is a subgradient. 0 is chosen, as in torch; it leaves a
perfect fit unchanged.

**In floating point** only the subtraction is rounded; the sign is exact.

**Shapes and domain.** Input and target are real and broadcast. With a weight, 'mean' divides by the sum of the weights,
:math:`\sum w e / \sum w`, as torch does.

Sources:

1. Pierre-Simon Laplace, "Mémoire sur la probabilité des causes par les évènements", Mémoires de mathématique et de
   physique 6 (1774) 621-656.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss, weighted_mean
from manual_grad.engine.reduction import reduced


class L1LossFunction(PointwiseLoss):
    """``apply(input, target, weight, reduction)``."""

    kernel = "l1_loss"
    plain = True

    @staticmethod
    def elementwise(x: Tensor, t: Tensor) -> Tensor:
        return (x - t).abs()  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        dx = (x - t).sign()  # (2)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = torch.zeros_like(x)  # (3)
        return (h, h), (h, h)


@arguments.functional
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Absolute error of each element; see :func:`torch.nn.functional.l1_loss`.

    Args:
        input: Tensor of any shape. Integers have no gradient and no mean. For complex numbers, the loss is the modulus
            of the residual, computed and differentiated by torch.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' (weighted if there is a weight) or 'sum'.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype. Under autocast it is float32;
        with a weight, as in torch, only on CUDA, and not for 'none'.

    Raises:
        ValueError: ``reduction`` is unknown, or ``weight`` does not have the input's shape.
        RuntimeError: the shapes do not broadcast; the mean of integers.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import l1_loss
        >>> input, target = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([1.0, 2.0, 1.0])
        >>> l1_loss(input, target, reduction="none")
        tensor([0.5000, 0.0000, 2.0000])
        >>> l1_loss(input, target, reduction="sum")
        tensor(2.5000)
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    weight = arguments.weight_of(weight, input, target)
    # With a weight, torch computes the loss from separate ops. On CUDA, autocast runs one of them, sum, in float32.
    autocasts = weight is None or (input.is_cuda and reduction != "none")
    x, t, w = arguments.together(input, target, weight, warns=True, autocasts=autocasts)
    arguments.refuse_complex("l1_loss", x)
    if not x.is_floating_point():
        return reduced((x - t).abs(), reduction, w)
    if w is not None and reduction == "mean":
        return weighted_mean(L1LossFunction, x, t, w)
    return evaluate(L1LossFunction, x, t, w, reduction)


class L1Loss(torch.nn.L1Loss):
    """:func:`l1_loss` as a module, interchangeable with :class:`torch.nn.L1Loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return l1_loss(input, target, reduction=self.reduction)
