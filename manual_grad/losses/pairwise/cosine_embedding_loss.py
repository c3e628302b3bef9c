r"""Cosine embedding loss.

**Where it comes from.** Two vectors :math:`a, b \in \mathbb R^D` that belong together (:math:`y = 1`) should point in
the same direction; for two that do not (:math:`y = -1`), the cosine should not exceed a margin :math:`m`. Hadsell,
Chopra and LeCun [1] learn from pairs in this way by a distance; here it is by the angle.

**Definition.**

.. math::
    \ell = \begin{cases} 1 - c & y = 1 \\ \max(0,\, c - m) & y = -1 \\ 0 & \text{otherwise} \end{cases}
    \tag{1}

where the cosine has an :math:`\epsilon` inside the norms, as in torch, which keeps it finite for a zero vector:

.. math::
    c = \frac{a \cdot b}{n_a n_b}, \qquad n_a = \sqrt{a \cdot a + \epsilon}, \qquad
    n_b = \sqrt{b \cdot b + \epsilon}, \qquad \epsilon = 10^{-12} \tag{2}

**Gradient.** The gradient of a norm is :math:`\partial n_a / \partial a = a / n_a`, so by the quotient rule the
gradient of the cosine is proportional to the component of :math:`b` orthogonal to :math:`a` (up to :math:`\epsilon`).
It is multiplied by the slope of (1) in :math:`c`:

.. math::
    \frac{\partial c}{\partial a} = \frac{1}{n_a n_b} \Big( b - \frac{a \cdot b}{n_a^2}\, a \Big), \qquad
    \frac{\partial \ell}{\partial a} = \frac{\partial c}{\partial a} \;
    \begin{cases} -1 & y = 1 \\ [c \ge m] & y = -1 \\ 0 & \text{otherwise} \end{cases} \tag{3}

and likewise with :math:`a` and :math:`b` exchanged.

**Kinks.** At :math:`c = m` the active side is chosen, as in torch.

**Stable form.** Training makes vectors nearly parallel, and then (1) and (3) are differences of almost equal numbers.
Therefore a multiple of :math:`a` is subtracted from :math:`b` before anything is squared. This does not change the Gram
determinant, whatever :math:`\kappa` is:

.. math::
    \rho = b - \kappa a, \qquad
    \Gamma = (a \cdot a)(\rho \cdot \rho) - (a \cdot \rho)^2 = (a \cdot a)(b \cdot b) - (a \cdot b)^2 \tag{4}

If :math:`\kappa \approx (a \cdot b) / (a \cdot a)` is rounded to half the bits and :math:`a` is split into two halves,
both products in :math:`\kappa a` are exact. Where digits cancel, the subtraction is then exact as well. :math:`\rho` is
small, and so are the terms of

.. math::
    1 - c = \frac{n_a^2 n_b^2 - (a \cdot b)^2}{n_a n_b\,(n_a n_b + a \cdot b)}
          = \frac{\Gamma + \epsilon\,(a \cdot a + b \cdot b) + \epsilon^2}{n_a n_b\,(n_a n_b + a \cdot b)} \tag{5}

This form is used for :math:`a \cdot b > 0`. The vector in (3), times :math:`n_a^2`, is

.. math::
    n_a^2\, b - (a \cdot b)\, a = (a \cdot a)\, \rho - (a \cdot \rho)\, a + \epsilon\, b \tag{6}

**Second derivative.** In terms of unit vectors, (3) is :math:`(\hat b - c\, \hat a) / n_a`. Along directions
:math:`u, v` of :math:`a, b` its factors change by

.. math::
    \hat a = \frac{a}{n_a}, \qquad \hat b = \frac{b}{n_b}, \qquad
    \dot{\hat a} = \frac{u - \hat a (\hat a \cdot u)}{n_a}, \qquad
    \dot{\hat b} = \frac{v - \hat b (\hat b \cdot v)}{n_b}, \qquad
    \dot c = \frac{(\hat b - c \hat a) \cdot u}{n_a} + \frac{(\hat a - c \hat b) \cdot v}{n_b} \tag{7}

.. math::
    (H_c (u, v))_a = \frac{\dot{\hat b} - \dot c\, \hat a - c\, \dot{\hat a}}{n_a}
                     - \frac{(\hat b - c\, \hat a)(\hat a \cdot u)}{n_a^2} \tag{8}

**Shapes and domain.** Vectors are :math:`(N, D)` or :math:`(D)` and broadcast; the target is :math:`(N)` or a scalar.
Only margins in :math:`[-1, 1]` are meaningful.

Sources:

1. Raia Hadsell, Sumit Chopra and Yann LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", IEEE
   Conference on Computer Vision and Pattern Recognition (2006) 1735-1742,
   `doi:10.1109/CVPR.2006.100 <https://doi.org/10.1109/CVPR.2006.100>`_.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments
from manual_grad.engine.function import Options, Tensors, evaluate
from manual_grad.engine.pairwise import PairwiseLoss

_EPSILON = 1e-12


class CosineEmbeddingLossFunction(PairwiseLoss):
    """``apply(input1, input2, target, margin, reduction)``: inputs of one shape (D) or (N, D), target () or (N)."""

    tensors = 3
    kernel = "cosine_embedding_loss"
    swept = 2

    @staticmethod
    def value(X: Tensors, margin: float) -> Tensor:
        a, b, y = X
        aa, bb, ab = _dot(a, a), _dot(b, b), _dot(a, b)
        norms = ((aa + _EPSILON) * (bb + _EPSILON)).sqrt()
        rho = _residual(a, b, aa, ab)
        gram = aa * _dot(rho, rho) - _dot(a, rho).square()
        near = (gram + _EPSILON * (aa + bb) + _EPSILON**2) / (norms * (norms + ab))  # (5)
        c = ab / norms  # (2)
        together, apart = torch.where(ab > 0, near, 1 - c), (c - margin).clamp_min(0)
        y = y.unsqueeze(-1)
        return torch.where(y == 1, together, torch.where(y == -1, apart, 0)).squeeze(-1)  # (1)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, margin: float) -> Tensors:
        a, b, _ = X
        slope = g.unsqueeze(-1) * _slope(X, margin)
        return *(torch.where(slope == 0, 0, slope * _cosine_gradient(p, q)) for p, q in ((a, b), (b, a))), None

    @staticmethod
    def curvature(g: Tensor, X: Tensors, v: Tensors, margin: float) -> Tensors:
        (a, b, _), (u, v, _) = X, v
        u, v = (torch.zeros_like(a) if t is None else t for t in (u, v))
        slope = g.unsqueeze(-1) * _slope(X, margin)
        na, nb = (_dot(a, a) + _EPSILON).sqrt(), (_dot(b, b) + _EPSILON).sqrt()
        a, b = a / na, b / nb  # the hats of (7)
        c, au, bv = _dot(a, b), _dot(a, u), _dot(b, v)
        towards_b, towards_a = b - c * a, a - c * b
        da, db = (u - a * au) / na, (v - b * bv) / nb
        dc = _dot(towards_b, u) / na + _dot(towards_a, v) / nb  # (7)
        ha = (db - dc * a - c * da) / na - towards_b * au / na.square()
        hb = (da - dc * b - c * db) / nb - towards_a * bv / nb.square()  # (8)
        return slope * ha, slope * hb, None

    @classmethod
    def op(cls, X: Tensors, options: Options) -> Any:
        a, b, y = X
        return kernels.op(cls.kernel, a, b) if y.device == a.device else None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def _head(x: Tensor) -> Tensor:
    """x rounded to half of its bits (Veltkamp 1968), so that the product of two such numbers is exact."""
    shifted = x * (2**27 + 1 if x.dtype is torch.float64 else 2**12 + 1)
    return shifted - (shifted - x)


def _residual(a: Tensor, b: Tensor, aa: Tensor, ab: Tensor) -> Tensor:
    """rho of (4). The second step removes what remains because kappa was rounded."""
    high = _head(a)
    for _ in range(2):
        kappa = _head(torch.where(aa > 0, ab / aa, 0))
        b = (b - kappa * high) - kappa * (a - high)
        ab = _dot(a, b)
    return b


def _cosine_gradient(a: Tensor, b: Tensor) -> Tensor:
    aa, bb, ab = _dot(a, a), _dot(b, b), _dot(a, b)
    rho = _residual(a, b, aa, ab)
    na2 = aa + _EPSILON
    return (aa * rho - _dot(a, rho) * a + _EPSILON * b) / (na2 * (na2 * (bb + _EPSILON)).sqrt())  # (6) in (3)


def _slope(X: Tensors, margin: float) -> Tensor:
    """The slope of (1) in c."""
    a, b, y = X
    c = _dot(a, b) / ((_dot(a, a) + _EPSILON) * (_dot(b, b) + _EPSILON)).sqrt()
    y = y.unsqueeze(-1)
    one = torch.ones_like(c)
    return torch.where(y == 1, -one, torch.where((y == -1) & ~(c < margin), one, 0))


@arguments.functional
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Cosine embedding loss; see :func:`torch.nn.functional.cosine_embedding_loss`.

    Args:
        input1, input2: Vectors of shape (N, D), with a target (N), or (D), with a target (). Other sizes broadcast.
            Integers are converted to the default floating point dtype.
        target: 1 for pairs that belong together, -1 for pairs that do not; for any other value the loss is 0.
        margin: The cosine, in [-1, 1], up to which a pair with target -1 has loss 0.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of shape (N) or (), in the promoted dtype (float32 under autocast). ``input1``
        and ``input2`` may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: the dimensions of ``target`` and the inputs do not fit, or the sizes do not broadcast.
        TypeError: ``margin`` is not a number.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import cosine_embedding_loss
        >>> input1 = torch.tensor([[3.0, 4.0], [1.0, 0.0], [3.0, 4.0]])
        >>> input2 = torch.tensor([[4.0, 3.0], [0.0, 2.0], [4.0, 3.0]])
        >>> target = torch.tensor([1, 1, -1])
        >>> cosine_embedding_loss(input1, input2, target, margin=0.5, reduction="none")
        tensor([0.0400, 1.0000, 0.4600])
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    margin = arguments.real("cosine_embedding_loss", "margin", margin)
    if target.dim() > 1:
        raise RuntimeError(f"0D or 1D target tensor expected, multi-target not supported: got {list(target.shape)}")
    if not input1.dim() == input2.dim() == target.dim() + 1:
        raise RuntimeError(
            f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, "
            f"but found inputs with sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    target = target.detach()  # the target only selects a case
    a, b = arguments.promote(*arguments.autocast(input1, input2))
    arguments.refuse_complex("cosine_embedding_loss", a, target)
    if not a.is_floating_point():
        a, b = a.to(torch.get_default_dtype()), b.to(torch.get_default_dtype())
    if not (a.shape == b.shape and target.shape == a.shape[:-1]):
        a, b, y = torch.broadcast_tensors(a, b, target.unsqueeze(-1))
        target = y.select(-1, 0) if y.shape[-1] else torch.broadcast_to(target, y.shape[:-1])
    return evaluate(CosineEmbeddingLossFunction, a, b, target, margin, reduction)


class CosineEmbeddingLoss(torch.nn.CosineEmbeddingLoss):
    """:func:`cosine_embedding_loss` as a module, interchangeable with :class:`torch.nn.CosineEmbeddingLoss`."""

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)
