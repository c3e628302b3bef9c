r"""Huber loss.

**Where it comes from.** The squared loss suits Gaussian noise, but a single outlier can move its minimum anywhere. The
absolute loss resists outliers, but has no curvature at its minimum. Huber [1] asked which loss is best if most of the
noise is Gaussian and the rest unknown.

**Definition.** Say that a residual :math:`r` is the sum of noise and of a gross error :math:`o`, which is usually 0.
The noise costs half its square, and the error :math:`\delta` per unit. The loss is the price of the cheapest
explanation,

.. math::
    e(x, t) = \tfrac12 (r - o)^2 + \delta\,|o|, \qquad r = x - t, \qquad o = r - \max(-\delta, \min(r, \delta)) \tag{1}

because for :math:`o > 0` the derivative by :math:`o` is :math:`o - r + \delta`, which is 0 at :math:`o = r - \delta`.
If :math:`r \le \delta`, it is positive, and no error is cheapest; negative residuals are the mirror image. So a
residual up to :math:`\delta` counts as noise, and of a larger one all but :math:`\delta` counts as error. Inserting
:math:`o` gives a parabola and two lines:

.. math::
    e(x, t) = \begin{cases} \tfrac12 r^2 & |r| \le \delta \\
                            \delta\,(|r| - \tfrac12 \delta) & |r| > \delta \end{cases} \tag{2}

.. figure:: /figures/huber_explained.svg
   :alt: Against the residual, with delta 1: half its square, its absolute value, and below both the loss, which follows
         the parabola up to 1, and then a line parallel to the absolute value.

   The cheapest explanation of a residual, with :math:`\delta = 1`.

As a likelihood, this is noise that is Gaussian in the center and Laplacian in the tails. Among all Gaussians that are
contaminated to a given degree, it is the one from which a location is hardest to learn; in this sense the loss is the
best for the worst case [1].

**Gradient.** At its minimum, a small change of :math:`o` changes nothing in (1). So the slope is :math:`r - o`, the
part that counts as noise: the clamped residual (Huber's :math:`\psi` function). The target enters only through
:math:`r`, with the opposite sign:

.. math::
    \frac{\partial e}{\partial x} = \max(-\delta, \min(r, \delta)), \qquad
    \frac{\partial e}{\partial t} = -\frac{\partial e}{\partial x} \tag{3}

**Second derivative.** Only the parabola has curvature:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = [\,|r| \le \delta\,] \tag{4}

**Kinks.** The slope is continuous. The curvature jumps at :math:`|r| = \delta`, where the quadratic side is chosen.

**Choice of δ.** It has the unit of the residual. For large :math:`\delta` the loss becomes half the
squared error. For small :math:`\delta` it becomes :math:`\delta` times the absolute error, which is why
``smooth_l1_loss`` divides it by :math:`\delta`. With Gaussian noise of standard deviation :math:`\sigma`, :math:`\delta
= 1.345\,\sigma` gives estimates that are 95 % as efficient as the mean: the price of insurance against outliers.

**In floating point** (2) and (3) are used as they stand: nothing cancels except in the residual itself, which is as
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
from manual_grad.engine.dtypes import in_dtype
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
        return torch.where(size > delta, delta * (size - 0.5 * delta), 0.5 * r * r)  # (2)

    @staticmethod
    def first(x: Tensor, t: Tensor, delta: float) -> tuple[Tensor, Tensor]:
        dx = (x - t).clamp(-delta, delta)  # (3)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor, delta: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = ((x - t).abs() <= delta).to(x.dtype)  # (4)
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
    return in_dtype(evaluate(HuberLossFunction, x, t, w, delta, reduction), dtype)


class HuberLoss(torch.nn.HuberLoss):
    """:func:`huber_loss` as a module, interchangeable with :class:`torch.nn.HuberLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)
