r"""Quantile loss, or pinball loss.

**Where it comes from.** The absolute loss is minimized by the median. Koenker and Bassett [1] tilt it: if each unit by
which the target exceeds the input costs :math:`\tau`, and each unit by which it falls short costs :math:`1 - \tau`, the
expected loss is minimized where a fraction :math:`\tau` of the targets lies below, at their :math:`\tau`-quantile. With
:math:`\tau = 0.9`, regression becomes a forecast of the form "at most this, nine times out of ten".

**Definition.** The residual :math:`r` is positive for a forecast that is too high:

.. math::
    e(x, t) = \max((1 - \tau)\, r,\; -\tau\, r), \qquad r = x - t \tag{1}

For :math:`\tau = 1/2` it is half of :mod:`~manual_grad.losses.pointwise.l1_loss`.

**Gradient.** The slope is constant on each side:

.. math::
    \frac{\partial e}{\partial x} = [\,r > 0\,]\, (1 - \tau) - [\,r < 0\,]\, \tau, \qquad
    \frac{\partial e}{\partial t} = -\frac{\partial e}{\partial x} \tag{2}

**Second derivative.** So the curvature vanishes:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial x\, \partial t}
    = \frac{\partial^2 e}{\partial t^2} = 0 \tag{3}

**Kinks.** At :math:`r = 0`, any slope in :math:`[-\tau, 1 - \tau]` is a subgradient. 0 is chosen, which leaves a
perfect fit unchanged.

**In floating point** only the residual and one product are rounded.

**Shapes and domain.** Input, target and weight are real and broadcast to one shape;
:math:`0 < \tau < 1`. A weight multiplies :math:`e`.

Sources:

1. Roger Koenker and Gilbert Bassett, "Regression Quantiles", Econometrica 46 (1978) 33-50,
   `doi:10.2307/1913643 <https://doi.org/10.2307/1913643>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class QuantileLossFunction(PointwiseLoss):
    """``apply(input, target, weight, quantile, reduction)``."""

    kernel = "quantile_loss"

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, quantile: float) -> Tensor:
        r = x - t
        return torch.where(r < 0, -quantile * r, (1 - quantile) * r)  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
        r = x - t
        tie = 0 * r  # or NaN
        dx = torch.where(r < 0, -quantile, torch.where(r > 0, 1 - quantile, tie))  # (2)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor, quantile: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = torch.zeros_like(x)  # (3)
        return (h, h), (h, h)


def _quantile(value: float) -> float:
    quantile = arguments.real("quantile_loss", "quantile", value)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile_loss(): argument 'quantile' must be between 0 and 1, but got {quantile}")
    return quantile


@arguments.functional
def quantile_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", quantile: float = 0.5, weight: Tensor | None = None
) -> Tensor:
    """Pinball loss of each element.

    Args:
        input: The forecast quantiles, a tensor of any shape.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        quantile: The fraction of the targets that should lie below the input, between 0 and 1. It is also the cost per
            unit of a target above the input.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``quantile`` is not between 0 and 1, or ``weight`` does not have the
            input's shape.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``quantile`` is not a number.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    quantile = _quantile(quantile)
    weight = arguments.weight_of(weight, input, target)
    x, t, w = arguments.together(input, target, weight, warns=True)
    arguments.require_floating("quantile_loss", x)
    return evaluate(QuantileLossFunction, x, t, w, quantile, reduction)


class QuantileLoss(torch.nn.Module):
    """:func:`quantile_loss` as a module."""

    def __init__(self, reduction: str = "mean", quantile: float = 0.5) -> None:
        super().__init__()
        self.reduction, self.quantile = reduction, _quantile(quantile)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return quantile_loss(input, target, reduction=self.reduction, quantile=self.quantile)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, quantile={self.quantile}"
