r"""Binary cross entropy of logits.

**Where it comes from.** In logistic regression (Cox [1]), a logit :math:`x` is the logarithm of the odds and represents
the probability :math:`\sigma(x)`, with :math:`1 - \sigma(x) = \sigma(-x)`. The negative log-likelihood of a target
:math:`t \in [0, 1]`, with the positive class weighted by :math:`a` (``pos_weight``, 1 by default), is

.. math::
    e(x, t) = -a\,t \log \sigma(x) - (1 - t) \log \sigma(-x), \qquad \sigma(x) = \frac{1}{1 + e^{-x}} \tag{1}

**Definition.** In terms of the softplus :math:`s`,

.. math::
    e(x, t) = a\,t\, s(-x) + (1 - t)\, s(x), \qquad s(x) = \log(1 + e^x) = -\log \sigma(-x) \tag{2}

**Stable form.** As written, in float32 :math:`e^x` overflows from :math:`x = 89` on, and :math:`\log(1 + e^{-x})`
rounds to 0 from 17 on. But only one of the two exponentials is large, and it can be taken out of the logarithm
(Mächler [2] discusses where each form is accurate):

.. math::
    s(x) = \max(x, 0) + \log(1 + u), \qquad s(-x) = \max(-x, 0) + \log(1 + u), \qquad
    u = e^{-|x|} \in (0, 1] \tag{3}

so that no exponential overflows, and the logarithm is ``log1p`` of :math:`u`, which keeps all its digits:

.. math::
    e(x, t) = \begin{cases} (1 - t)\, x & x \ge 0 \\ -a\,t\, x & x < 0 \end{cases}
              \;+\; (1 - t + a t) \log(1 + u) \tag{4}

For a target in :math:`[0, 1]` no term is negative, so nothing cancels.

>>> import torch
>>> from manual_grad.functional import binary_cross_entropy_with_logits
>>> x, t = torch.tensor([-100.0, 20.0]), torch.ones(2)
>>> -x.sigmoid().log()  # underflow, and a rounding
tensor([inf, -0.])
>>> binary_cross_entropy_with_logits(x, t, reduction="none")
tensor([1.0000e+02, 2.0612e-09])

**Gradient.** The slope of the softplus is the sigmoid, so (2) gives

.. math::
    s'(x) = \sigma(x), \qquad
    \frac{\partial e}{\partial x} = (1 - t)\,\sigma(x) - a\,t\,\sigma(-x), \qquad
    \frac{\partial e}{\partial t} = a\, s(-x) - s(x), \qquad
    \frac{\partial e}{\partial a} = t\, s(-x) \tag{5}

For :math:`a = 1` the first is the textbook :math:`\sigma(x) - t`. For a confident logit of the correct class, that is
1 - 1 = 0 in floating point, while :math:`-t\,\sigma(-x)` keeps the small gradient if computed by

.. math::
    \sigma(|x|) = \frac{1}{1 + u}, \qquad \sigma(-|x|) = \frac{u}{1 + u} \tag{6}

The gradient of the target follows from (3) without a difference of large numbers:

.. math::
    \frac{\partial e}{\partial t} = (a - 1) \log(1 + u) - \begin{cases} x & x \ge 0 \\ a\, x & x < 0 \end{cases} \tag{7}

**Second derivatives.** The slope of the sigmoid is the variance of a Bernoulli variable, so (5) gives

.. math::
    \sigma'(x) = \sigma(x)\,\sigma(-x), \qquad
    \frac{\partial^2 e}{\partial x^2} = (1 - t + a t)\,\sigma(x)\,\sigma(-x), \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = -\sigma(x) - a\,\sigma(-x), \qquad
    \frac{\partial^2 e}{\partial x\, \partial a} = -t\,\sigma(-x), \qquad
    \frac{\partial^2 e}{\partial t\, \partial a} = s(-x) \tag{8}

and the others vanish. There are no kinks.

**One logit or two.** A softmax over the scores :math:`x` and 0 is the sigmoid, so the loss equals
:mod:`~manual_grad.losses.rowwise.cross_entropy` over two classes. With probabilities instead of logits it is
:mod:`~manual_grad.losses.pointwise.binary_cross_entropy`:

>>> from manual_grad.functional import binary_cross_entropy, cross_entropy
>>> x, t = torch.tensor([-1.5, 0.25, 3.0]).double(), torch.tensor([1.0, 0.0, 0.75]).double()
>>> one = binary_cross_entropy_with_logits(x, t)
>>> two = cross_entropy(torch.stack([x, 0 * x], 1), torch.stack([t, 1 - t], 1))
>>> softplus = (t * torch.nn.functional.softplus(-x) + (1 - t) * torch.nn.functional.softplus(x)).mean()
>>> torch.stack([one - two, one - softplus, one - binary_cross_entropy(x.sigmoid(), t)]).abs().max() < 1e-15
tensor(True)

**Shapes and domain.** Input and target have the same shape. Logits may be any number; at infinite ones all results are
the limits (:math:`0 \cdot \infty` is 0). Targets should lie in :math:`[0, 1]`; others are accepted, but digits may
cancel. A weight multiplies :math:`e`; it and ``pos_weight`` broadcast.

Sources:

1. David R. Cox, "The Regression Analysis of Binary Sequences", J. Royal Statistical Society B 20 (1958) 215-242.
2. Martin Mächler, "Accurately Computing ``log(1 - exp(-|a|))``" (2012), the note of the R package Rmpfr.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class BCEWithLogitsLossFunction(PointwiseLoss):
    """``apply(input, target, pos_weight, weight, reduction)``."""

    kernel = "binary_cross_entropy_with_logits"
    by_hand = True

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, a: Tensor | None) -> Tensor:
        log1p_u = torch.exp(-x.abs()).log1p()  # (3)
        if a is None:
            return _times(torch.where(x < 0, -t, 1 - t), x) + log1p_u  # (4)
        at = a * t
        return _times(torch.where(x < 0, -at, 1 - t), x) + (1 - t + at) * log1p_u  # (4)

    @staticmethod
    def first(x: Tensor, t: Tensor, a: Tensor | None) -> tuple[Tensor, ...]:
        at = t if a is None else a * t
        dx = (1 - t) * _sigmoid(x) - at * _sigmoid(-x)  # (5)
        log1p_u = torch.exp(-x.abs()).log1p()
        dt = -x if a is None else (a - 1) * log1p_u - _times(torch.where(x < 0, a, 1), x)  # (7)
        return dx, dt, _times(t, x.neg().clamp_min(0) + log1p_u)  # (5), by (3)

    @staticmethod
    def second(x: Tensor, t: Tensor, a: Tensor | None) -> tuple[tuple[Tensor | int, ...], ...]:
        at, a_or_1 = (t, 1) if a is None else (a * t, a)
        up, down = torch.sigmoid(x), torch.sigmoid(-x)
        xx, xt, xa, ta = (1 - t + at) * up * down, -up - a_or_1 * down, -t * down, -torch.nn.functional.logsigmoid(x)
        return (xx, xt, xa), (xt, 0, ta), (xa, ta, 0)  # (8)


def _times(c: Tensor, x: Tensor) -> Tensor:
    """c x, but 0 where c is 0, even if x is infinite."""
    return torch.where(c == 0, 0, c * x)


def _sigmoid(x: Tensor) -> Tensor:
    u = torch.exp(-x.abs())
    return torch.where(x < 0, u, torch.ones_like(u)) / (1 + u)  # (6)


@arguments.functional
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of logits; see :func:`torch.nn.functional.binary_cross_entropy_with_logits`.

    Args:
        input: Logits (any real numbers, not probabilities), a floating point tensor of any shape.
        target: Probabilities of the positive class, of the same shape. Values outside [0, 1] are accepted.
        weight: Optional factor of each element's loss; broadcast to the input's shape.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' (over the number of elements, even with weights) or 'sum'.
        pos_weight: Optional factor of the positive class's term; broadcast to the input's shape.

    Returns:
        A scalar, or for 'none' a tensor of the input's shape, in the promoted dtype (float32 under autocast).
        All four tensors may require a gradient (torch: input and target only).

    Raises:
        ValueError: ``reduction`` is unknown, or ``target`` does not have the input's shape.
        RuntimeError: ``target`` is not floating point; ``weight`` or ``pos_weight`` does not broadcast to the input's
            shape.
        NotImplementedError: the promoted dtype is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import binary_cross_entropy_with_logits
        >>> input, target = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True), torch.tensor([0.0, 1.0, 1.0])
        >>> loss = binary_cross_entropy_with_logits(input, target, pos_weight=torch.tensor(2.0), reduction="sum")
        >>> loss.backward()
        >>> f"{loss.item():.4f}", input.grad
        ('1.6104', tensor([ 0.1192, -1.0000, -0.0949]))
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if target.shape != input.shape:
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    arguments.refuse_complex("binary_cross_entropy_with_logits", target, weight, pos_weight)
    if not target.is_floating_point():
        raise RuntimeError(
            f"target: expected a floating point dtype but found {target.dtype}; "
            "for labels 0 and 1, pass target.to(input.dtype)"
        )
    arguments.require_floating("binary_cross_entropy_with_logits", input)
    arguments.broadcasts_into("weight", weight, input)
    arguments.broadcasts_into("pos_weight", pos_weight, input)
    x, t, a, w = arguments.together(input, target, pos_weight, weight, arithmetic=True)
    return evaluate(BCEWithLogitsLossFunction, x, t, a, w, reduction)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """:func:`binary_cross_entropy_with_logits` as a module, interchangeable with torch's."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
