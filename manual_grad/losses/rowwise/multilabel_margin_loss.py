r"""Multi-label margin loss.

**Where it comes from.** A row of scores :math:`x \in \mathbb R^C` comes with a list of labels :math:`y_1, \dots, y_L`,
which ends at the first -1. The scores are right if every label has a higher score than every class that is not a label.
Elisseeff and Weston [1] sum over these pairs; here each label should lead by 1.

**Definition.** With :math:`Y` the set of labels,

.. math::
    \ell = \frac1C \sum_{k=1}^{L} \sum_{j \notin Y} \max(0, h_{y_k j}), \qquad h_{cj} = (x_j - x_c) + 1 \tag{1}

The order of the labels does not matter, only how often each class :math:`c` is among them (repeated labels count
repeatedly):

.. math::
    \ell = \frac1C \sum_{c, j} n_c f_j \max(0, h_{cj}), \qquad n_c = \sum_{k=1}^{L} [y_k = c], \qquad
    f_j = [n_j = 0] \tag{2}

**Gradient.** Each pair contributes opposite slopes to its two classes:

.. math::
    s_{cj} = n_c f_j\, [h_{cj} > 0], \qquad
    \frac{\partial \ell}{\partial x_i} = \frac1C \Big( \sum_c s_{ci} - \sum_j s_{ij} \Big) \tag{3}

One of the two sums is empty, since a class either is a label or is not.

**Second derivative.** The loss is piecewise linear:

.. math::
    \frac{\partial^2 \ell}{\partial x_i\, \partial x_j} = 0 \tag{4}

**Kinks.** At :math:`h_{cj} = 0` the inactive side is chosen, as in torch.

**Stable form.** In (1) the two scores, which may cancel, are subtracted first, since the difference of nearby numbers
is exact.

**Cost.** The formulas below materialize the pairs, :math:`O(C^2)` numbers per row. The kernel processes the labels of a
row one at a time, with :math:`O(C)` numbers and :math:`O(C L)` steps.

**Shapes and domain.** Scores and labels are :math:`(N, C)` or :math:`(C)`; labels are in :math:`[-1, C)`. This is the
extension of :mod:`~manual_grad.losses.rowwise.multi_margin_loss` to several labels, and differs from torch in the same
ways: NaN is propagated where torch drops it, the sum over an empty batch is 0 where torch on the CPU returns
uninitialized memory, and there are a second derivative (zero) and forward mode.

Sources:

1. André Elisseeff and Jason Weston, "A Kernel Method for Multi-Labelled Classification", Advances in Neural
   Information Processing Systems 14 (2001).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, rowwise
from manual_grad.engine.function import Options, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss

_MARGIN = 1.0


class MultiLabelMarginLossFunction(RowwiseLoss):
    """``apply(input, target, reduction)``: both (C) or (N, C), the target a list of labels that ends at -1."""

    tensors = 2
    kernel = "class_margin"

    @staticmethod
    def value(X: Tensors) -> Tensor:
        pairs, excess = _pairs(X)
        return (pairs * excess).sum((-2, -1)) / X[0].shape[-1]  # (2)

    @staticmethod
    def gradient(g: Tensor, X: Tensors) -> Tensors:
        pairs, excess = _pairs(X)
        s = pairs * rowwise.step(excess)
        return (g.unsqueeze(-1) * (s.sum(-2) - s.sum(-1)) / X[0].shape[-1]), None  # (3)

    @staticmethod
    def curvature(g: Tensor, X: Tensors, v: Tensors) -> Tensors:
        return None, None

    @classmethod
    def op(cls, X: Tensors, options: Options) -> Any:
        op = kernels.op(cls.kernel, *X)
        if op is None:
            return None
        return lambda x, t, g, *rest: op(x, t, None, g, 1, _MARGIN, *rest)


def _pairs(X: Tensors) -> tuple[Tensor, Tensor]:
    """n_c f_j and max(0, h_cj) of (2), both (…, C, C); the latter is 0 where the former is."""
    x, t = X
    classes = x.shape[-1]
    label = rowwise.label_outside(t, classes, -1)
    if label is not None:
        raise RuntimeError(
            f"multilabel_margin_loss: argument #2 'target' is out of range: got {label}, expected [-1, {classes - 1}]."
        )
    listed = (t >= 0).long().cumprod(-1)
    n = torch.zeros_like(t).scatter_add(-1, t.clamp_min(0), listed)
    pairs = n.unsqueeze(-1) * (n == 0).unsqueeze(-2)
    h = (x.unsqueeze(-2) - x.unsqueeze(-1)) + _MARGIN  # (1)
    return pairs, torch.where(pairs > 0, h.clamp_min(0), 0)


@arguments.functional
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Multi-label margin loss; see :func:`torch.nn.functional.multilabel_margin_loss`.

    Args:
        input: Scores, floating point, of shape (C) or (N, C), C at least 1.
        target: The labels of each row, in [0, C), followed by -1 if there are fewer than C; int64, of the input's
            shape.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of rows.

    Returns:
        A scalar, or for 'none' a tensor of shape () or (N), in the input's dtype (float32 under autocast). ``input``
        may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: a label is outside [-1, C), even after the first -1 (checked on the CPU); shapes or dtypes that do
            not fit.
        NotImplementedError: the input is not real floating point.
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    _, classes = rowwise.matrix_size(input)
    if target.shape != input.shape and not (
        classes == 1 and input.dim() < 2 and target.dim() < 2 and target.numel() == 1
    ):
        raise RuntimeError(f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    rowwise.check_long(target)
    arguments.require_floating("multilabel_margin_loss", input)
    (x,) = arguments.autocast(input)
    if x.dim() == 0 or target.dim() == 0:
        x, target = x.reshape(1), target.reshape(1)
    return evaluate(MultiLabelMarginLossFunction, x, target, reduction)


class MultiLabelMarginLoss(torch.nn.MultiLabelMarginLoss):
    """:func:`multilabel_margin_loss` as a module, interchangeable with :class:`torch.nn.MultiLabelMarginLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_margin_loss(input, target, reduction=self.reduction)
