r"""Multi-class margin loss (hinge loss of Weston and Watkins).

**Where it comes from.** In the multi-class support vector machine of Weston and Watkins [1], the score of the correct
class :math:`y` should exceed that of every other class by a margin :math:`m`. With respect to class :math:`j` it falls
short by

.. math::
    h_j = (x_j - x_y) + m \tag{1}

**Definition.** The loss sums the shortfalls (:math:`p = 1`) or their squares (:math:`p = 2`) over the other classes and
divides by the number of classes, :math:`C`:

.. math::
    \ell = \frac{w_y}{C} \sum_{j \ne y} \max(0, h_j)^p \tag{2}

**Gradient.** Score :math:`x_j` enters only through :math:`h_j`, and :math:`x_y` through all of them with the opposite
sign. So the correct class is pushed up as much as the others together are pushed down.

.. math::
    \frac{\partial \ell}{\partial x_j} = \frac{w_y}{C}\, s_j \quad\text{for } j \ne y, \qquad
    \frac{\partial \ell}{\partial x_y} = -\frac{w_y}{C} \sum_{j \ne y} s_j, \qquad
    s_j = \begin{cases} p\, h_j^{p-1} & h_j > 0 \\ 0 & h_j \le 0 \end{cases} \tag{3}

**Second derivative.** With :math:`u_j` the derivative of (1) along a direction :math:`v`,

.. math::
    (H v)_{x_j} = \frac{w_y}{C}\, a_j u_j \quad\text{for } j \ne y, \qquad
    (H v)_{x_y} = -\frac{w_y}{C} \sum_{j \ne y} a_j u_j, \qquad u_j = v_j - v_y, \qquad
    a_j = \begin{cases} p (p - 1) & h_j > 0 \\ 0 & h_j \le 0 \end{cases} \tag{4}

which vanishes for :math:`p = 1`.

**Kinks.** At :math:`h_j = 0` the slope jumps for :math:`p = 1` and the curvature for :math:`p = 2`. The inactive side
is chosen, as in torch.

**Stable form.** In (1) the two scores, which may cancel, are subtracted first, since the floating-point difference of
nearby numbers is exact.

**Shapes and domain.** Scores are :math:`(N, C)` or :math:`(C)`, class indices are in :math:`[0, C)`, and the margin is
any real number. 'mean' divides by the number of rows, even with weights. Unlike in torch, NaN is propagated (torch's
comparison is false for it, so a diverged row contributes nothing and goes unnoticed), the sum over an empty batch is 0
(torch on the CPU returns uninitialized memory), and there are second derivatives and forward mode.

Sources:

1. Jason Weston and Chris Watkins, "Support Vector Machines for Multi-Class Pattern Recognition", ESANN (1999) 219-224.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, rowwise
from manual_grad.engine.function import Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss


class MultiMarginLossFunction(RowwiseLoss):
    """``apply(input, target, weight, p, margin, reduction)``: input (…, C), target (…), weight (C) or None."""

    tensors = 3
    kernel = "class_margin"

    @staticmethod
    def value(X: Tensors, p: int, margin: float) -> Tensor:
        excess = _excess(X, margin)
        return _weighted(_share(X), (excess if p == 1 else excess * excess).sum(-1))  # (2)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, p: int, margin: float) -> Tensors:
        excess = _excess(X, margin)
        slope = rowwise.step(excess) if p == 1 else 2 * excess
        return _against_target(_weighted((g * _share(X)).unsqueeze(-1), slope), X[1]), None, None  # (3)

    @staticmethod
    def curvature(g: Tensor, X: Tensors, v: Tensors, p: int, margin: float) -> Tensors:
        if p == 1 or v[0] is None:
            return None, None, None
        y = X[1].unsqueeze(-1)
        u = v[0] - v[0].gather(-1, y)
        bent = 2 * rowwise.step(_excess(X, margin)) * u
        return _against_target((g * _share(X)).unsqueeze(-1) * bent, X[1]), None, None  # (4)


def _excess(X: Tensors, margin: float) -> Tensor:
    """max(0, h) of (1), and 0 for the target itself."""
    x, y, _ = X
    label = rowwise.label_outside(y, x.shape[-1])
    if label is not None:
        raise RuntimeError(f"multi_margin_loss: target out of range: got {label}, expected [0, {x.shape[-1] - 1}].")
    y = y.unsqueeze(-1)
    return ((x - x.gather(-1, y)) + margin).clamp_min(0).scatter(-1, y, 0)


def _share(X: Tensors) -> Tensor | float:
    """The factor w_y / C of a row."""
    x, y, w = X
    return 1 / x.shape[-1] if w is None else rowwise.each_of(w, y) / x.shape[-1]


def _weighted(share: Tensor | float, cost: Tensor) -> Tensor:
    """share * cost, but a cost of 0 stays 0 even if the weight is infinite."""
    return torch.where(cost == 0, 0, share * cost)


def _against_target(d: Tensor, y: Tensor) -> Tensor:
    """Insert the derivative of the target, minus the sum of those of the other classes."""
    return d.scatter(-1, y.unsqueeze(-1), -d.sum(-1, keepdim=True))


@arguments.functional
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Multi-class margin loss; see :func:`torch.nn.functional.multi_margin_loss`.

    Args:
        input: Scores, floating point, of shape (C) or (N, C), C at least 1.
        target: Classes in [0, C), int64, of shape (N); for a single row also ().
        p: 1 or 2, the power of the shortfall.
        margin: How far the target's score should exceed the others.
        weight: Optional weight of each class, of shape (C).
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of rows, even with a weight.

    Returns:
        A scalar, or for 'none' a tensor of the target's shape, in the input's dtype (float32 under autocast). ``input``
        may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown; ``p`` is neither 1 nor 2; ``weight`` is not one-dimensional.
        RuntimeError: a target is outside [0, C) (checked on the CPU); shapes or dtypes that do not fit; a ``weight``
            that requires a gradient.
        TypeError: ``margin`` is not a number.
        NotImplementedError: the input is not real floating point.
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if p != 1 and p != 2:
        raise ValueError(f"only p == 1 and p == 2 supported, got p={p}")
    if weight is not None and weight.dim() != 1:
        raise ValueError(f"weight must be one-dimensional, got shape {list(weight.shape)}")
    margin = arguments.real("multi_margin_loss", "margin", margin)
    rows, classes = rowwise.matrix_size(input)
    if target.shape != (rows,) and not (rows == 1 and target.dim() == 0):
        raise RuntimeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples "
            f"(batch size). Expected target size [{rows}], but got {list(target.shape)}. "
            f"Input has shape {list(input.shape)}."
        )
    if weight is not None and len(weight) != classes:
        raise RuntimeError(f"inconsistent weight size, expected {classes} but got {list(weight.shape)}")
    rowwise.check_long(target)
    arguments.require_floating("multi_margin_loss", input)
    x, w = arguments.autocast(input, weight)
    if w is not None:
        w = rowwise.constant_weight("multi_margin_loss", x, w)
    if x.dim() != target.dim() + 1:
        x = x.reshape(*target.shape, classes)
    return evaluate(MultiMarginLossFunction, x, target, w, int(p), margin, reduction)


class MultiMarginLoss(torch.nn.MultiMarginLoss):
    """:func:`multi_margin_loss` as a module, interchangeable with :class:`torch.nn.MultiMarginLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multi_margin_loss(
            input, target, p=self.p, margin=self.margin, weight=self.weight, reduction=self.reduction
        )
