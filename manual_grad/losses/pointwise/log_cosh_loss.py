r"""Log-cosh loss.

**Where it comes from.** This is a smooth absolute loss without a parameter: close to the parabola :math:`r^2 / 2` for
small residuals and to the line :math:`|r| - \log 2` for large ones. Green [1] used it as a potential between
neighboring pixels, so that an edge of an image costs no more than its height. Up to a constant it is the negative
log-likelihood of noise with a hyperbolic secant density.

**Definition.**

.. math::
    e(x, t) = \log \frac{e^r + e^{-r}}{2}, \qquad r = x - t \tag{1}

**Gradient.** The slope is the hyperbolic tangent, a residual that saturates smoothly at :math:`\pm 1`:

.. math::
    \frac{\partial e}{\partial x} = \frac{e^r - e^{-r}}{e^r + e^{-r}}, \qquad
    \frac{\partial e}{\partial t} = -\frac{\partial e}{\partial x} \tag{2}

**Second derivative.** The square of the hyperbolic secant:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = \frac{4}{(e^r + e^{-r})^2}
    = \frac{4 u}{(1 + u)^2}, \qquad u = e^{-2 m}, \qquad m = |r| \tag{3}

**Stable form.** In (1) an exponential overflows from :math:`|r| = 89` on in float32. Taking the larger one out of the
logarithm avoids this and leaves a function of :math:`w`, which is ``expm1`` of :math:`-2m`:

.. math::
    e(x, t) = m + \log \Big( 1 + \frac w2 \Big), \qquad
    \frac{\partial e}{\partial x} = -\operatorname{sgn}(r)\, \frac{w}{2 + w}, \qquad w = u - 1 \tag{4}

This keeps all digits of the slope, and of the value for large residuals. For small ones the two terms of the value
cancel from :math:`m` down to :math:`m^2 / 2`: for a residual of :math:`10^{-8}` in float64, no digit would be left.
There the loss is computed from the hyperbolic sine, whose square is that of the hyperbolic cosine minus 1, in terms of
the same :math:`w`:

.. math::
    e(x, t) = \frac12 \log \Big( 1 + \frac{w^2}{4\,(1 + w)} \Big) \tag{5}

The switch is at :math:`m = 3/4`, where both are accurate to about 3 eps.

There are no kinks.

**Shapes and domain.** Input, target and weight are real and broadcast to one shape. A weight multiplies
:math:`e`.

Sources:

1. Peter J. Green, "Bayesian Reconstructions from Emission Tomography Data Using a Modified EM Algorithm", IEEE
   Transactions on Medical Imaging 9 (1990) 84-93, `doi:10.1109/42.52985 <https://doi.org/10.1109/42.52985>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import size
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class LogCoshLossFunction(PointwiseLoss):
    """``apply(input, target, weight, reduction)``."""

    kernel = "log_cosh_loss"

    @staticmethod
    def elementwise(x: Tensor, t: Tensor) -> Tensor:
        m = size(x - t)
        w = (-2 * m).expm1()
        near = m < 0.75
        log = torch.where(near, 0.25 * w * w / (1 + w), 0.5 * w).log1p()
        return torch.where(near, 0.5 * log, m + log)  # (5) (4)

    @staticmethod
    def first(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r = x - t
        w = (-2 * size(r)).expm1()
        slope = w / (2 + w)
        dx = torch.where(r < 0, slope, -slope)  # (4)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        u = (-2 * size(x - t)).exp()
        h = 4 * u / ((1 + u) * (1 + u))  # (3)
        return (h, -h), (-h, h)


@arguments.functional
def log_cosh_loss(input: Tensor, target: Tensor, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Logarithm of the hyperbolic cosine of each residual.

    Args:
        input: Tensor of any shape.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown, or ``weight`` does not have the input's shape.
        RuntimeError: the shapes do not broadcast.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    weight = arguments.weight_of(weight, input, target)
    x, t, w = arguments.together(input, target, weight, warns=True)
    arguments.require_floating("log_cosh_loss", x)
    return evaluate(LogCoshLossFunction, x, t, w, reduction)


class LogCoshLoss(torch.nn.Module):
    """:func:`log_cosh_loss` as a module."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return log_cosh_loss(input, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
