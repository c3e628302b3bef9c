r"""Distillation from the hidden states of student and teacher; the scores of neither are stored whole.

**Where it comes from.** The scores of a language model, :math:`N \times C` numbers, dwarf all else that a loss needs,
and distillation needs those of two models. Both are projections of hidden states, which may differ in length.

**Definition.** With the student's hidden state :math:`x`, weight :math:`W` and bias :math:`b`, and the teacher's
:math:`\tilde x`, :math:`\tilde W` and :math:`\tilde b`,

.. math::
    z = W x + b, \qquad y = \tilde W \tilde x + \tilde b, \qquad
    p_c = \frac{e^{z_c / T}}{\sum_j e^{z_j / T}}, \qquad q_c = \frac{e^{y_c / T}}{\sum_j e^{y_j / T}} \tag{1}

and the loss is one of the divergences of :mod:`~manual_grad.losses.rowwise.distillation_loss`, with their numbers:

.. math::
    \ell = T^2 \begin{cases}
    \sum_c q_c \log(q_c / p_c) & D = 1 \\
    \sum_c p_c \log(p_c / q_c) & D = 2 \\
    \sum_c (\beta\, q_c \log(q_c / m_c) + (1 - \beta)\, p_c \log(p_c / m_c)) & D = 3 \\
    \sum_c |p_c - q_c| / 2 & D = 4
    \end{cases}, \qquad m_c = \beta\, q_c + (1 - \beta)\, p_c \tag{2}

**Gradient.** That chapter derives the derivatives by the scores,

.. math::
    r_c = \frac{\partial \ell}{\partial z_c}, \qquad s_c = \frac{\partial \ell}{\partial y_c} \tag{3}

The chain rule through the two projections gives three products each:

.. math::
    \frac{\partial \ell}{\partial x} = W^\top r, \qquad \frac{\partial \ell}{\partial W} = r x^\top, \qquad
    \frac{\partial \ell}{\partial b} = r, \qquad
    \frac{\partial \ell}{\partial \tilde x} = \tilde W^\top s, \qquad
    \frac{\partial \ell}{\partial \tilde W} = s \tilde x^\top, \qquad
    \frac{\partial \ell}{\partial \tilde b} = s \tag{4}

**Blocks of rows.** As in [1], a block of rows is processed completely: the scores of both, the loss, then :math:`r`
and :math:`s` in the place of the scores, and (4). The next block reuses the memory. What needs no gradient is left out:
for a frozen teacher there is no :math:`s`, and one product instead of three. If the loss is reduced, its gradients are
computed along with it.

**Stable form.** That of the rows. Beside it, the error of the products remains: scores of size :math:`a` are known to
:math:`a` eps, and so are their differences.

**Second derivative.** By (5) and its like, :math:`r` and :math:`s` are differentiated with the scores, as in that
chapter; what follows for hidden states and weights are (4) and (5) of :mod:`~manual_grad.engine.linear`, for each of
the two projections.

.. math::
    \frac{\partial^2 \ell}{\partial b_i\, \partial b_j} = \frac{\partial r_i}{\partial z_j}, \qquad
    \frac{\partial^2 \ell}{\partial b_i\, \partial \tilde b_j} = \frac{\partial r_i}{\partial y_j}, \qquad
    \frac{\partial^2 \ell}{\partial \tilde b_i\, \partial \tilde b_j} = \frac{\partial s_i}{\partial y_j} \tag{5}

**Kinks.** Those of the rows: total variation has one where :math:`p_c = q_c`, and there the slope is 0.

**Shapes and domain.** Hidden states are :math:`(\dots, D)` and :math:`(\dots, \tilde D)`, the weights :math:`(C, D)`
and :math:`(C, \tilde D)`, the biases :math:`(C)`.

Sources:

1. Pin-Lun Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training" (2024),
   `arXiv:2410.10989 <https://arxiv.org/abs/2410.10989>`_.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, divergence, linear, policy
from manual_grad.engine.dtypes import autocast_is_on, compute_dtype, widen
from manual_grad.engine.function import Call, Options, Reduction, Tensors, evaluate
from manual_grad.losses.rowwise.distillation_loss import DistillationLossFunction


class LinearDistillationLossFunction(linear.LinearLoss):
    """``apply(x, W, b, x_t, W_t, b_t, w, dtype, divergence, beta, temperature, dtype, reduction)``.

    ``x`` is (N, D), ``W`` is (C, 1, D), ``b`` is (C, 1) or None; likewise the teacher's. ``w`` is (N, 1) or None. The
    loss and the scores have the dtype ``dtype``.
    """

    tensors = 7
    rowwise = DistillationLossFunction

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, *options: Any) -> Tensor | float:
        return loss.numel()

    @classmethod
    def value(cls, X: Tensors, dtype: torch.dtype, *options: Any) -> Tensor:
        def block(x: Tensor, x_t: Tensor, w: Tensor) -> tuple[Tensors, Tensors]:
            S = _scores(x, x_t, w, X, dtype)
            return (cls.rowwise.value(widen(S, compute_dtype(S[0])), *options),), ()

        return linear.by_blocks(block, cls.most_rows(X), X[0], X[3], X[6])[0]

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, dtype: torch.dtype, *options: Any) -> Tensors:
        rowwise = Call(cls.rowwise, options)

        def block(x: Tensor, x_t: Tensor, w: Tensor, g: Tensor) -> tuple[Tensors, Tensors]:
            r, s, _ = rowwise.gradient(g, _scores(x, x_t, w, X, dtype))
            dx, *of_student = linear._back(r, x, X[1])  # (4)
            dx_t, *of_teacher = linear._back(s, x_t, X[4])
            return (dx, dx_t), (*of_student, *of_teacher)

        dx, dx_t, dW, db, dW_t, db_t = linear.by_blocks(block, cls.most_rows(X), X[0], X[3], X[6], g)
        return dx, dW, db, dx_t, dW_t, db_t, None

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, dtype: torch.dtype, *options: Any) -> Tensors:
        rowwise = Call(cls.rowwise, options)

        def block(x: Tensor, x_t: Tensor, w: Tensor, g: Tensor, vx: Tensor, vx_t: Tensor) -> tuple[Tensors, Tensors]:
            S, dS = _scores(x, x_t, w, X, dtype), _moved(x, x_t, X, (vx, *v[1:3], vx_t, *v[4:]), dtype)
            slopes, changes = rowwise.gradient(g, S), rowwise.curvature(g, S, dS)
            parts = ((x, X[1], vx, v[1]), (x_t, X[4], vx_t, v[4]))
            own, shared = [], []
            for (x_i, W, vx_i, vW), r, dr in zip(parts, slopes[:2], changes[:2], strict=True):
                hx, hW, hb = linear.back_along(r, dr, x_i, W, vx_i, vW)
                own.append(hx)
                shared += [hW, hb]
            return tuple(own), tuple(shared)

        hx, hx_t, hW, hb, hW_t, hb_t = linear.by_blocks(block, cls.most_rows(X), X[0], X[3], X[6], g, v[0], v[3])
        return hx, hW, hb, hx_t, hW_t, hb_t, None

    @classmethod
    def along(cls, X: Tensors, v: Tensors, u: Tensors | None, dtype: torch.dtype, *options: Any) -> Tensor:
        """The derivative of the losses along v or, with ``u``, the second derivative along u and v."""
        rowwise = Call(cls.rowwise, options)
        u = (None,) * len(v) if u is None else u
        second = any(t is not None for t in u)

        def block(
            x: Tensor, x_t: Tensor, w: Tensor, vx: Tensor, vx_t: Tensor, ux: Tensor, ux_t: Tensor
        ) -> tuple[Tensors, Tensors]:
            S, along_v = _scores(x, x_t, w, X, dtype), _moved(x, x_t, X, (vx, *v[1:3], vx_t, *v[4:]), dtype)
            if not second:
                return (rowwise.along(S, along_v),), ()
            along_u = _moved(x, x_t, X, (ux, *u[1:3], ux_t, *u[4:]), dtype)
            both = (linear.bend(ux, u[1], vx, v[1], dtype), linear.bend(ux_t, u[4], vx_t, v[4], dtype))
            return (rowwise.along(S, along_v, along_u) + rowwise.along(S, (*both, None)),), ()

        return linear.by_blocks(block, cls.most_rows(X), X[0], X[3], X[6], v[0], v[3], u[0], u[3])[0]

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        x, C, w, dtype = X[0], len(X[1]), X[6], options[0]
        N = len(x)
        if N * C == 0:
            return None
        op = kernels.op(cls.rowwise.kernel, x.new_empty(0, dtype=dtype))
        # two models share what the scores of one, in float32, have elsewhere; a product in half precision is held too
        held = dtype.itemsize + max(0 if u.dtype is dtype else u.dtype.itemsize for u in (x, X[3]))
        most = (linear.SCORES_OF_FORMULAS if op is None else linear.most_scores(x)) * 4 // (2 * held)
        student = linear.Products(X[:3], dtype, needs[:3], most, whole=True)
        teacher = linear.Products(X[3:6], dtype, needs[3:6], most, whole=True)
        scale = cls.scale(X, options) if reduction == "mean" else 1.0
        up = x.new_full((N, 1), scale, dtype=dtype) if g is None else (g.to(dtype) * scale).expand(N, 1)
        losses = x.new_empty((N, 1), dtype=dtype) if value else None
        (every,) = student.classes
        for i in student.rows:
            S = student.scores(i, every), teacher.scores(i, every), None if w is None else w[i]
            r, s = (z if of.wanted else None for z, of in zip(S, (student, teacher), strict=False))
            loss = None if losses is None else losses[i]
            if op is not None:  # r and s take the place of the scores
                cls.rowwise.run(op, S, options[1:], 1.0, False, up[i], loss, r, s)
            else:
                if loss is not None:
                    loss.copy_(cls.rowwise.compute(S, options[1:], "none"))
                if r is not None or s is not None:
                    r, s, _ = Call(cls.rowwise, options[1:]).gradient(up[i], S)
            for of, d in ((student, r), (teacher, s)):
                if of.wanted:
                    of.add(i, every, d)  # (4)
        result = None if losses is None else cls.reduce(losses, X, options, reduction)
        return result, [*student.gradients(), *teacher.gradients(), None]


def _scores(x: Tensor, x_t: Tensor, w: Tensor | None, X: Tensors, dtype: torch.dtype) -> Tensors:
    """The arguments of the loss of rows: (1) for student and teacher, and the weight."""
    return linear.projected(x, X[1], X[2]).to(dtype), linear.projected(x_t, X[4], X[5]).to(dtype), w


def _moved(x: Tensor, x_t: Tensor, X: Tensors, v: Tensors, dtype: torch.dtype) -> Tensors:
    """The directional derivative of :func:`_scores`."""
    vx, vW, vb, vx_t, vW_t, vb_t, _ = v
    return linear.moved(x, X[1], vx, vW, vb, dtype), linear.moved(x_t, X[4], vx_t, vW_t, vb_t, dtype), None


@arguments.functional
def _of_rows(
    x: Tensor, W: Tensor, b: Tensor | None, x_t: Tensor, W_t: Tensor, b_t: Tensor | None, w: Tensor | None,
    dtype: torch.dtype, divergence: str, beta: float, temperature: float, reduction: str,
) -> Tensor:  # fmt: skip
    """The loss; a single node in a graph of torch.compile."""
    rows = x.shape[:-1]
    if w is not None:
        kept = (w != 0).unsqueeze(-1)
        x, x_t = torch.where(kept, x, 0), torch.where(kept, x_t, 0)  # what does not count may hold NaN
        w = w.reshape(-1, 1)
    sides = []
    for x_i, W_i, b_i in ((x, W, b), (x_t, W_t, b_t)):
        C, D = W_i.shape
        sides += [x_i.reshape(-1, D), W_i.reshape(C, 1, D), None if b_i is None else b_i.reshape(C, 1)]
    with torch.autocast(x.device.type, enabled=False) if autocast_is_on() else nullcontext():
        options = divergence, beta, temperature, dtype
        result = evaluate(LinearDistillationLossFunction, *sides, w, dtype, *options, reduction)
    return result.reshape(rows) if reduction == "none" else result


@arguments.overridable
def linear_distillation_loss(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Divergence of a student from a teacher, whose scores ``hidden @ weight.T + bias`` are never stored whole.

    Args:
        hidden: The student's hidden states, floating point, of shape (…, D).
        weight: The weight of the layer that scores the student's classes, of shape (C, D), in the same dtype.
        teacher_hidden: The teacher's hidden states, floating point, of shape (…, D'), where D' may differ from D.
        teacher_weight: The weight of the teacher's layer, of shape (C, D'), in the dtype of ``teacher_hidden``.
        divergence: 'forward_kl' (of the teacher from the student), 'reverse_kl' (of the student from the teacher),
            'jsd' (generalised Jensen-Shannon) or 'tv' (total variation).
        beta: The teacher's share of the mixture in 'jsd', in [0, 1]; there, 0 stands for 'forward_kl' and 1 for
            'reverse_kl', as in TRL.
        temperature: Divides the scores of both; positive. The result is multiplied by its square.
        bias: Optional bias of the student's layer, of shape (C).
        teacher_bias: Optional bias of the teacher's layer, of shape (C).
        mask: Optional weight of each row, of any real dtype or bool, broadcast to the shape (…): 0 for a row that does
            not count, which may hold anything, even NaN. It gets no gradient.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all rows) or 'sequence' (the mean over sequences, along
            the last dimension of (…), of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the rows of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of shape (…). It is float32 for halves and under autocast, else of the dtype of
        the hidden states. All hidden states, weights and biases may require gradients; of what does not, such as a
        frozen teacher, nothing is computed but the scores. Where no row counts, the means are 0.

    Raises:
        RuntimeError: shapes or dtypes that do not fit.
        ValueError: ``divergence`` or ``reduction`` is unknown, ``beta`` is not in [0, 1], ``temperature`` is not
            positive and finite, or there is a ``normalizer`` without reduction='mean'.
        TypeError: an argument has another type.
        NotImplementedError: the hidden states are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import linear_distillation_loss
        >>> hidden, weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> teacher_hidden, teacher_weight = torch.tensor([[2.0], [1.0]]), torch.tensor([[1.0], [0.0], [1.0]])
        >>> linear_distillation_loss(hidden, weight, teacher_hidden, teacher_weight, temperature=2.0)
        tensor(0.3792)
    """
    name = "linear_distillation_loss"
    sides = ("", hidden, weight, bias), ("teacher_", teacher_hidden, teacher_weight, teacher_bias)
    cast: list[Any] = []
    for side, x, W, b in sides:
        cast += linear.operands(name, x, W, b, side)
    if teacher_weight.shape[0] != weight.shape[0]:
        raise RuntimeError(
            f"teacher_weight: expected {weight.shape[0]} classes, those of weight, but got {teacher_weight.shape[0]}"
        )
    if teacher_hidden.shape[:-1] != hidden.shape[:-1]:
        raise RuntimeError(
            f"teacher_hidden: expected shape {[*hidden.shape[:-1], 'D']}, as hidden has shape {list(hidden.shape)}, "
            f"but got {list(teacher_hidden.shape)}"
        )
    of = _divergence(name, divergence, beta)
    temperature = arguments.positive(name, "temperature", temperature)
    dtype = linear.row_dtype(torch.promote_types(cast[0].dtype, cast[3].dtype))
    rows = hidden.new_empty(hidden.shape[:-1], dtype=dtype)
    w, reduction = policy.row_shares(name, mask, rows, reduction, normalizer)
    return _of_rows(*cast, w, dtype, of.name, of.beta, temperature, reduction)  # type: ignore[call-arg, arg-type]


_divergence = divergence.of_options  # the argument of that name hides the module


class LinearDistillationLoss(divergence.DistillationModule):
    """:func:`linear_distillation_loss` as a module; the layers that score the classes remain where they are."""

    def forward(
        self, hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor,
        bias: Tensor | None = None, teacher_bias: Tensor | None = None, mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        return linear_distillation_loss(
            hidden, weight, teacher_hidden, teacher_weight, self.divergence, self.beta, self.temperature, bias,
            teacher_bias, mask, self.reduction,
        )  # fmt: skip
