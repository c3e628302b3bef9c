r"""Gaussian negative log-likelihood.

**Where it comes from.** A network predicts a mean :math:`x` and, since not all targets are equally certain, a variance
:math:`a` (Nix and Weigend [1]). The target is a sample from that normal distribution.

**Definition.** The variance is clamped to at least :math:`\epsilon`. With the residual :math:`r`, and with
:math:`f = 1` if ``full`` and :math:`f = 0` otherwise (which omits the constant), the negative log-likelihood is

.. math::
    e(x, t, a) = \tfrac12 \Big( \log v + \frac{r^2}{v} \Big) + \frac f2 \log 2\pi, \qquad
    r = x - t, \qquad v = \max(a, \epsilon) \tag{1}

**Gradient.** The slope in the mean is the residual divided by the variance; that in the variance is 0 where the
variance equals the squared residual:

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial t} = \frac{r}{v}, \qquad
    \frac{\partial e}{\partial a} = \frac12 \Big( \frac1v - \frac{r^2}{v^2} \Big) = \frac{v - r^2}{2 v^2} \tag{2}

**Stable form.** Where the variance is right, :math:`r^2 = v`, the last form is exactly 0; the difference of the
quotients is not. Near it, the digits of :math:`r^2` count, which is formed in the wider dtype.

**Second derivatives.** Differentiating the quotients of (2) again:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = \frac1v, \qquad
    \frac{\partial^2 e}{\partial x\, \partial a} = -\frac{\partial^2 e}{\partial t\, \partial a} = -\frac{r}{v^2},
    \qquad \frac{\partial^2 e}{\partial a^2} = \frac{2 r^2 - v}{2 v^3} \tag{3}

The last is negative for small residuals, :math:`r^2 < v / 2`, so the loss is not jointly convex in mean and variance.

**Kinks.** Strictly, :math:`\partial v / \partial a` is 0 for :math:`a < \epsilon`, and a variance that gets there would
stay there. It is taken as 1 everywhere in (2) and (3), so that the gradient passes through the clamp, as in torch.

**Shapes and domain.** Input and target broadcast. The variance has the input's shape, or that with a last dimension of
size 1 or without it, or is one number; a negative one is an error. In the limit :math:`a \to \infty` all of (2) and (3)
is 0.

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
    paired = True
    refusal = ValueError
    messages = ("var has negative entry/entries; a variance must not be negative",)

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
        # 0 at an infinite variance (NaN if the residual is infinite too), where the quotient would be inf / inf
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
    """v of (1); NaN for a negative variance, which cannot be rejected on a device without synchronizing."""
    return torch.where(a < 0, torch.nan, a.clamp_min(eps))


def _over_v(n: Tensor, r: Tensor, v: Tensor) -> Tensor:
    """n / v, or 0 at an infinite variance (NaN if the residual is infinite too), where n would be inf / inf."""
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
        target: The samples, of the same shape or one that broadcasts with it, or a single number.
        var: The predicted variances, not negative: a tensor of the input's shape, the same without the last dimension,
            or with one dimension of size 1; or a single number.
        full: Whether to add the constant log(2 pi) / 2.
        eps: Variances are clamped to at least this value. The gradient of ``var`` passes through the clamp unchanged.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype. As in torch, it is float32 under
        autocast on CUDA; autocast on the CPU has no effect.

    Raises:
        ValueError: ``reduction`` is unknown; ``var`` has another shape, or an entry is negative. Entries are checked
            only on the CPU, where that needs no synchronization. Elsewhere, and under torch.func.vmap, a negative entry
            makes its loss NaN.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``var`` is neither a tensor nor a float, ``eps`` not a number, ``reduction`` not a string.
        NotImplementedError: the promoted dtype is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import gaussian_nll_loss
        >>> mean, target = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 1.0])
        >>> gaussian_nll_loss(mean, target, var=torch.tensor([1.0, 1.0, 4.0]), reduction="none")
        tensor([0.5000, 0.0000, 0.8181])
        >>> gaussian_nll_loss(mean, target, var=1.0, full=True)
        tensor(1.2523)
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
    if not a.numel() and var.numel() and arguments.readable(var) and (var < 0).any():  # no kernel sees them
        raise ValueError(GaussianNLLLossFunction.messages[0])
    return evaluate(GaussianNLLLossFunction, x, t, a, None, bool(full), eps, reduction)


class GaussianNLLLoss(torch.nn.GaussianNLLLoss):
    """:func:`gaussian_nll_loss` as a module, interchangeable with :class:`torch.nn.GaussianNLLLoss`."""

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)
