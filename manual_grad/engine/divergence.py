r"""Divergences of two distributions over the same classes, without cancellation where the two are nearly equal.

**What is computed.** :math:`p` and :math:`q` are probabilities, of a student and of a teacher, and
:math:`u_c = \log p_c - \log q_c`. A divergence is a sum of :math:`q_c f(e^{u_c})`. As :math:`p` and :math:`q` have the
same sum, a multiple of :math:`p_c - q_c` may be added to each term; with the one that makes the slope of :math:`f` at 1
vanish, no term is negative. The losses of distillation derive the terms and their slopes in their chapters:

============  =============================================================================  =======================
name          term                                                                           slope :math:`h` by p
============  =============================================================================  =======================
forward_kl    :math:`q\,(e^u - 1 - u)`                                                       :math:`1 - e^{-u}`
reverse_kl    :math:`p\,(e^{-u} - 1 + u)`                                                    :math:`u`
jsd           :math:`\beta q\,(e^w - 1 - w) + (1 - \beta)\, p\,(e^v - 1 - v)`                :math:`-(1 - \beta)\, v`
tv            :math:`|p - q| / 2`                                                            :math:`\mathrm{sign}(u)/2`
============  =============================================================================  =======================

with :math:`v = \log(m / p)` and :math:`w = \log(m / q)` for the mixture :math:`m = \beta q + (1 - \beta) p`. Exchanging
student and teacher exchanges :math:`p` and :math:`q`, changes the sign of :math:`u`, and makes another of these
divergences of the divergence (:meth:`Divergence.exchanged`); so the gradient of the teacher is that of a student.

**The log-ratio** is a difference of two logarithms of about the same size. With scores :math:`x` and :math:`t`, each
relative to the largest of its row, it is a difference of two that are as small as the result:

.. math::
    u_c = \delta_c - \log \frac{\sum_j e^{x_j}}{\sum_j e^{t_j}}, \qquad \delta_c = x_c - t_c, \qquad
    \frac{\sum_j e^{x_j}}{\sum_j e^{t_j}} = 1 + \frac{\sum_j e^{t_j} (e^{\delta_j} - 1)}{\sum_j e^{t_j}}
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import exp_minus_1, exp_remainder, size, times
from manual_grad.engine.softmax import State

NAMES = ("forward_kl", "reverse_kl", "jsd", "tv")  # in the order in which the kernels number them
_EXCHANGED = {"forward_kl": "reverse_kl", "reverse_kl": "forward_kl"}


class Divergence(NamedTuple):
    """One of :data:`NAMES`; ``beta`` is the teacher's share of the mixture in 'jsd', and is not used by the others."""

    name: str
    beta: float

    def exchanged(self) -> Divergence:
        """The same divergence, with the roles of student and teacher exchanged."""
        return Divergence(_EXCHANGED.get(self.name, self.name), 1 - self.beta)

    def terms(self, p: Tensor, q: Tensor, u: Tensor) -> Tensor:
        """One term for each class, none of them negative."""
        if self.name == "reverse_kl":
            return self.exchanged().terms(q, p, -u)
        if self.name == "tv":
            return 0.5 * size(difference(p, q, u))
        near = size(u) < 1
        small = torch.where(near, u, 0)
        if self.name == "forward_kl":
            return torch.where(near, q * exp_remainder(small), p - q - times(q, u))
        (w, v), (w_small, v_small) = self.mixture(u), self.mixture(small)
        close = self.beta * q * exp_remainder(w_small) + (1 - self.beta) * p * exp_remainder(v_small)
        return torch.where(near, close, -self.beta * times(q, w) - (1 - self.beta) * times(p, v))

    def slope(self, p: Tensor, q: Tensor, u: Tensor, leader: Tensor, dim: int) -> Tensor:
        """The gradient by the student's logits, whose largest is that of the class ``leader``.

        It is p_j times the difference of h_j and the mean of h. Both are taken relative to the h of the leader, which
        makes up most of the mean if the student is sure.
        """
        if self.name == "forward_kl":  # p h = p - q, whose sum is 0
            return difference(p, q, u)
        ahead = self.h_ahead(u, u.gather(dim, leader))
        return times(p, ahead - times(p, ahead).sum(dim, keepdim=True))

    def h_ahead(self, u: Tensor, lead: Tensor) -> Tensor:
        r"""How far h is above that of a class with the log-ratio ``lead``.

        Far from the teacher, the h of 'jsd' are nearly the same number. There, the difference of the v is computed by

        .. math::
            v - v' = \log(1 + e^{\gamma} (e^{-u} - e^{-u'})), \qquad \gamma = \log \beta - v'
        """
        if self.name != "jsd":
            return torch.where(u == lead, 0, self.h(u) - self.h(lead))
        exponent = math.log(self.beta) - self.mixture(lead)[1] - torch.minimum(u, lead)
        apart = torch.where(u == lead, 0, u - lead)
        change = torch.where(apart < 0, -apart.clamp_max(0).expm1(), (-apart).clamp_max(0).expm1())
        # a large exponential is the sum, and might overflow
        large = exponent > 40
        near = (torch.where(large | (u == lead), 0, exponent).exp() * change).log1p()
        return (self.beta - 1) * torch.where(large & (apart < 0), exponent, near)

    def h(self, u: Tensor) -> Tensor:
        """The slope of a term by p; for the forward KL divergence, :func:`difference` takes its place."""
        if self.name == "reverse_kl":
            return u
        if self.name == "tv":
            return 0.5 * torch.sign(u)
        return (self.beta - 1) * self.mixture(u)[1]

    def h_slope(self, u: Tensor) -> Tensor:
        """The derivative of :meth:`h` by u."""
        if self.name == "reverse_kl":
            return torch.ones_like(u)
        if self.name == "tv":
            return torch.zeros_like(u)
        return (1 - self.beta) * torch.sigmoid(math.log(self.beta / (1 - self.beta)) - u)

    def curvature(self, p: Tensor, q: Tensor, u: Tensor, xi: Tensor, eta: Tensor, dim: int) -> Tensor:
        """How :meth:`slope` changes when log p changes by ``xi`` and log q by ``eta``."""
        if self.name == "forward_kl":
            return p * xi - q * eta

        def mean(s: Tensor) -> Tensor:
            return times(p, s).sum(dim, keepdim=True)

        h = self.h(u)
        change = xi * (h - mean(h)) + self.h_slope(u) * (xi - eta)
        return times(p, change - mean(change))

    def mixture(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """w and v, by the exponential that does not overflow."""
        w = ((1 - self.beta) * exp_minus_1(u.clamp_max(0))).log1p()
        v = (self.beta * exp_minus_1((-u).clamp_max(0))).log1p()
        return torch.where(u > 0, v + u, w), torch.where(u > 0, v, w - u)


def difference(p: Tensor, q: Tensor, u: Tensor) -> Tensor:
    """p - q for p = q e^u."""
    near = size(u) < 1
    return torch.where(near, q * exp_minus_1(torch.where(near, u, 0)), p - q)


class Pair(NamedTuple):
    """Student and teacher of each row: p, q, u, and the classes that lead them."""

    p: Tensor
    q: Tensor
    u: Tensor
    leader: Tensor
    leader_of_teacher: Tensor

    @classmethod
    def of(cls, x: Tensor, t: Tensor, temperature: float, dim: int) -> Pair:
        """Of scores, to be divided by the temperature."""
        m_x, m_t = (s.max(dim, keepdim=True).values for s in (x, t))
        of_x, of_t = (State.of((s - m) / temperature) for s, m in ((x, m_x), (t, m_t)))
        e_x, e_t = (((s - m) / temperature).exp() for s, m in ((x, m_x), (t, m_t)))
        ruled_out = (x == -math.inf) & (t == -math.inf)  # by both: such a class does not matter
        # of two equal differences, the one of smaller terms, so that neither a small one nor a common offset is rounded
        direct, to_leaders = x - t, (m_x - x) + (m_t - t)
        delta = torch.where(size(direct) < to_leaders, direct - (m_x - m_t), (m_t - t) - (m_x - x))
        delta = torch.where(ruled_out, 0, delta) / temperature
        s_x, s_t = 1 + of_x.rest, 1 + of_t.rest
        moved = difference(e_x, e_t, delta).sum(dim, keepdim=True) / s_t
        close = size(moved) <= 0.5
        ratio = torch.where(close, torch.where(close, moved, 0).log1p(), of_x.rest.log1p() - of_t.rest.log1p())
        return cls(e_x / s_x, e_t / s_t, delta - ratio, of_x.leader, of_t.leader)


def of_options(name: str, divergence: str, beta: float) -> Divergence:
    """The divergence that a caller asks for, by the convention of TRL: 'jsd' with beta 0 or 1 is a KL divergence."""
    if not isinstance(divergence, str):
        raise TypeError(f"{name}(): argument 'divergence' must be str, not {type(divergence).__name__}")
    if divergence not in NAMES:
        raise ValueError(f"{name}(): argument 'divergence' must be one of {', '.join(NAMES)}, but got {divergence!r}")
    beta = arguments.real(name, "beta", beta)
    if not 0 <= beta <= 1:
        raise ValueError(f"{name}(): argument 'beta' must be in [0, 1], but got {beta}")
    if divergence == "jsd" and beta in (0, 1):
        divergence = "reverse_kl" if beta else "forward_kl"
    return Divergence(divergence, beta)


class DistillationModule(torch.nn.Module):
    """What the Modules of distillation share."""

    def __init__(
        self, divergence: str = "forward_kl", beta: float = 0.5, temperature: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.divergence, self.beta, self.temperature, self.reduction = divergence, beta, temperature, reduction

    def extra_repr(self) -> str:
        return (
            f"divergence={self.divergence!r}, beta={self.beta}, temperature={self.temperature}, "
            f"reduction={self.reduction!r}"
        )
