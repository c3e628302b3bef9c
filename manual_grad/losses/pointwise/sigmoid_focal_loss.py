r"""Sigmoid focal loss.

**Where it comes from.** A detector sees a thousand easy background boxes for every object, and their small losses add
up to more than that of the object. Lin et al. [1] weight the binary cross entropy of every element by how wrong the
prediction is, so that well-classified elements contribute almost nothing.

**Definition.** A logit :math:`x` represents the probability :math:`\sigma(x)`, with
:math:`1 - \sigma(x) = \sigma(-x)`. For a target :math:`t \in [0, 1]`, :math:`q` is the probability of being wrong
(:math:`1 - p_t` in [1]) and :math:`c` the cross entropy:

.. math::
    q = (1 - t)\, \sigma(x) + t\, \sigma(-x), \qquad c = (1 - t)\, s(x) + t\, s(-x), \qquad
    \sigma(x) = \frac{1}{1 + e^{-x}}, \qquad s(x) = \log(1 + e^x) \tag{1}

.. math::
    e(x, t) = k\, q^\gamma\, c, \qquad k = \alpha\, t + (1 - \alpha)\, (1 - t) \quad\text{or}\quad k = 1 \tag{2}

:math:`\gamma` determines how strongly well-classified elements are down-weighted; 0 gives the cross entropy.
:math:`\alpha` balances the classes; a negative value, such as torchvision's -1, disables this (the second case). For
targets between 0 and 1 these are also torchvision's formulas.

**Gradient.** The derivatives of the factors are

.. math::
    r = (1 - 2 t)\, v = \frac{\partial q}{\partial x}, \qquad
    w = \sigma(-x) - \sigma(x) = \frac{\partial q}{\partial t}, \qquad
    z = \sigma(x) - t = \frac{\partial c}{\partial x}, \qquad
    -x = \frac{\partial c}{\partial t}, \qquad
    \kappa = 2 \alpha - 1 = \frac{\partial k}{\partial t} \quad\text{or}\quad
    \kappa = 0 = \frac{\partial k}{\partial t}, \qquad
    v = \sigma(x)\, \sigma(-x) \tag{3}

and so

.. math::
    \frac{\partial e}{\partial x} = k\, q^\gamma \Big( \gamma\, \frac cq\, r + z \Big), \qquad
    \frac{\partial e}{\partial t} = \kappa\, q^\gamma c + k\, q^\gamma \Big( \gamma\, \frac cq\, w - x \Big) \tag{4}

The quotient :math:`c / q` tends to 1 where the prediction is certainly correct and both are 0. Written with this
quotient the gradient is finite there, whereas :math:`q^{\gamma - 1}` would be infinite for :math:`\gamma < 1`.

**Stable form.** For a confident prediction, :math:`1 - p_t` loses all digits. Instead, let :math:`b` be the share of
the target in the class that the logit predicts, and :math:`a` that in the other class:

.. math::
    q = \frac{a + b u}{1 + u}, \qquad c = a\, m + \log(1 + u), \qquad m = |x|, \qquad u = e^{-m} \in (0, 1], \qquad
    a = \begin{cases} 1 - t & x \ge 0 \\ t & x < 0 \end{cases}, \qquad b = 1 - a \tag{5}

No term is negative, so nothing cancels, and nothing overflows. With the sign :math:`d` of the logit,

.. math::
    z = d\, \frac{a - b u}{1 + u}, \qquad
    r = d\, \frac{(a - b)\, u}{(1 + u)^2}, \qquad
    w = -d\, \frac{1 - u}{1 + u}, \qquad
    d = \begin{cases} 1 & x \ge 0 \\ -1 & x < 0 \end{cases} \tag{6}

For a hard label, the terms of the slope in :math:`x` have the same sign, whether the prediction is right,
:math:`a = 0`, or wrong, :math:`b = 0`. For soft targets the slope passes through 0, and its terms can cancel. In

.. math::
    a - b u = (a - b) + b\, (1 - u) \tag{7}

the right side is accurate near :math:`x = 0`, where :math:`u` is near 1 and ``expm1`` has the digits of :math:`1 - u`;
the left side is accurate farther out. The slope in :math:`t` has a factor :math:`q^\gamma` that no other factor makes
small. With :math:`\gamma < 1` and a hard label it is a normal number long after :math:`q` has underflowed; there it is
computed as :math:`e^{-\gamma m}`.

>>> import torch
>>> from manual_grad.functional import sigmoid_focal_loss
>>> x = torch.tensor([15.0, 30.0], requires_grad=True)
>>> p = x.sigmoid()
>>> torch.autograd.grad((-p.log() * (1 - p) ** 0.5).sum(), x)[0]  # a quarter too much, and nothing at all
tensor([-3.2080e-10,         nan])
>>> torch.autograd.grad(sigmoid_focal_loss(x, torch.ones(2), -1, 0.5, "sum"), x)[0]
tensor([-2.5378e-10, -4.2938e-20])

**Second derivatives.** Apply the product rule again, with :math:`\partial r / \partial x = r w`,
:math:`\partial w / \partial x = -2 v` and :math:`\partial w / \partial t = 0`:

.. math::
    \frac{\partial^2 e}{\partial x^2} = k\, q^\gamma \Big( \frac{\gamma\, r}{q}
        \Big( (\gamma - 1)\, \frac cq\, r + c\, w + 2 z \Big) + v \Big) \tag{8}

.. math::
    \frac{\partial^2 e}{\partial x\, \partial t} = \kappa\, q^\gamma \Big( \gamma\, \frac cq\, r + z \Big)
        + k\, q^\gamma \Big( \frac\gamma q
        \Big( (\gamma - 1)\, \frac cq\, r w - 2 c\, v - r x + w z \Big) - 1 \Big) \tag{9}

.. math::
    \frac{\partial^2 e}{\partial t^2} = 2 \kappa\, q^\gamma \Big( \gamma\, \frac cq\, w - x \Big)
        + \gamma\, k\, q^{\gamma - 1} w \Big( (\gamma - 1)\, \frac cq\, w - 2 x \Big) \tag{10}

There are no kinks.

**Shapes and domain.** Input and target have the same shape. Logits may be any number; at infinite ones value and
gradient are the limits. Targets lie in :math:`[0, 1]`, :math:`\alpha \le 1`, :math:`\gamma \ge 0`. A weight multiplies
:math:`e` and broadcasts. For :math:`\gamma < 1` the last derivative is unbounded towards a hard label that is right.

Sources:

1. Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He and Piotr Dollár, "Focal Loss for Dense Object Detection",
   ICCV (2017), `arXiv:1708.02002 <https://arxiv.org/abs/1708.02002>`_.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import power, size, times
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class SigmoidFocalLossFunction(PointwiseLoss):
    """``apply(inputs, targets, weight, positive, negative, gamma, rate, degree, reduction)``.

    ``positive`` and ``negative`` are the class weights, 1 without balancing; ``rate`` and ``degree`` come from
    :func:`_parted`.
    """

    kernel = "sigmoid_focal_loss"
    special: ClassVar = {"gamma": (0.0, 1.0, 2.0)}

    @staticmethod
    def elementwise(
        x: Tensor, t: Tensor, positive: float, negative: float, gamma: float, rate: float, degree: float
    ) -> Tensor:
        m, u, a, b, _ = _sides(x, t)
        c = times(a, m) + u.log1p()  # (5)
        f = _focus((a + b * u) / (1 + u), m, a, gamma, rate, degree)
        return _balance(t, positive, negative) * times(f, c)  # (2)

    @staticmethod
    def first(
        x: Tensor, t: Tensor, positive: float, negative: float, gamma: float, rate: float, degree: float
    ) -> tuple[Tensor, Tensor]:
        m, u, a, b, a_b = _sides(x, t)
        n, one, log1p_u = a + b * u, 1 + u, u.log1p()
        k = _balance(t, positive, negative)
        f = _focus(n / one, m, a, gamma, rate, degree)
        # the two terms of c / q: that with factor m, divided by m, and the rest
        by_m, rest = a * one / _divisor(n), _or_1(n, log1p_u * one / _divisor(n))

        c_over_q_u = times(u, times(by_m, m)) + rest * u
        dm = k * f * (gamma * a_b * c_over_q_u / one + _difference(m, u, a, b, a_b)) / one  # (4) (6)

        tilt = torch.where(x < 0, -k, k)
        turn = gamma * tilt * -(-m).expm1() / one
        bend = positive - negative
        dt = times(bend * a - turn * by_m - tilt, m) + (bend * log1p_u - turn * rest)  # (4) (6)
        return torch.where(x < 0, -dm, dm), times(f, dt)

    @staticmethod
    def second(
        x: Tensor, t: Tensor, positive: float, negative: float, gamma: float, rate: float, degree: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        m, u, a, b, a_b = _sides(x, t)
        n, one = a + b * u, 1 + u
        q, v, turn = n / one, u / (one * one), -(-m).expm1() / one
        c = times(a, m) + u.log1p()
        f, k = _focus(q, m, a, gamma, rate, degree), _balance(t, positive, negative)
        c_over_q = times(a, m) * one / _divisor(n) + _or_1(n, u.log1p() * one / _divisor(n))

        # derivatives in m and a, which equal x and t up to sign and a constant, without the factor f: (6) without d
        v_over_q = _or_1(n, u / _divisor(n)) / one
        q_m = a_b * v_over_q  # the slope of q, divided by q
        difference = _difference(m, u, a, b, a_b)
        c_m, c_m_over_q = difference / one, torch.where(n == 0, -1, difference / _divisor(n))
        first_m = gamma * times(q_m, c) + c_m
        first_a = times(gamma * turn, c_over_q) + m
        mm = gamma * ((gamma - 1) * q_m - turn) * times(q_m, c) + 2 * gamma * q_m * c_m + v  # (8)
        ma = (
            gamma * (gamma - 1) * turn * times(q_m, c_over_q)
            + gamma * (2 * times(v_over_q, c) + turn * c_m_over_q)
            + times(gamma * q_m, m)
            + 1
        )  # (9)
        bend = torch.full_like(x, positive - negative)
        bend = torch.where(x < 0, bend, -bend)
        xx, at = k * times(f, mm), times(f, bend * first_m + k * ma)
        tt = times(2 * bend * f, first_a)
        if gamma != 0:
            tt = tt + times(
                k * gamma * _focus(q, m, a, gamma - 1, *_parted(gamma - 1)),
                turn * ((gamma - 1) * turn * c_over_q + 2 * m),
            )  # (10)
        return (xx, -at), (-at, tt)


def _sides(x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """m, u, a and b of (5), and a - b, computed from 1 - 2 t, which is exact where it is small."""
    m = size(x)
    left, skew = x < 0, 1 - 2 * t
    return m, (-m).exp(), torch.where(left, t, 1 - t), torch.where(left, 1 - t, t), torch.where(left, -skew, skew)


def _balance(t: Tensor, positive: float, negative: float) -> Tensor:
    """k of (2)."""
    return positive * t + negative * (1 - t)


def _difference(m: Tensor, u: Tensor, a: Tensor, b: Tensor, a_b: Tensor) -> Tensor:
    """a - b u, by the accurate side of (7)."""
    return torch.where(u > 0.5, a_b - b * (-m).expm1(), a - b * u)


def _focus(q: Tensor, m: Tensor, a: Tensor, gamma: float, rate: float, degree: float) -> Tensor:
    """q to the power gamma, without underflow for hard labels."""
    if gamma == 0 or gamma == 1 or gamma == 2:
        return power(q, gamma)
    far = (m > 80) & (m < torch.inf) & (a == 0)
    return torch.where(far, (-(rate * m)).exp().pow(degree), torch.where(far, 1, q).pow(gamma))


def _parted(gamma: float) -> tuple[float, float]:
    """Factor gamma into a power of two, so that rate * m is exact in e^(-rate m), and a number in [1, 2)."""
    fraction, exponent = math.frexp(gamma)
    return 2.0 ** (exponent - 1), 2 * fraction


def _divisor(n: Tensor) -> Tensor:
    """n, or 1 where it is 0: where the prediction is right and u has underflowed."""
    return torch.where(n == 0, 1, n)


def _or_1(n: Tensor, quotient: Tensor) -> Tensor:
    """A quotient by n that tends to 1 as n vanishes; 1 where n is 0."""
    return torch.where(n == 0, 1, quotient)


@arguments.functional
def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
    weight: Tensor | None = None,
) -> Tensor:
    """Focal loss of each logit, with the signature of torchvision's.

    Args:
        inputs: Logits (any real numbers, not probabilities), a floating point tensor of any shape.
        targets: Probabilities of the positive class in [0, 1], of the same shape; labels 0 and 1 may be integers.
        alpha: Weight of the positive class, at most 1; that of the negative class is 1 - alpha. A negative number, such
            as -1, disables the weights.
        gamma: How strongly well-classified elements are down-weighted; not negative.
        reduction: 'none', 'mean' (over the number of elements, even with a weight) or 'sum'.
        weight: Optional factor of each element's loss; broadcast to the shape of the inputs.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the inputs, in the promoted dtype (float32 under autocast).
        All three tensors may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown, ``alpha`` or ``gamma`` lies outside its domain, or ``targets`` does not
            have the shape of the inputs.
        RuntimeError: ``weight`` does not broadcast to the shape of the inputs.
        TypeError: ``alpha`` or ``gamma`` is not a number.
        NotImplementedError: the inputs are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import sigmoid_focal_loss
        >>> logits, labels = torch.tensor([-4.0, 0.0, 4.0]), torch.tensor([0, 1, 0])
        >>> sigmoid_focal_loss(logits, labels)
        tensor([4.4037e-06, 4.3322e-02, 2.9062e+00])
        >>> sigmoid_focal_loss(logits, labels, alpha=-1, gamma=0, reduction="mean")
        tensor(1.5765)
    """
    reduction = arguments.reduction_of(reduction)
    alpha, gamma = _alpha(alpha), _gamma(gamma)
    if targets.shape != inputs.shape:
        raise ValueError(f"Target size ({targets.size()}) must be the same as input size ({inputs.size()})")
    arguments.require_floating("sigmoid_focal_loss", inputs)
    arguments.broadcasts_into("weight", weight, inputs)
    x, t, w = arguments.together(inputs, targets, weight)
    arguments.require_floating("sigmoid_focal_loss", x)
    balance = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)
    return evaluate(SigmoidFocalLossFunction, x, t, w, *balance, gamma, *_parted(gamma), reduction)


def _alpha(value: float) -> float:
    alpha = arguments.real("sigmoid_focal_loss", "alpha", value)
    if not alpha <= 1:
        raise ValueError(f"sigmoid_focal_loss(): argument 'alpha' must be at most 1, but got {alpha}")
    return alpha


def _gamma(value: float) -> float:
    gamma = arguments.real("sigmoid_focal_loss", "gamma", value)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"sigmoid_focal_loss(): argument 'gamma' must be finite and not negative, but got {gamma}")
    return gamma


class SigmoidFocalLoss(torch.nn.Module):
    """:func:`sigmoid_focal_loss` as a module."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2, reduction: str = "none") -> None:
        super().__init__()
        self.alpha, self.gamma, self.reduction = _alpha(alpha), _gamma(gamma), reduction

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return sigmoid_focal_loss(inputs, targets, self.alpha, self.gamma, self.reduction)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, reduction={self.reduction!r}"
