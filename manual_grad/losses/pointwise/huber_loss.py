r"""Huber loss.

**Where it comes from.** The squared loss corresponds to Gaussian noise and is sensitive to outliers. The absolute loss
resists outliers but has no curvature at its minimum. Huber [1] combines them: quadratic for small residuals :math:`r`,
linear beyond :math:`\delta`. This is the negative log-likelihood of noise that is Gaussian in the center and Laplacian
in the tails, which is the least favorable distribution among contaminated Gaussians.

**Definition.** The slopes of the pieces match where they meet:

.. math::
    e(x, t) = \begin{cases} \tfrac12 r^2 & |r| \le \delta \\
                            \delta\,(|r| - \tfrac12 \delta) & |r| > \delta \end{cases}, \qquad r = x - t \tag{1}

**Gradient.** The parabola has slope :math:`r` and the lines :math:`\pm\delta`, so the slope is the clamped residual
(Huber's :math:`\psi` function). The target enters only through :math:`r`, with the opposite sign:

.. math::
    \frac{\partial e}{\partial x} = \max(-\delta, \min(r, \delta)), \qquad
    \frac{\partial e}{\partial t} = -\frac{\partial e}{\partial x} \tag{2}

**Second derivative.** Only the parabola has curvature:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = [\,|r| \le \delta\,] \tag{3}

**Kinks.** The slope is continuous. The curvature jumps at :math:`|r| = \delta`, where the quadratic side is chosen.

**In floating point** (1) and (2) are used as they stand: nothing cancels except in the residual itself, which is as
accurate as the data.

**Shapes and domain.** Input, target and weight are real and broadcast to one shape; :math:`\delta > 0`. A
weight multiplies :math:`e`.

Sources:

1. Peter J. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics 35 (1964) 73-101,
   `doi:10.1214/aoms/1177703732 <https://doi.org/10.1214/aoms/1177703732>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class HuberLossFunction(PointwiseLoss):
    """``apply(input, target, weight, delta, reduction)``."""

    kernel = "huber_loss"
    plain = True

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, delta: float) -> Tensor:
        r = x - t
        size = r.abs()
        return torch.where(size > delta, delta * (size - 0.5 * delta), 0.5 * r * r)  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor, delta: float) -> tuple[Tensor, Tensor]:
        dx = (x - t).clamp(-delta, delta)  # (2)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor, delta: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = ((x - t).abs() <= delta).to(x.dtype)  # (3)
        return (h, -h), (-h, h)


@arguments.functional
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Huber loss of each element; see :func:`torch.nn.functional.huber_loss`.

    Args:
        input: Floating point tensor of any shape.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        delta: The residual at which the quadratic becomes linear; positive.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the input's dtype, promoted with the weight's
        (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown, or ``weight`` does not have the input's shape.
        RuntimeError: ``delta`` is not positive, or the shapes do not broadcast.
        TypeError: ``delta`` is not a number.
        NotImplementedError: the input is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import huber_loss
        >>> input, target = torch.tensor([0.5, 2.0, -1.0], requires_grad=True), torch.tensor([1.0, 2.0, 1.0])
        >>> loss = huber_loss(input, target, reduction="none")
        >>> loss.tolist()
        [0.125, 0.0, 1.5]
        >>> torch.autograd.grad(loss.sum(), input)[0]
        tensor([-0.5000,  0.0000, -1.0000])
    """
    reduction = arguments.reduction_of(reduction)
    delta = arguments.real("huber_loss", "delta", delta)
    if not delta > 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta. Got delta={delta}")
    weight = arguments.weight_of(weight, input, target)
    arguments.require_floating("huber_loss", input)
    input, target, weight = arguments.autocast(input, target, weight)
    x, t, w = arguments.together(input, target, weight, warns=True)
    arguments.require_floating("huber_loss", x)
    dtype = input.dtype if w is None else torch.promote_types(input.dtype, weight.dtype)
    return evaluate(HuberLossFunction, x, t, w, delta, reduction).to(dtype)


class HuberLoss(torch.nn.HuberLoss):
    """:func:`huber_loss` as a module, interchangeable with :class:`torch.nn.HuberLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)
