r"""Distillation from a teacher's most probable classes.

**Where it comes from.** A teacher with a large vocabulary often runs elsewhere, or long before, and its scores are too
many to send or to store [1]. What remains of each row are the log-probabilities :math:`b_i` of its :math:`K` most
probable classes :math:`y_i`. To compare only those with a student's is not a divergence: renormalised, they say nothing
of the other classes; as they are, the sum can be negative. So the other classes become one bucket, the tail, for both
models, and :math:`K + 1` categories are compared.

**Definition.** With :math:`a_c = 1` for the teacher's classes and 0 for the others, teacher and student give the
categories the probabilities

.. math::
    q_i = e^{b_i}, \qquad Q = 1 - \sum_i q_i, \qquad
    r_i = p_{y_i}, \qquad P = \sum_{c:\, a_c = 0} p_c, \qquad p_c = \frac{e^{x_c / T}}{\sum_j e^{x_j / T}} \tag{1}

and the loss is one of the divergences of :mod:`~manual_grad.losses.rowwise.distillation_loss`, with their numbers:

.. math::
    \ell = T^2 \Big(\sum_i f(r_i, q_i) + f(P, Q)\Big), \qquad
    f(r, s) = \begin{cases} s \log(s / r) & D = 1 \\ r \log(r / s) & D = 2 \\
    \beta\, s \log(s / m(r, s)) + (1 - \beta)\, r \log(r / m(r, s)) & D = 3 \\ |r - s| / 2 & D = 4 \end{cases}, \qquad
    m(r, s) = \beta\, s + (1 - \beta)\, r \tag{2}

Merging classes cannot increase a divergence, so this is a lower bound of the one that all classes have. The temperature
divides the student's scores only. The teacher's log-probabilities must be those of its scores divided by the same
temperature: a sum of probabilities does not tell what it would have been at another.

**Stable form.** The terms are those of the other loss, none of them negative. What is new is the tail. For the student,
it is summed over the other classes, and nothing is subtracted. Only the logarithm of a tail that is nearly 1 is found
from the rest:

.. math::
    \log P = \log\big(1 - \sum_i r_i\big) \tag{3}

The teacher's other classes are not known, and there :math:`1 - \sum_i q_i` cancels if the teacher is sure. What is left
are the digits of the log-probabilities. Let :math:`b_k` be the largest; if the teacher is sure, it is a small negative
number, known to its last digit, and

.. math::
    Q = -(e^{b_k} - 1) - \sum_{i \ne k} e^{b_i} \tag{4}

where :math:`e^{b_k} - 1` is computed without the subtraction. A log-probability that was rounded, to a relative error
:math:`\epsilon`, changes :math:`Q` by :math:`\epsilon\, q_i\, |b_i|`. So the tail of a teacher that is sure keeps its
digits if whoever computed the log-probabilities did not lose them: ``log_softmax`` of float32 scores does, and returns
0 for a leader that is 20 ahead. If what is given leaves no tail at all, because the sum of the :math:`q_i` was rounded
to 1 or more, the tail is :math:`2^{-126}`, so that the reverse KL divergence remains finite. With :math:`K = C` there
is no tail on either side.

>>> import torch
>>> from manual_grad.functional import topk_distillation_loss
>>> x, b, y = torch.tensor([[9.0, 2.0, 1.0, 0.0]]), torch.tensor([[-0.0015, -7.0]]), torch.tensor([[0, 1]])
>>> log_p = x.log_softmax(1).gather(1, y)
>>> usual = (b.exp() * (b - log_p)).sum()  # without the tail
>>> f"{usual:.1e}", f"{topk_distillation_loss(x, b, y):.1e}"
('-1.3e-04', '1.7e-05')

**Gradient.** Let :math:`h` be the derivative of a term by :math:`r`:

.. math::
    h(r, s) = \begin{cases} 1 - s / r & D = 1 \\ \log(r / s) & D = 2 \\ (1 - \beta) \log(r / m(r, s)) & D = 3 \\
    ([r > s] - [r < s]) / 2 & D = 4 \end{cases} \tag{5}

The categories have gradients like classes. That of the tail is divided among its classes in proportion to their
probabilities:

.. math::
    G_i = r_i\, (h(r_i, q_i) - \bar h), \qquad F = P\, (h(P, Q) - \bar h), \qquad
    \bar h = \sum_i r_i\, h(r_i, q_i) + P\, h(P, Q) \tag{6}

.. math::
    \frac{\partial \ell}{\partial x_{y_i}} = T\, G_i, \qquad
    \frac{\partial \ell}{\partial x_j} = T\, F\, \rho_j \quad \text{for } a_j = 0, \qquad \rho_c = p_c / P \tag{7}

The log-probabilities of the teacher are constants.

**Kinks.** Total variation has one where a category has the same probability for both. There the slope is 0, as in
torch's ``abs``.

**Second derivative.** Along a direction :math:`\dot x`, the logarithms of :math:`r_i`, of :math:`P` and of
:math:`\rho_c` change by

.. math::
    \xi_i = \frac{\dot x_{y_i}}{T} - \mu, \qquad \zeta = \nu - \mu, \qquad \theta_c = \frac{\dot x_c}{T} - \nu, \qquad
    \mu = \sum_c p_c\, \frac{\dot x_c}{T}, \qquad \nu = \sum_{c:\, a_c = 0} \rho_c\, \frac{\dot x_c}{T} \tag{8}

.. math::
    (H v)_{x_{y_i}} = T\, r_i\, \Big(\xi_i\, (h(r_i, q_i) - \bar h + \kappa(r_i, q_i)) - \dot{\bar h}\Big), \qquad
    (H v)_{x_j} = T\, \rho_j\, \Big(\theta_j\, F
    + P\, \big(\zeta\, (h(P, Q) - \bar h + \kappa(P, Q)) - \dot{\bar h}\big)\Big) \quad \text{for } a_j = 0 \tag{9}

.. math::
    \dot{\bar h} = \sum_i r_i\, \xi_i\, (h(r_i, q_i) + \kappa(r_i, q_i)) + P\, \zeta\, (h(P, Q) + \kappa(P, Q)), \qquad
    \kappa(r, s) = \begin{cases} s / r & D = 1 \\ 1 & D = 2 \\ (1 - \beta)\, \beta\, s / m(r, s) & D = 3 \\ 0 & D = 4
    \end{cases} \tag{10}

**Shapes and domain.** The scores are :math:`(\dots, C)`, the log-probabilities and their classes :math:`(\dots, K)`.
The classes of a row must differ. Log-probabilities are at most 0; :math:`-\infty` is a class that the teacher rules
out. A score of :math:`-\infty` rules out a class for the student; the forward KL divergence is infinite if that leaves
the student no tail. A row without a finite score is NaN.

Sources:

1. Anshumann et al., "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs" (2025),
   `arXiv:2503.16870 <https://arxiv.org/abs/2503.16870>`_.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, divergence, policy, rowwise
from manual_grad.engine.divergence import Divergence
from manual_grad.engine.dtypes import dtype_of_loss
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss, class_dim

LEAST_TAIL = 2.0**-126  # of the teacher, in place of 0


class TopkDistillationLossFunction(RowwiseLoss):
    """``apply(input, log_probs, indices, w, divergence, beta, temperature, dtype, reduction)``.

    ``input`` is (C) or (N, C, d1, …); ``log_probs`` and ``indices`` have K in place of C. ``w``, the weight of each
    row, has none of the two, or is None. The loss has the dtype ``dtype``.
    """

    tensors = 4
    kernel = "topk_distillation_loss"

    @classmethod
    def dtype(cls, X: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype) -> torch.dtype:
        return dtype

    @staticmethod
    def value(X: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype) -> Tensor:
        x, b, y, w = _kept(X)
        p, q, u, _ = Categories.of(x, b, y, temperature)
        return policy.counted(Divergence(name, beta).terms(p, q, u).sum(class_dim(x)) * temperature**2, w)  # (2)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype) -> Tensors:
        x, b, y, w = _kept(X)
        dim = class_dim(x)
        p, q, u, share = Categories.of(x, b, y, temperature)
        slope = Divergence(name, beta).slope(p, q, u, p.argmax(dim, keepdim=True), dim)  # (6)
        dx = policy.counted(temperature * g, w).unsqueeze(dim) * _to_classes(slope, y, share)
        return dx, None, None, None

    @staticmethod
    def curvature(
        g: Tensor, X: Tensors, v: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype
    ) -> Tensors:
        x, b, y, w = _kept(X)
        if v[0] is None:
            return None, None, None, None
        dim, of, z = class_dim(x), Divergence(name, beta), v[0] / temperature
        p, q, u, share = Categories.of(x, b, y, temperature)
        nu = (share * z).sum(dim, keepdim=True)
        moved = z.gather(dim, y) if p.shape == y.shape else torch.cat([z.gather(dim, y), nu], dim)
        xi = moved - (p * moved).sum(dim, keepdim=True)  # (8)
        change = of.curvature(p, q, u, xi, torch.zeros_like(xi), dim)
        hx = _to_classes(change, y, share)
        if p.shape != y.shape:
            tail = of.slope(p, q, u, p.argmax(dim, keepdim=True), dim).narrow(dim, -1, 1)
            hx = hx + share * (z - nu) * tail  # (9); 0 for the teacher's classes
        return policy.counted(temperature * g, w).unsqueeze(dim) * hx, None, None, None

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        (x, *_), (name, beta, temperature, dtype) = X, options
        op = kernels.op(cls.kernel, x) if x.numel() else None
        if op is None:
            return None
        reduce, scale = reduction != "none", cls.scale(X, options) if reduction == "mean" else 1.0
        loss = x.new_empty(() if reduce else cls.shape(X), dtype=dtype) if value else None
        dx = torch.empty_like(x) if needs[0] else None
        op(*X, g, divergence.NAMES.index(name), beta, temperature, scale, reduce, loss, dx)
        return loss, [dx, None, None, None]


class Categories(NamedTuple):
    """The teacher's classes and, last, the tail, unless these are all classes."""

    p: Tensor
    q: Tensor
    u: Tensor
    share: Tensor  # of each class in the tail

    @classmethod
    def of(cls, x: Tensor, b: Tensor, y: Tensor, temperature: float) -> Categories:
        dim = class_dim(x)
        m, leader = x.max(dim, keepdim=True)
        z = (x - m) / temperature
        own, others = z.gather(dim, y), z.scatter(dim, y, -math.inf)
        e_own, e_others = own.exp(), others.exp()
        top, tail = e_own.sum(dim, keepdim=True), e_others.sum(dim, keepdim=True)
        leads = y == leader
        rest = torch.where(leads, 0, e_own).sum(dim, keepdim=True) + tail
        log_sum = torch.where(leads.any(dim, keepdim=True), rest.log1p(), (top + tail).log())
        p, q, u = e_own / (top + tail), b.exp(), own - log_sum - b
        ruled_out = (own == -math.inf) & (b == -math.inf)
        u = torch.where(ruled_out, 0, u)
        if y.shape[dim] == x.shape[dim]:
            return cls(p, q, u, torch.zeros_like(z))
        share = torch.where(tail > 0, e_others / tail, 0)
        small = top / (top + tail)
        log_tail = torch.where(small < 0.5, (-small).log1p(), tail.log() - log_sum)  # (3)
        of_teacher, log_of_teacher = _tail_of_teacher(b, dim)
        return cls(
            torch.cat([p, tail / (top + tail)], dim),
            torch.cat([q, of_teacher], dim),
            torch.cat([u, log_tail - log_of_teacher], dim),
            share,
        )


def _tail_of_teacher(b: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Q and its logarithm."""
    if not b.shape[dim]:
        nothing = b.sum(dim, keepdim=True)
        return nothing.exp(), nothing
    largest, k = b.max(dim, keepdim=True)
    others = b.exp().scatter(dim, k, 0).sum(dim, keepdim=True)
    known = largest.exp() + others
    tail = (-largest.expm1() - others).clamp_min(LEAST_TAIL)  # (4)
    return tail, torch.where(known < 0.5, (-known).log1p(), tail.log())


def _to_classes(of_categories: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """(7): what each category receives, given to its classes."""
    dim = class_dim(share)
    own = of_categories.narrow(dim, 0, y.shape[dim])
    tail = of_categories.narrow(dim, y.shape[dim], of_categories.shape[dim] - y.shape[dim])
    spread = share * tail if tail.shape[dim] else share
    return spread.scatter(dim, y, own)


def _kept(X: Tensors) -> Tensors:
    """The tensors, with harmless contents in the rows that do not count, and a check of the indices of the others."""
    x, b, y, w = X
    dim = class_dim(x)
    if w is not None:
        kept = (w != 0).unsqueeze(dim)
        x, b, y = torch.where(kept, x, 0), torch.where(kept, b, 0), torch.where(kept, y, 0)
    bad = rowwise.label_outside(y, x.shape[dim])
    if bad is not None:
        raise IndexError(f"teacher_indices: index {bad} is out of bounds for {x.shape[dim]} classes")
    return x, b, y, w


@arguments.functional
def topk_distillation_loss(
    input: Tensor,
    teacher_log_probs: Tensor,
    teacher_indices: Tensor,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Divergence of a student from a teacher of which the most probable classes are known; the others are one bucket.

    Args:
        input: The student's scores (any real numbers), floating point, of shape (…, C).
        teacher_log_probs: The teacher's log-probabilities of K classes, of shape (…, K) and any floating dtype, at most
            0: values of its log-softmax at the same temperature. They are constants.
        teacher_indices: Which classes these are, int64, of shape (…, K), in [0, C) and different from each other.
        divergence: 'forward_kl' (of the teacher from the student), 'reverse_kl' (of the student from the teacher),
            'jsd' (generalised Jensen-Shannon) or 'tv' (total variation).
        beta: The teacher's share of the mixture in 'jsd', in [0, 1]; there, 0 stands for 'forward_kl' and 1 for
            'reverse_kl', as in TRL.
        temperature: Divides the student's scores; positive. The result is multiplied by its square.
        mask: Optional weight of each row, of any real dtype or bool, broadcast to the shape (…): 0 for a row that does
            not count, which may hold anything, even NaN and indices out of range. It gets no gradient.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all rows) or 'sequence' (the mean over sequences, along
            the last dimension of (…), of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the rows of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of shape (…), in the input's dtype (float32 under autocast, without a copy of
        the scores in float32). Where no row counts, the means are 0.

    Raises:
        IndexError: an index is outside [0, C) (checked on the CPU); ``input`` is 0-d.
        ValueError: ``divergence`` or ``reduction`` is unknown, ``beta`` is not in [0, 1], ``temperature`` is not
            positive and finite, or there is a ``normalizer`` without reduction='mean'.
        RuntimeError: shapes or dtypes do not fit.
        TypeError: an argument has another type.
        NotImplementedError: the scores are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import topk_distillation_loss
        >>> student = torch.tensor([[2.0, 0.0, -1.0, 0.5]])
        >>> log_probs, indices = torch.tensor([[1.0, 3.0, 0.0, -1.0]]).log_softmax(-1).topk(2)
        >>> topk_distillation_loss(student, log_probs, indices)
        tensor(1.5156)
    """
    name = "topk_distillation_loss"
    of = _divergence(name, divergence, beta)
    temperature = arguments.positive(name, "temperature", temperature)
    x, b, y = input, teacher_log_probs, teacher_indices
    arguments.require_floating(name, x)
    if not x.dim():
        raise IndexError(f"Dimension out of range: {name}'s input must have at least 1 dimension, got a scalar")
    if b.dim() != x.dim() or b.shape[:-1] != x.shape[:-1]:
        raise RuntimeError(
            f"teacher_log_probs: expected shape {[*x.shape[:-1], 'K']}, as the input has shape {list(x.shape)}, "
            f"but got {list(b.shape)}"
        )
    if not b.is_floating_point():
        raise RuntimeError(f"teacher_log_probs: expected a floating point dtype, but got {b.dtype}")
    if y.shape != b.shape:
        raise RuntimeError(f"teacher_indices: expected shape {list(b.shape)}, but got {list(y.shape)}")
    if y.dtype is not torch.int64:
        raise RuntimeError(f"teacher_indices: expected scalar type Long but found {arguments.scalar_type(y.dtype)}")
    if y.shape[-1] > x.shape[-1]:
        raise RuntimeError(f"teacher_indices: expected at most {x.shape[-1]} classes, but got {y.shape[-1]}")
    dtype = dtype_of_loss(x)
    w, reduction = policy.row_shares(name, mask, x.new_empty(x.shape[:-1], dtype=dtype), reduction, normalizer)
    b = b.detach()
    if x.dim() > 2:
        x, b, y = x.movedim(-1, 1), b.movedim(-1, 1), y.movedim(-1, 1)
    return evaluate(TopkDistillationLossFunction, x, b, y, w, of.name, of.beta, temperature, dtype, reduction)


_divergence = divergence.of_options  # the argument of that name hides the module


class TopkDistillationLoss(divergence.DistillationModule):
    """:func:`topk_distillation_loss` as a module."""

    def forward(
        self, input: Tensor, teacher_log_probs: Tensor, teacher_indices: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return topk_distillation_loss(
            input, teacher_log_probs, teacher_indices, self.divergence, self.beta, self.temperature, mask,
            self.reduction,
        )  # fmt: skip
