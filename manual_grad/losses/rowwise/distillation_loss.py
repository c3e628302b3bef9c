r"""Distillation: the divergence of a student's distribution over the classes from a teacher's.

**Where it comes from.** A small model learns from a large one by matching its probabilities instead of hard labels.
Hinton et al. [1] divide both models' scores :math:`x` and :math:`t` by a temperature :math:`T`, which brings out the
small probabilities, in which a teacher's knowledge lies:

.. math::
    z_c = \frac{x_c}{T}, \qquad y_c = \frac{t_c}{T}, \qquad
    p_c = \frac{e^{z_c}}{\sum_j e^{z_j}}, \qquad q_c = \frac{e^{y_c}}{\sum_j e^{y_j}} \tag{1}

**Definition.** :math:`D = 1` is the forward KL divergence, of [1], which spreads the student over all that the teacher
may say; :math:`D = 2` the reverse one, of MiniLLM [2], under which it keeps to what the teacher is sure of;
:math:`D = 3` the generalised Jensen-Shannon divergence of GKD [3], with the share :math:`\beta` of the teacher in a
mixture :math:`m`; and :math:`D = 4` the total variation:

.. math::
    \ell = T^2 \begin{cases}
    \sum_c q_c \log(q_c / p_c) & D = 1 \\
    \sum_c p_c \log(p_c / q_c) & D = 2 \\
    \sum_c (\beta\, q_c \log(q_c / m_c) + (1 - \beta)\, p_c \log(p_c / m_c)) & D = 3 \\
    \sum_c |p_c - q_c| / 2 & D = 4
    \end{cases}, \qquad m_c = \beta\, q_c + (1 - \beta)\, p_c \tag{2}

Gradients by the scores shrink as :math:`1 / T^2`. The factor :math:`T^2`, of [1], makes up for that, so that a change
of the temperature does not change the weight of this loss beside others. TRL leaves it out: its loss is this one
divided by :math:`T^2`.

The Jensen-Shannon divergence itself vanishes as :math:`\beta` approaches 0 or 1; divided by :math:`\beta`, or by
:math:`1 - \beta`, it approaches the forward, or the reverse, KL divergence. As in TRL, those two are what ``'jsd'``
stands for at :math:`\beta = 0` and at :math:`\beta = 1`; there, it is not continuous in :math:`\beta`.

**Stable form.** A student that has learned is close to its teacher, and the terms of (2) are then of both signs and
much larger than their sum. But :math:`p` and :math:`q` have the same sum, so a multiple of :math:`p_c - q_c` may be
added to each term, and with the right one no term is negative. In terms of the log-ratio :math:`u`,

.. math::
    \ell = T^2 \sum_c f_c, \qquad f_c = \begin{cases}
    q_c\, (e^{u_c} - 1 - u_c) & D = 1 \\
    p_c\, (e^{-u_c} - 1 + u_c) & D = 2 \\
    \beta\, q_c\, (e^{w_c} - 1 - w_c) + (1 - \beta)\, p_c\, (e^{v_c} - 1 - v_c) & D = 3 \\
    |p_c - q_c| / 2 & D = 4
    \end{cases}, \qquad u_c = \log p_c - \log q_c \tag{3}

.. math::
    w_c = \log(m_c / q_c) = \log(1 + (1 - \beta)\, (e^{u_c} - 1)), \qquad
    v_c = \log(m_c / p_c) = \log(1 + \beta\, (e^{-u_c} - 1)) \tag{4}

where :math:`e^u - 1 - u` is summed as a series where :math:`u` is small, as in
:mod:`~manual_grad.losses.pointwise.sampled_kl`. The log-ratio is a small difference, too. Let :math:`k` be the leader
of the student, the class with the largest score, and :math:`l` that of the teacher. Then

.. math::
    u_c = \delta_c - \log(1 + \sigma), \qquad \delta_c = (z_c - y_c) - (z_k - y_l), \qquad
    \sigma = \frac{\sum_j e^{y_j - y_l}\, (e^{\delta_j} - 1)}{\sum_j e^{y_j - y_l}} \tag{5}

The usual form has no correct digit where the student is close, and is negative:

>>> import torch
>>> from manual_grad.functional import distillation_loss
>>> t = torch.tensor([20.0, 0.0, 0.0])
>>> x = t + torch.tensor([0.0, 0.001, 0.0])
>>> usual = torch.nn.functional.kl_div(x.log_softmax(0), t.log_softmax(0), log_target=True, reduction="sum")
>>> f"{usual:.1e}", f"{distillation_loss(x, t):.1e}"
('-2.1e-12', '1.0e-15')

**Gradient.** Let :math:`h` be the derivative of :math:`f_c` by :math:`p_c`, and :math:`g` that by :math:`q_c`:

.. math::
    h_c = \begin{cases} 1 - e^{-u_c} & D = 1 \\ u_c & D = 2 \\ -(1 - \beta)\, v_c & D = 3 \\ s_c / 2 & D = 4
    \end{cases}, \qquad s_c = [u_c > 0] - [u_c < 0] \tag{6}

.. math::
    g_c = \begin{cases} -u_c & D = 1 \\ 1 - e^{u_c} & D = 2 \\ -\beta\, w_c & D = 3 \\ -s_c / 2 & D = 4
    \end{cases} \tag{7}

.. math::
    \frac{\partial \ell}{\partial x_j} = T\, p_j\, (h_j - \bar h), \qquad \bar h = \sum_c p_c\, h_c, \qquad
    \frac{\partial \ell}{\partial t_j} = T\, q_j\, (g_j - \bar g), \qquad \bar g = \sum_c q_c\, g_c \tag{8}

Exchanging the roles of student and teacher turns :math:`h` into :math:`g`: it exchanges :math:`p` and :math:`q`,
changes the sign of :math:`u`, exchanges the KL divergences, and :math:`\beta` and :math:`1 - \beta`. For
:math:`D = 1`, :math:`p_j\, (h_j - \bar h)` is :math:`p_j - q_j`, computed from :math:`u_j` where that is small. For the
others both terms of the difference are taken relative to the leader, of which the mean consists if the student is
sure. For :math:`D = 3`, where :math:`h` hardly changes far from the teacher, their difference is computed as one
logarithm:

.. math::
    h_j - \bar h = (h_j - h_k) - \sum_c p_c\, (h_c - h_k), \qquad
    v_j - v_k = \log\big(1 + e^{\gamma}\, (e^{-u_j} - e^{-u_k})\big), \qquad \gamma = \log \beta - v_k \tag{9}

**Kinks.** Total variation has one where :math:`p_c = q_c`. There :math:`s_c = 0`, as in torch's ``abs``: the mean of
the slopes on both sides.

**Second derivative.** Along a direction :math:`\dot x, \dot t`, the logarithms of :math:`p` and :math:`q` change by

.. math::
    \xi_c = \dot z_c - \sum_j p_j\, \dot z_j, \qquad \eta_c = \dot y_c - \sum_j q_j\, \dot y_j, \qquad
    \dot u_c = \xi_c - \eta_c \tag{10}

.. math::
    \dot h_c = \dot u_c \begin{cases} e^{-u_c} & D = 1 \\ 1 & D = 2 \\
    \frac{\beta\, (1 - \beta)}{\beta + (1 - \beta)\, e^{u_c}} & D = 3 \\ 0 & D = 4 \end{cases}, \qquad
    \dot g_c = -\dot u_c \begin{cases} 1 & D = 1 \\ e^{u_c} & D = 2 \\
    \frac{\beta\, (1 - \beta)}{(1 - \beta) + \beta\, e^{-u_c}} & D = 3 \\ 0 & D = 4 \end{cases} \tag{11}

.. math::
    (H v)_{x_j} = T\, p_j\, \Big(\xi_j\, (h_j - \bar h) + \dot h_j - \sum_c p_c\, (\xi_c\, h_c + \dot h_c)\Big), \qquad
    (H v)_{t_j} = T\, q_j\, \Big(\eta_j\, (g_j - \bar g) + \dot g_j - \sum_c q_c\, (\eta_c\, g_c + \dot g_c)\Big)
    \tag{12}

For :math:`D = 1` the first is :math:`T\, (p_j\, \xi_j - q_j\, \eta_j)`, and for :math:`D = 2` so is, with the signs
changed, the second.

**Shapes and domain.** The scores of student and teacher have one shape, :math:`(\dots, C)`, with the classes last. A
score of :math:`-\infty` rules out a class: a class that both rule out does not matter; one that only the student rules
out makes the forward KL divergence infinite, and one that only the teacher rules out the reverse one. A row without a
finite leader is NaN.

Sources:

1. Geoffrey Hinton, Oriol Vinyals and Jeff Dean, "Distilling the Knowledge in a Neural Network" (2015),
   `arXiv:1503.02531 <https://arxiv.org/abs/1503.02531>`_.
2. Yuxian Gu, Li Dong, Furu Wei and Minlie Huang, "MiniLLM: Knowledge Distillation of Large Language Models" (2023),
   `arXiv:2306.08543 <https://arxiv.org/abs/2306.08543>`_.
3. Rishabh Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes" (2023),
   `arXiv:2306.13649 <https://arxiv.org/abs/2306.13649>`_, equation 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, divergence, policy
from manual_grad.engine.divergence import Divergence, Pair
from manual_grad.engine.dtypes import dtype_of_loss, promote
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss, class_dim


class DistillationLossFunction(RowwiseLoss):
    """``apply(input, teacher, w, divergence, beta, temperature, dtype, reduction)``.

    ``input`` and ``teacher`` are (C) or (N, C, d1, …); ``w``, the weight of each row, has their shape without the C, or
    is None. The loss has the dtype ``dtype``.
    """

    tensors = 3
    kernel = "distillation_loss"

    @classmethod
    def dtype(cls, X: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype) -> torch.dtype:
        return dtype

    @staticmethod
    def value(X: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype) -> Tensor:
        x, t, w = _kept(X)
        dim = class_dim(x)
        p, q, u, *_ = Pair.of(x, t, temperature, dim)
        return policy.counted(Divergence(name, beta).terms(p, q, u).sum(dim) * temperature**2, w)  # (3)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype) -> Tensors:
        x, t, w = _kept(X)
        dim, of = class_dim(x), Divergence(name, beta)
        p, q, u, leader, leader_of_teacher = Pair.of(x, t, temperature, dim)
        up = policy.counted(temperature * g, w).unsqueeze(dim)
        dx = of.slope(p, q, u, leader, dim)
        dt = of.exchanged().slope(q, p, -u, leader_of_teacher, dim)
        return up * dx, up * dt, None  # (8) (9)

    @staticmethod
    def curvature(
        g: Tensor, X: Tensors, v: Tensors, name: str, beta: float, temperature: float, dtype: torch.dtype
    ) -> Tensors:
        x, t, w = _kept(X)
        dim, of = class_dim(x), Divergence(name, beta)
        log_p, log_q = (x / temperature).log_softmax(dim), (t / temperature).log_softmax(dim)
        p, q = log_p.exp(), log_q.exp()
        u = torch.where((x == -math.inf) & (t == -math.inf), 0, log_p - log_q)

        def moved(p: Tensor, v: Tensor | None) -> Tensor:
            """How the logarithms of the probabilities change, (10)."""
            z = torch.zeros_like(p) if v is None else v / temperature
            return z - (p * z).sum(dim, keepdim=True)

        xi, eta = moved(p, v[0]), moved(q, v[1])
        up = policy.counted(temperature * g, w).unsqueeze(dim)
        hx = of.curvature(p, q, u, xi, eta, dim)
        ht = of.exchanged().curvature(q, p, -u, eta, xi, dim)
        return up * hx, up * ht, None  # (12)

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        (x, t, _), (*_, dtype) = X, options
        op = kernels.op(cls.kernel, x, t) if x.numel() else None
        if op is None:
            return None
        reduce = reduction != "none"
        loss = x.new_empty(() if reduce else cls.shape(X), dtype=dtype) if value else None
        dx, dt = (torch.empty_like(s) if needed else None for s, needed in zip((x, t), needs, strict=False))
        cls.run(op, X, options, cls.scale(X, options) if reduction == "mean" else 1.0, reduce, g, loss, dx, dt)
        return loss, [dx, dt, None]

    @staticmethod
    def run(
        op: Any, X: Tensors, options: Options, scale: float, reduce: bool, g: Tensor | None, loss: Tensor | None,
        dx: Tensor | None, dt: Tensor | None,
    ) -> None:  # fmt: skip
        """Write the loss and, for the upstream gradient ``g``, the gradients, which may overwrite the scores."""
        name, beta, temperature, _ = options
        op(*X, g, divergence.NAMES.index(name), beta, temperature, scale, reduce, loss, dx, dt)


def _kept(X: Tensors) -> Tensors:
    """The tensors, with zeros in the rows that do not count, which may hold anything."""
    x, t, w = X
    if w is None:
        return X
    kept = (w != 0).unsqueeze(class_dim(x))
    return torch.where(kept, x, 0), torch.where(kept, t, 0), w


@arguments.functional
def distillation_loss(
    input: Tensor,
    teacher: Tensor,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Divergence of a student's distribution over the classes from a teacher's, times the temperature squared.

    Args:
        input: The student's scores (any real numbers), floating point, of shape (…, C).
        teacher: The teacher's scores, of the same shape.
        divergence: 'forward_kl' (of the teacher from the student), 'reverse_kl' (of the student from the teacher),
            'jsd' (generalised Jensen-Shannon) or 'tv' (total variation).
        beta: The teacher's share of the mixture in 'jsd', in [0, 1]; there, 0 stands for 'forward_kl' and 1 for
            'reverse_kl', as in TRL.
        temperature: Divides the scores of both; positive. The result is multiplied by its square.
        mask: Optional weight of each row, of any real dtype or bool, broadcast to the shape (…): 0 for a row that does
            not count, which may hold anything, even NaN. It gets no gradient.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all rows) or 'sequence' (the mean over sequences, along
            the last dimension of (…), of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the rows of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of shape (…), in the promoted dtype (float32 under autocast, without a copy of
        the scores in float32). Both ``input`` and ``teacher`` may require gradients. Where no row counts, the means are
        0.

    Raises:
        ValueError: ``divergence`` or ``reduction`` is unknown, ``beta`` is not in [0, 1], ``temperature`` is not
            positive and finite, the shapes differ, or there is a ``normalizer`` without reduction='mean'.
        RuntimeError: ``mask`` does not broadcast to the shape (…).
        IndexError: ``input`` is 0-d.
        TypeError: an argument has another type.
        NotImplementedError: the scores are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import distillation_loss
        >>> student, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1.0, 1.0, 0.0]])
        >>> distillation_loss(student, teacher, temperature=2.0)
        tensor(0.4908)
        >>> distillation_loss(student, teacher, "jsd", beta=0.1)
        tensor(0.0400)
    """
    name = "distillation_loss"
    of = _divergence(name, divergence, beta)
    temperature = arguments.positive(name, "temperature", temperature)
    arguments.same_shape(name, "input", input, teacher=teacher)
    if not input.dim():
        raise IndexError(f"Dimension out of range: {name}'s input must have at least 1 dimension, got a scalar")
    x, t = promote(input, teacher)
    arguments.require_floating(name, x)
    dtype = dtype_of_loss(x)
    w, reduction = policy.row_shares(name, mask, x.new_empty(x.shape[:-1], dtype=dtype), reduction, normalizer)
    if x.dim() > 2:
        x, t = x.movedim(-1, 1), t.movedim(-1, 1)
    return evaluate(DistillationLossFunction, x, t, w, of.name, of.beta, temperature, dtype, reduction)


_divergence = divergence.of_options  # the argument of that name hides the module


class DistillationLoss(divergence.DistillationModule):
    """:func:`distillation_loss` as a module."""

    def forward(self, input: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return distillation_loss(input, teacher, self.divergence, self.beta, self.temperature, mask, self.reduction)
