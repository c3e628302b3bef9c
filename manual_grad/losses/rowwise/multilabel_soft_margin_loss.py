r"""Multilabel soft margin loss.

**Where it comes from.** Each of :math:`C` labels applies or not, independently of the others, so a row of logits
:math:`x` represents :math:`C` separate yes-or-no questions. The literature calls this binary relevance (Tsoumakas and
Katakis [1]). The loss of each label is the binary cross entropy of its logit; see
:mod:`~manual_grad.losses.pointwise.binary_cross_entropy_with_logits` for derivation, stable form and derivatives.

**Definition.** With a weight :math:`w_c` for each label, the loss of a row is the mean over the labels:

.. math::
    \ell(x, t) = \frac1C \sum_c w_c\, e(x_c, t_c), \qquad
    e(x, t) = -t \log \sigma(x) - (1 - t) \log \sigma(-x), \qquad \sigma(x) = \frac{1}{1 + e^{-x}} \tag{1}

**Gradient.** Each term depends on one label only:

.. math::
    \frac{\partial \ell}{\partial x_c} = \frac{w_c}{C}\, \frac{\partial e(x_c, t_c)}{\partial x_c}, \qquad
    \frac{\partial \ell}{\partial t_c} = \frac{w_c}{C}\, \frac{\partial e(x_c, t_c)}{\partial t_c}, \qquad
    \frac{\partial \ell}{\partial w_c} = \frac1C\, e(x_c, t_c) \tag{2}

**Second derivatives** do not couple different labels. In the logits, they are

.. math::
    \frac{\partial^2 \ell}{\partial x_c\, \partial x_j}
    = [c = j]\, \frac{w_c}{C}\, \frac{\partial^2 e(x_c, t_c)}{\partial x_c^2} \tag{3}

and likewise for targets and weights. There are no kinks, and the stable form is that of each term.

**Shapes and domain.** Logits and targets have the same shape, :math:`(N, C)` or :math:`(C)`; targets are in
:math:`[0, 1]`; a weight is :math:`(C)`. 'mean' then averages over the rows.

Sources:

1. Grigorios Tsoumakas and Ioannis Katakis, "Multi-Label Classification: An Overview", International Journal of Data
   Warehousing and Mining 3 (2007) 1-13.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction

from manual_grad import kernels
from manual_grad.engine import arguments
from manual_grad.engine.dtypes import HALF, widen
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss
from manual_grad.losses.pointwise.binary_cross_entropy_with_logits import BCEWithLogitsLossFunction


class MultiLabelSoftMarginLossFunction(RowwiseLoss):
    """``apply(input, target, weight, classes, reduction)``: rows in the last dimension, all tensors of one shape."""

    tensors = 3
    kernel = BCEWithLogitsLossFunction.kernel

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape[:-1]

    @staticmethod
    def contract(terms: Tensor, *options: Any) -> Tensor:
        return terms.sum(-1)

    @staticmethod
    def value(X: Tensors, classes: int) -> Tensor:
        return BCEWithLogitsLossFunction.value(_of_labels(X)).sum(-1) / classes  # (1)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, classes: int) -> Tensors:
        dx, dt, _, dw = BCEWithLogitsLossFunction.gradient((g / classes).unsqueeze(-1), _of_labels(X))  # (2)
        return dx, dt, dw

    @staticmethod
    def curvature(g: Tensor, X: Tensors, v: Tensors, classes: int) -> Tensors:
        share = (g / classes).unsqueeze(-1)
        hx, ht, _, hw = BCEWithLogitsLossFunction.curvature(share, _of_labels(X), _of_labels(v))  # (3)
        return hx, ht, hw

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        (x, t, w), (classes,) = X, options
        op = kernels.op(cls.kernel, *X) if x.numel() else None
        if op is None:
            return None
        reduced = reduction != "none" or x.dim() == 1
        divisor = classes * cls.shape(X).numel() if reduction == "mean" else classes
        dtype = x.dtype
        if value and not reduced and dtype in HALF:  # avoids rounding to half precision before taking the mean
            x, t, w = widen(X, torch.float32)
        if g is not None and not reduced:
            g = g.unsqueeze(-1).expand(x.shape)
        wanted = value, needs[0], needs[1], False, needs[2]
        loss, dx, dt, _, dw = op(x, t, None, w, g, 1 / divisor, reduced, *wanted)
        if value and not reduced:
            loss = (loss.mean(-1) * (x.shape[-1] / classes)).to(dtype)
        return loss, [dx, dt, dw]


def _of_labels(X: Tensors) -> Tensors:
    """The arguments for binary cross entropy, without a pos_weight."""
    x, t, w = X
    return x, t, None, w


@arguments.functional
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor | float,
    weight: Tensor | float | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean binary cross entropy of a row of logits; see :func:`torch.nn.functional.multilabel_soft_margin_loss`.

    Args:
        input: Logits, a floating point tensor of shape (C), (N, C) or, with the labels last, of any more dimensions.
        target: 0 or 1 for each label, or probabilities, of the same shape or one that broadcasts; may be a number.
        weight: Optional factor of each label's loss, of shape (C) or one that broadcasts; may be a number.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum', over the losses of the rows.

    Returns:
        A scalar, or for 'none' a tensor of the input's shape without the last dimension, in the promoted dtype, even
        under autocast. All three tensors may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown.
        IndexError: ``input`` is 0-d.
        RuntimeError: the shapes do not broadcast.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    elif reduction not in ("none", "mean", "sum"):
        raise ValueError(reduction + " is not valid")
    classes = input.size(-1)
    arguments.require_floating("multilabel_soft_margin_loss", input)
    target = arguments.as_tensor(target, input)
    if weight is not None:
        weight = arguments.as_tensor(weight, input)
    x, t, w = arguments.together(input, target, weight, autocasts=False, arithmetic=True)
    arguments.require_floating("multilabel_soft_margin_loss", x)
    if x.dim() != input.dim():  # torch sums over the dimension with the index input.dim() - 1
        x, t, w = (None if u is None else u.movedim(input.dim() - 1, -1) for u in (x, t, w))
    return evaluate(MultiLabelSoftMarginLossFunction, x, t, w, classes, reduction)


class MultiLabelSoftMarginLoss(torch.nn.MultiLabelSoftMarginLoss):
    """:func:`multilabel_soft_margin_loss` as a module, interchangeable with torch's."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_soft_margin_loss(input, target, self.weight, reduction=self.reduction)
