r"""Smooth absolute error.

**Where it comes from.** This is the absolute error with its kink at 0 rounded off. It was introduced for bounding-box
regression, where one bad box would dominate a squared error (Girshick [1]). It is the Huber loss with
:math:`\delta = \beta`, divided by :math:`\beta`. Its linear branches have slope 1 for every :math:`\beta`. For
:math:`\beta \to 0` it becomes the absolute error, which is what :math:`\beta = 0` computes.

**Definition.** A parabola for small residuals :math:`r`, continued by lines of slope 1:

.. math::
    e(x, t) = \begin{cases} \dfrac{r^2}{2\beta} & |r| < \beta \\
                            |r| - \tfrac12 \beta & |r| \ge \beta \end{cases}, \qquad r = x - t \tag{1}

**Gradient.** The slope is the residual in units of :math:`\beta`, clamped to :math:`\pm 1`; the target enters only
through :math:`r`:

.. math::
    \frac{\partial e}{\partial x} = \max(-1, \min(r / \beta, 1)), \qquad
    \frac{\partial e}{\partial t} = -\frac{\partial e}{\partial x} \tag{2}

**Second derivative.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = \frac{[\,|r| < \beta\,]}{\beta} \tag{3}

**Kinks.** The curvature jumps at :math:`|r| = \beta`, where the linear side is chosen. With :math:`\beta = 0` the slope
jumps at :math:`r = 0`, where it is set to 0.

**Stable form.** The parabola is computed from its slope as :math:`\tfrac12 (r / \beta)\, r`. Unlike :math:`r^2`, this
does not underflow before the loss does.

**Shapes and domain.** Input and target are real and broadcast; :math:`\beta \ge 0`.

Sources:

1. Ross Girshick, "Fast R-CNN", IEEE International Conference on Computer Vision (2015) 1440-1448,
   `doi:10.1109/ICCV.2015.169 <https://doi.org/10.1109/ICCV.2015.169>`_, equation (3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.losses.pointwise.l1_loss import l1_loss


class SmoothL1LossFunction(PointwiseLoss):
    """``apply(input, target, None, beta, reduction)``."""

    kernel = "smooth_l1_loss"
    plain = True

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, beta: float) -> Tensor:
        r = x - t
        size = r.abs()
        return torch.where(size < beta, 0.5 * (r / beta) * r, size - 0.5 * beta)  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        dx = ((x - t) / beta).clamp(-1, 1)  # (2)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor, beta: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = ((x - t).abs() < beta).to(x.dtype) / beta  # (3)
        return (h, -h), (-h, h)


@arguments.functional
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Smooth absolute error of each element; see :func:`torch.nn.functional.smooth_l1_loss`.

    Args:
        input: Floating point tensor of any shape.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'.
        beta: The residual at which the parabola becomes linear; not negative. 0 gives the absolute error and accepts
            the same inputs as :func:`~manual_grad.functional.l1_loss`.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: ``beta`` is negative or NaN, or the shapes do not broadcast.
        TypeError: ``beta`` is not a number.
        NotImplementedError: the promoted dtype is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import smooth_l1_loss
        >>> input, target = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([1.0, 2.0, 1.0])
        >>> smooth_l1_loss(input, target, reduction="none")
        tensor([0.1250, 0.0000, 1.5000])
        >>> smooth_l1_loss(input, target, reduction="none", beta=0.5)
        tensor([0.2500, 0.0000, 1.7500])
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    beta = arguments.real("smooth_l1_loss", "beta", beta)
    if not beta >= 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta. Got beta={beta}")
    x, t = arguments.together(input, target, warns=True)
    if beta == 0:
        return l1_loss(x, t, reduction=reduction)
    arguments.require_floating("smooth_l1_loss", x)
    return evaluate(SmoothL1LossFunction, x, t, None, beta, reduction)


class SmoothL1Loss(torch.nn.SmoothL1Loss):
    """:func:`smooth_l1_loss` as a module, interchangeable with :class:`torch.nn.SmoothL1Loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)
