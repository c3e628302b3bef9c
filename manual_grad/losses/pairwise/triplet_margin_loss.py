r"""Triplet margin loss.

**Where it comes from.** An anchor :math:`a` should be closer to a positive example :math:`p` than to a negative one
:math:`n` by a margin :math:`m`. The loss is the shortfall (Weinberger and Saul [1], Schroff et al. [2], both with
squared distances).

**Definition.** With :math:`D` the distance to the negative,

.. math::
    \ell = \max(0, s), \qquad s = m + \lVert u \rVert_q - D, \qquad
    u = a - p + \epsilon, \quad v = a - n + \epsilon, \quad w = p - n + \epsilon \tag{1}

The norm may have any degree :math:`q` (the argument ``p``). The small :math:`\epsilon` added to every coordinate, as in
torch, keeps :math:`u` away from the kink of the norm at 0; because of it, the loss depends slightly on the order of the
two vectors. The distance of the negative is measured from the anchor; with ``swap``, it is also measured from the
positive, and the smaller distance counts (Balntas et al. [3]):

.. math::
    D = \lVert v \rVert_q \qquad\text{or}\qquad D = \min(\lVert v \rVert_q, \lVert w \rVert_q) \tag{2}

**Gradient.** The chain rule through the root and the powers leaves, for a norm,

.. math::
    f = \lVert u \rVert_q = \Big( \sum_i |u_i|^q \Big)^{1/q}, \qquad
    \frac{\partial f}{\partial u_i} = \operatorname{sgn}(u_i) \left( \frac{|u_i|}{f} \right)^{q-1} \tag{3}

With :math:`\alpha` and :math:`\beta` the shares of :math:`v` and :math:`w` in the minimum of (2),

.. math::
    \frac{\partial \ell}{\partial a} = [s \ge 0]\,(\nabla_u - \alpha \nabla_v), \qquad
    \frac{\partial \ell}{\partial p} = -[s \ge 0]\,(\nabla_u + \beta \nabla_w), \qquad
    \frac{\partial \ell}{\partial n} = [s \ge 0]\,(\alpha \nabla_v + \beta \nabla_w), \qquad
    \nabla_u = \frac{\partial \lVert u \rVert_q}{\partial u}, \qquad
    \nabla_v = \frac{\partial \lVert v \rVert_q}{\partial v}, \qquad
    \nabla_w = \frac{\partial \lVert w \rVert_q}{\partial w}, \qquad
    \alpha = 1 \quad\text{or}\quad \alpha = [\lVert v \rVert_q < \lVert w \rVert_q], \qquad \beta = 1 - \alpha \tag{4}

**Kinks.** All choices are torch's. At :math:`s = 0` the hinge counts as active. Equal distances in the minimum share
equally, :math:`\alpha = \beta = \frac12`. The slope in a coordinate of 0 is 0, and so is that in a vector of zeros. For
:math:`q = \pm\infty` the norm is the largest (smallest) absolute value of a coordinate, and coordinates that tie for it
share equally. For :math:`q = 0` it counts the nonzero coordinates, and its slope is 0.

**Stable form.** :math:`|u_i|^q` overflows long before the norm does: for :math:`q = 100` at :math:`|u_i| = 10^{4}`, for
:math:`q = 2` at :math:`10^{155}`. With the largest absolute value :math:`c` taken out (the smallest for :math:`q < 0`)
every term is at most 1:

.. math::
    f = c \left( \sum_i \Big( \frac{|u_i|}{c} \Big)^q \right)^{1/q}, \qquad c = \max_i |u_i| \tag{5}

(3) is already a power of a quotient. An easy triplet (one with loss 0) has a gradient of 0 even if a distance is
infinite. The two terms of the anchor's gradient in (4) cancel when positive and negative lie in nearly the same
direction, as in a collapsed embedding. Therefore float32 is computed in float64, which has digits to spare.

**Second derivative.** Along a direction :math:`t` of :math:`u`, (3) changes by

.. math::
    (H_f t)_{u_i} = \frac{q - 1}{f} \left( \Big( \frac{|u_i|}{f} \Big)^{q-2} t_i
                  - \frac{\partial f}{\partial u_i} \sum_j \frac{\partial f}{\partial u_j}\, t_j \right) \tag{6}

which vanishes for :math:`q = 1` and is taken as 0 for :math:`q = 0` and :math:`\pm\infty`. For :math:`q < 2` it is
infinite at a coordinate of 0; there :math:`|u_i|^{q-2}` is taken as 0. The directions of :math:`u, v, w` are
differences of those of :math:`a, p, n`, and (4) combines the three products.

**Shapes and domain.** The three tensors broadcast to :math:`(\dots, D)`, where the last dimension holds the vectors;
:math:`m > 0`.

Sources:

1. Kilian Q. Weinberger and Lawrence K. Saul, "Distance Metric Learning for Large Margin Nearest Neighbor
   Classification", JMLR 10 (2009) 207-244.
2. Florian Schroff, Dmitry Kalenichenko and James Philbin, "FaceNet: A Unified Embedding for Face Recognition and
   Clustering" (2015), `arXiv:1503.03832 <https://arxiv.org/abs/1503.03832>`_.
3. Vassileios Balntas, Edgar Riba, Daniel Ponsa and Krystian Mikolajczyk, "Learning Shallow Convolutional Feature
   Descriptors with Triplet Losses", BMVC (2016), `doi:10.5244/C.30.119 <https://doi.org/10.5244/C.30.119>`_.
"""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction

from manual_grad.engine import arguments
from manual_grad.engine.function import Tensors, evaluate
from manual_grad.engine.pairwise import PairwiseLoss


class TripletMarginLossFunction(PairwiseLoss):
    """``apply(anchor, positive, negative, margin, q, eps, swap, reduction)``: vectors of one shape, (D) or (N, D)."""

    tensors = 3
    kernel = "triplet_margin_loss"
    swept = 3

    @staticmethod
    def value(X: Tensors, margin: float, q: float, eps: float, swap: bool) -> Tensor:
        u, v, w = (None if r is None else norm(r, q) for r in _differences(X, eps, swap))
        return (margin + (u - nearer(v, w)[0])).clamp_min(0).squeeze(-1)  # (1) (2)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, margin: float, q: float, eps: float, swap: bool) -> Tensors:
        differences = _differences(X, eps, swap)
        pulls = (None if r is None else norm_gradient(r, q) for r in differences)
        return _assemble(g, differences, pulls, margin, q)

    @staticmethod
    def curvature(
        g: Tensor, X: Tensors, directions: Tensors, margin: float, q: float, eps: float, swap: bool
    ) -> Tensors:
        differences = _differences(X, eps, swap)
        moved = _differences(tuple(torch.zeros_like(X[0]) if t is None else t for t in directions), 0.0, swap)
        pulls = (None if r is None else norm_curvature(r, t, q) for r, t in zip(differences, moved, strict=True))
        return _assemble(g, differences, pulls, margin, q)


def _differences(X: Tensors, eps: float, swap: bool) -> Tensors:
    a, p, n = X
    return a - p + eps, a - n + eps, p - n + eps if swap else None


def _assemble(g: Tensor, differences: Tensors, pulls: Any, margin: float, q: float) -> Tensors:
    """(4), with ``pulls`` in place of the gradients of the three norms."""
    u, v, w = (None if r is None else norm(r, q) for r in differences)
    nearest, alpha, beta = nearer(v, w)
    slope = torch.where(margin + (u - nearest) < 0, 0, g.unsqueeze(-1))
    by_u, by_v, by_w = pulls
    from_n, to_p = by_v, by_u
    if by_w is not None:  # a norm with share 0 may have an infinite slope
        by_v, by_w = torch.where(alpha == 0, 0, alpha * by_v), torch.where(beta == 0, 0, beta * by_w)
        from_n, to_p = by_v + by_w, by_u + by_w
    return tuple(torch.where(slope == 0, 0, slope * d) for d in (by_u - by_v, -to_p, from_n))


def nearer(v: Tensor, w: Tensor | None) -> tuple[Tensor, Any, Any]:
    """The smaller of two distances, and the share of each in it."""
    if w is None:
        return v, 1, 0
    beta = torch.where(v == w, 0.5, (w < v).to(v.dtype))
    return torch.minimum(v, w), 1 - beta, beta


def norm(u: Tensor, q: float) -> Tensor:
    """The norm of degree ``q`` over the last dimension, which is kept."""
    size = u.abs()
    if q == 1 or not size.shape[-1]:
        return size.sum(-1, keepdim=True)
    if q == 0:
        return (size != 0).to(size.dtype).sum(-1, keepdim=True)
    c = size.amax(-1, keepdim=True) if q > 0 else size.amin(-1, keepdim=True)
    if abs(q) == inf:
        return c
    c = torch.where((c == 0) | (c == inf), 1, c).detach()  # any c gives the same norm
    size = size / c
    if q == 2:
        return c * size.square().sum(-1, keepdim=True).sqrt()
    return c * _power(size, q).sum(-1, keepdim=True).pow(1 / q)  # (5)


def norm_gradient(u: Tensor, q: float) -> Tensor:
    if q == 0:
        return torch.zeros_like(u)
    if q == 1:
        return torch.where(u.isnan(), u, u.sign())  # sign(NaN) is 0, but NaN must be propagated
    f = norm(u, q)
    if abs(q) == inf:
        largest = u.abs() == f
        return torch.where(largest, u.sign(), 0) / largest.sum(-1, keepdim=True)
    return u.sign() * _power_of_quotient(u, f, q - 1)  # (3)


def norm_curvature(u: Tensor, t: Tensor, q: float) -> Tensor:
    if q in (0, 1) or abs(q) == inf:
        return torch.zeros_like(u)
    f, d = norm(u, q), norm_gradient(u, q)
    bent = _power_of_quotient(u, f, q - 2) * t - d * (d * t).sum(-1, keepdim=True)
    return torch.where(f == 0, 0, (q - 1) * bent / torch.where(f == 0, 1, f))  # (6)


def _power(size: Tensor, q: float) -> Tensor:
    """The power of non-negative numbers, differentiable even at 0."""
    zero = size == 0
    return torch.where(zero, 0.0 if q > 0 else inf, torch.where(zero, 1, size).pow(q))


def _power_of_quotient(u: Tensor, f: Tensor, exponent: float) -> Tensor:
    """(abs(u) / f) ** exponent, but 0 where u is 0."""
    zero = u == 0
    quotient = torch.where(zero, 1, u.abs()) / torch.where(zero & (f == 0), 1, f)
    return torch.where(zero, 0, quotient.pow(exponent))


@arguments.functional
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Triplet margin loss; see :func:`torch.nn.functional.triplet_margin_loss`.

    Args:
        anchor, positive, negative: Vectors of shape (N, D), (D), or with any number of dimensions before the last. All
            three have the same number of dimensions; sizes broadcast. If one of them is integral or complex, or if
            vectors of length 1 are combined with longer ones, value and derivatives are computed by torch.
        margin: By how much closer the positive should be; positive.
        p: The degree of the norm.
        eps: Added to every coordinate of every difference.
        swap: Whether to use the distance between positive and negative if it is smaller than that between anchor and
            negative.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape without its last dimension, in the promoted dtype
        (float32 under autocast). All three tensors may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown, or ``margin`` is not positive.
        RuntimeError: the numbers of dimensions differ, or the sizes do not broadcast.
        TypeError: ``margin``, ``p`` or ``eps`` is not a number, or ``swap`` not a bool.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import triplet_margin_loss
        >>> anchor = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
        >>> positive = torch.tensor([[3.0, 4.0], [0.6, 0.8]])
        >>> negative = torch.tensor([[0.0, 4.0], [3.0, 4.0]])
        >>> triplet_margin_loss(anchor, positive, negative, reduction="none")
        tensor([2.0000, 0.0000])
        >>> triplet_margin_loss(anchor, positive, negative, swap=True, reduction="none")
        tensor([3.0000, 0.0000])
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    margin = arguments.real("triplet_margin_loss", "margin", margin)
    p = arguments.real("triplet_margin_loss", "p", p)
    eps = arguments.real("triplet_margin_loss", "eps", eps)
    swap = arguments.boolean("triplet_margin_loss", "swap", swap)
    check_dimensions(anchor, positive, negative)
    if has_rule(anchor, positive, negative):
        return of_vectors(anchor, positive, negative, margin, p, eps, swap, reduction)
    number = _reduction.get_enum(reduction)
    return torch.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, number)


def check_dimensions(anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.dim()}D, positive {positive.dim()}D, and negative {negative.dim()}D inputs"
        )


def has_rule(anchor: Tensor, positive: Tensor, negative: Tensor) -> bool:
    """Whether all vectors are real and of one length; torch broadcasts each pair separately and so accepts others."""
    real = anchor.is_floating_point() and positive.is_floating_point() and negative.is_floating_point()
    return real and anchor.shape[-1:] == positive.shape[-1:] == negative.shape[-1:]


@arguments.functional
def of_vectors(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    q: float,
    eps: float,
    swap: bool,
    reduction: str,
    autocasts: bool = True,
) -> Tensor:
    """The loss by the formulas of this file, for vectors with :func:`has_rule`."""
    a, p, n = arguments.together(anchor, positive, negative, autocasts=autocasts)
    shape = a.shape[:-1]
    if a.dim() == 0:
        a, p, n = a.unsqueeze(0), p.unsqueeze(0), n.unsqueeze(0)
    elif a.dim() > 2:
        a, p, n = a.flatten(0, -2), p.flatten(0, -2), n.flatten(0, -2)
    loss = evaluate(TripletMarginLossFunction, a, p, n, margin, q, eps, swap, reduction)
    return loss.view(shape) if reduction == "none" and len(shape) > 1 else loss


class TripletMarginLoss(torch.nn.TripletMarginLoss):
    """:func:`triplet_margin_loss` as a module, interchangeable with :class:`torch.nn.TripletMarginLoss`."""

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )
