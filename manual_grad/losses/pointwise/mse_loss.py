r"""Squared error.

**Where it comes from.** If the target is the input plus Gaussian noise of constant variance, the negative
log-likelihood is, up to constants, the square of the residual :math:`r` (Gauss [2]; Legendre [1], without the noise
model). Its minimizer is the mean.

**Definition.**

.. math::
    e(x, t) = r^2, \qquad r = x - t \tag{1}

**Gradient.** A parabola has a linear slope; the target enters only through :math:`r`, with the opposite sign:

.. math::
    \frac{\partial e}{\partial x} = 2r, \qquad \frac{\partial e}{\partial t} = -2r \tag{2}

**Second derivative.** The curvature is constant, so Newton's method converges in one step:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = 2 \tag{3}

There are no kinks.

**In floating point** the residual is computed before it is squared; the expanded form :math:`x^2 - 2xt + t^2` would
cancel.

**Shapes and domain.** Input and target are real and broadcast. With a weight, 'mean' divides by the sum of the weights,
:math:`\sum w e / \sum w`, as torch does.

Sources:

1. Adrien-Marie Legendre, "Nouvelles méthodes pour la détermination des orbites des comètes" (1805).
2. Carl Friedrich Gauss, "Theoria motus corporum coelestium in sectionibus conicis solem ambientium" (1809).
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss, weighted_mean
from manual_grad.engine.reduction import reduced


class MSELossFunction(PointwiseLoss):
    """``apply(input, target, weight, reduction)``."""

    kernel = "mse_loss"
    plain = True
    factor = 2  # of (2)

    @staticmethod
    def elementwise(x: Tensor, t: Tensor) -> Tensor:
        r = x - t
        return r * r  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        dx = x - t  # (2), without its factor
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = torch.full_like(x, 2)  # (3)
        return (h, -h), (-h, h)


@arguments.functional
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Squared error of each element; see :func:`torch.nn.functional.mse_loss`.

    Args:
        input: Floating point tensor of any shape.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' (weighted if there is a weight) or 'sum'.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype. Under autocast it is float32;
        with a weight, as in torch, only on CUDA.

    Raises:
        ValueError: ``reduction`` is unknown, or ``weight`` does not have the input's shape.
        RuntimeError: the shapes do not broadcast.
        NotImplementedError: the promoted dtype is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import mse_loss
        >>> input, target = torch.tensor([0.5, 2.0, -1.0], requires_grad=True), torch.tensor([1.0, 2.0, 1.0])
        >>> loss = mse_loss(input, target, reduction="sum")
        >>> loss.backward()
        >>> loss.item(), input.grad
        (4.25, tensor([-1.,  0., -4.]))
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    weight = arguments.weight_of(weight, input, target)
    # With a weight, torch computes the loss from separate ops. On CUDA, autocast runs sum and pow in float32.
    autocasts = weight is None or input.is_cuda
    x, t, w = arguments.together(input, target, weight, warns=True, autocasts=autocasts)
    arguments.refuse_complex("mse_loss", x)
    if w is not None and not x.is_floating_point():  # torch accepts integers only with a weight
        return reduced((x - t).square(), reduction, w)
    arguments.require_floating("mse_loss", x)
    if w is not None and reduction == "mean":
        return weighted_mean(MSELossFunction, x, t, w)
    return evaluate(MSELossFunction, x, t, w, reduction)


class MSELoss(torch.nn.MSELoss):
    """:func:`mse_loss` as a module, interchangeable with :class:`torch.nn.MSELoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction)
