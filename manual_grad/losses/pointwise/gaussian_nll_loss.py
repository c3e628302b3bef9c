r"""Gaussian negative log-likelihood.

**Where it comes from.** A network predicts a mean :math:`x` and, since not all targets are equally certain, a variance
:math:`a` (Nix and Weigend [1]); the target is a sample of that normal distribution.

**Definition.** With the residual :math:`r` and a variance kept from 0 by :math:`\epsilon`, the negative log-likelihood
is, with :math:`f = 1` if ``full`` and the constant left out, :math:`f = 0`, if not,

.. math::
    e(x, t, a) = \tfrac12 \Big( \log v + \frac{r^2}{v} \Big) + \frac f2 \log 2\pi, \qquad
    r = x - t, \qquad v = \max(a, \epsilon) \tag{1}

**Gradient.** The mean is drawn to the target by the residual in units of the variance, and the variance to the squared
residual:

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial t} = \frac{r}{v}, \qquad
    \frac{\partial e}{\partial a} = \frac12 \Big( \frac1v - \frac{r^2}{v^2} \Big) = \frac{v - r^2}{2 v^2} \tag{2}

**Stable form.** Where the variance is right, :math:`r^2 = v`, the last form is 0 exactly; the difference of the
quotients is not.

**Second derivatives.** The quotients of (2) once more:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = \frac1v, \qquad
    \frac{\partial^2 e}{\partial x\, \partial a} = -\frac{\partial^2 e}{\partial t\, \partial a} = -\frac{r}{v^2},
    \qquad \frac{\partial^2 e}{\partial a^2} = \frac{2 r^2 - v}{2 v^3} \tag{3}

The last is negative for a residual that the variance can explain: jointly in mean and variance the loss is not convex.

**Kinks.** Strictly :math:`\partial v / \partial a` is 0 for :math:`a < \epsilon`, and a variance that has once come
there would stay. It is taken as 1 everywhere, in (2) and (3), so that the gradient passes the clamp, as in torch.

**Shapes and domain.** Input and target broadcast; the variance has the input's shape, or lacks its last dimension, or
is one number; it is not negative, which is checked. In the limit :math:`a \to \infty` all of (2) and (3) is 0.

Sources:

1. David A. Nix and Andreas S. Weigend, "Estimating the Mean and Variance of the Target Probability Distribution", IEEE
   International Conference on Neural Networks (1994) 55-60,
   `doi:10.1109/ICNN.1994.374138 <https://doi.org/10.1109/ICNN.1994.374138>`_.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class GaussianNLLLossFunction(PointwiseLoss):
    """``apply(input, target, var, None, full, eps, reduction)``."""

    kernel = "gaussian_nll_loss"
    refusal = ValueError
    messages = ("var has negative entry/entries; a variance is 0 or positive",)

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, a: Tensor, full: bool, eps: float) -> Tensor:
        r, v = x - t, _clamped(a, eps)
        e = 0.5 * (v.log() + r * (r * (1 / v)))  # (1)
        return e + 0.5 * math.log(2 * math.pi) if full else e

    @staticmethod
    def first(x: Tensor, t: Tensor, a: Tensor, full: bool, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        r, v = x - t, _clamped(a, eps)
        per_v = 1 / v
        dx = r * per_v
        # of 0 at an infinite variance: inf / inf unless the residual is infinite too
        bent = torch.where(v == torch.inf, 0 * r, (v - r * r) * per_v)
        return dx, -dx, 0.5 * bent * per_v  # (2)

    @staticmethod
    def second(x: Tensor, t: Tensor, a: Tensor, full: bool, eps: float) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        r, v = x - t, _clamped(a, eps)
        xx, xa, aa = 1 / v, -r / v / v, _over_v((r * r - 0.5 * v) / v / v, r, v)
        return (xx, -xx, xa), (-xx, xx, -xa), (xa, -xa, aa)  # (3)

    @staticmethod
    def outside(x: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor]:
        return (a < 0,)


def _clamped(a: Tensor, eps: float) -> Tensor:
    """v of (1); NaN for a negative variance, which nobody can refuse on a device without waiting for it."""
    return torch.where(a < 0, torch.nan, a.clamp_min(eps))


def _over_v(n: Tensor, r: Tensor, v: Tensor) -> Tensor:
    """n / v, for an n that is inf / inf at an infinite variance, where all is 0 unless the residual is infinite."""
    return torch.where(v == torch.inf, 0 * r, n / v)


@arguments.functional
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor | float,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of each target; see :func:`torch.nn.functional.gaussian_nll_loss`.

    Args:
        input: The predicted means, a floating point tensor of any shape.
        target: The samples, of the same shape or one that broadcasts with it; or one number for all.
        var: The predicted variances: of the input's shape, or without its last dimension, or with one dimension of
            size 1; or one number for all. None may be negative.
        full: Whether to add the constant, log(2 pi) / 2.
        eps: Smaller variances count as this. The gradient of ``var`` passes that clamp unchanged.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype. Autocast leaves it as it is on
        the CPU and makes it float32 on CUDA, as in torch.

    Raises:
        ValueError: ``reduction`` is unknown; ``var`` has another shape, or an entry is negative. Only on the CPU can
            entries be looked at without waiting; elsewhere, under torch.func.vmap too, a negative one makes its loss
            NaN.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``var`` is neither a tensor nor a float, ``eps`` not a number, ``reduction`` not a string.
        NotImplementedError: the promoted dtype is not a real floating point one.
    """
    if isinstance(var, float):
        if var < 0:
            raise ValueError(GaussianNLLLossFunction.messages[0])
        var = arguments.as_tensor(var, input).expand(input.shape)
    elif not isinstance(var, Tensor):
        raise TypeError(f"gaussian_nll_loss(): argument 'var' must be Tensor or float, not {type(var).__name__}")
    target = arguments.as_tensor(target, input)
    var = arguments.unreduced("var", var, input)
    reduction = arguments.reduction_of(reduction, refusal="is not valid as a reduction: use 'none', 'mean' or 'sum'")
    eps = arguments.real("gaussian_nll_loss", "eps", eps)
    # torch computes the loss from separate ops. On CUDA, autocast runs two of them, log and pow, in float32.
    x, t, a = arguments.together(input, target, var, autocasts=input.is_cuda, arithmetic=True)
    arguments.require_floating("gaussian_nll_loss", x)
    if not a.numel() and var.numel() and arguments.readable(var) and (var < 0).any():  # no loop comes past them
        raise ValueError(GaussianNLLLossFunction.messages[0])
    return evaluate(GaussianNLLLossFunction, x, t, a, None, bool(full), eps, reduction)


class GaussianNLLLoss(torch.nn.GaussianNLLLoss):
    """:func:`gaussian_nll_loss` as a module, interchangeable with :class:`torch.nn.GaussianNLLLoss`."""

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)
