r"""The state of a softmax: a summary of the scores of some of the classes of a row, to be merged with others.

**What is kept.** For a set :math:`S` of classes with scores :math:`z`, keep the leader (the first class with the
largest score), its score, and the sum of the exponentials of the other classes relative to it:

.. math::
    k(S) = \operatorname{argmax}_{c \in S} z_c, \qquad m(S) = z_{k(S)}, \qquad
    \rho(S) = \sum_{c \in S,\, c \ne k(S)} e^{z_c - m(S)} \tag{1}

The leader's own term, 1, is left out because adding it would round off :math:`\rho` if the leader is far ahead. A loss
that weights the classes by :math:`q_c` (from a label, a distribution or label smoothing) keeps two more sums and the
leader's :math:`q_k`; one that needs the entropy keeps one more:

.. math::
    \bar q(S) = \sum_{c \in S,\, c \ne k(S)} q_c, \qquad \delta(S) = \sum_{c \in S} q_c\, (m(S) - z_c), \qquad
    \tau(S) = \sum_{c \in S,\, c \ne k(S)} e^{z_c - m(S)}\, (m(S) - z_c) \tag{2}

**Union.** The states of two disjoint sets determine the state of their union. Let :math:`T` be the one with the smaller
maximum and :math:`\gamma = m(S) - m(T) \ge 0`. The exponentials of :math:`T` shrink by :math:`e^{-\gamma}`, its
distances grow by :math:`\gamma`, and its leader joins the other classes:

.. math::
    \rho(S \cup T) = \rho(S) + e^{-\gamma}\, (1 + \rho(T)), \qquad \gamma = m(S) - m(T) \ge 0 \tag{3}

.. math::
    \bar q(S \cup T) = \bar q(S) + Q(T), \qquad \delta(S \cup T) = \delta(S) + \delta(T) + \gamma\, Q(T), \qquad
    Q(S) = q_{k(S)} + \bar q(S) \tag{4}

.. math::
    \tau(S \cup T) = \tau(S) + e^{-\gamma}\, \big(\tau(T) + \gamma\, (1 + \rho(T))\big) \tag{5}

No term is negative (for non-negative weights), so no digits are lost, however far the leader is ahead and in whatever
order the sets are merged. Sums rescaled to a running maximum are due to Milakov and Gimelshein [1]; they keep the
softmax from overflowing. Leaving out the leader also preserves its digits.

**Finish.** For the set :math:`A` of all classes,

.. math::
    \mathrm{lse}(z) = \log \sum_c e^{z_c} = m(A) + \log(1 + \rho(A)), \qquad
    \ell = \sum_c q_c\, (\mathrm{lse}(z) - z_c) = \delta(A) + Q(A) \log(1 + \rho(A)) \tag{6}

.. math::
    p_c = \frac{e^{z_c - m(A)}}{1 + \rho(A)}, \qquad
    H = -\sum_c p_c \log p_c = \log(1 + \rho(A)) + \bar\tau, \qquad
    \bar\tau = \frac{\tau(A)}{1 + \rho(A)} \tag{7}

Computed as the difference of :math:`\mathrm{lse}(z)` and the mean score, the entropy has no correct digit left in
float32 once the leader is 20 ahead. In (7) nothing is subtracted.

**Slope.** The derivative of the log-sum-exp is the softmax :math:`p`, and :math:`p_k` is rounded before 1 is subtracted
from it. But :math:`1 - p_k = \rho / (1 + \rho)` is known to its last digit:

.. math::
    \frac{\partial \ell}{\partial z_c} = Q(A)\, p_c - q_c, \qquad
    \frac{\partial \ell}{\partial z_{k(A)}} = \bar q(A) - \frac{Q(A)\, \rho(A)}{1 + \rho(A)} \tag{8}

The second form is for a leader with more than half of the probability; with less, the first is the accurate one. In the
derivative of the entropy, the terms :math:`\log(1 + \rho)` of :math:`\log p_c` and of :math:`H` cancel:

.. math::
    \frac{\partial H}{\partial z_c} = -p_c\, (\log p_c + H) = p_c\, (m(A) - z_c - \bar\tau) \tag{9}

A score of :math:`-\infty` rules out its class, and a set of such classes adds nothing to another. If all classes are
ruled out, or if a score is :math:`+\infty` or NaN, there is no softmax and everything is NaN.

The cross entropy kernels compute the same sums in their own loops.

Sources:

1. Maxim Milakov and Natalia Gimelshein, "Online normalizer calculation for softmax" (2018),
   `arXiv:1805.02867 <https://arxiv.org/abs/1805.02867>`_.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from manual_grad.engine.rowwise import class_dim


class State(NamedTuple):
    """(1) and (2) for some classes of each row; every tensor has the scores' shape with class dimension 1.

    Autograd can differentiate through :func:`slope`, :func:`entropy_slope` and :func:`distances`. The derivatives of
    :func:`finish` and :func:`entropy` are :func:`slope` and :func:`entropy_slope`.
    """

    m: Tensor
    leader: Tensor
    rest: Tensor  # rho
    q: Tensor | None = None  # of the leader
    rest_q: Tensor | None = None
    distance: Tensor | None = None  # delta
    tau: Tensor | None = None

    @classmethod
    def of(
        cls, z: Tensor, q: Tensor | None = None, first: int = 0, *, value: bool = False, entropy: bool = False
    ) -> State:
        """The state of classes ``first``, … with scores z, laid out as in :mod:`~manual_grad.engine.rowwise`.

        ``q``, of the scores' shape, is required by :func:`slope`, and ``value`` by :func:`finish`.
        """
        dim = class_dim(z)
        m, leader = z.max(dim, keepdim=True)

        def others(u: Tensor) -> Tensor:
            return u.scatter(dim, leader, 0).sum(dim, keepdim=True)

        gap = torch.where(m == -math.inf, 0, m) - z
        e = (-gap).exp()
        # The leader's e is 1, NaN in a row without a leader, or 0 if its score is -inf, which makes 1 + rest 0 too.
        # (0 * m would also give the NaN, but inductor simplifies it to 0.)
        rest = others(e) + (e.gather(dim, leader) - 1).detach()
        own = rest_q = distance = tau = None
        if q is not None:
            own, rest_q = q.gather(dim, leader), others(q)
        if value:
            distance = torch.where((q == 0) | (gap == 0), 0, q * gap).sum(dim, keepdim=True)  # 0 log 0 = 0, inf 0 = 0
        if entropy:
            tau = others(e * torch.where(gap == math.inf, 0, gap))
        return cls(m, leader + first, rest, own, rest_q, distance, tau)  # (1) (2)

    def union(self, other: State) -> State:
        """The state of both sets of classes."""
        ahead = torch.where(self.m == other.m, self.leader < other.leader, self.m > other.m)
        a, b = (
            State(*(u if u is None else torch.where(which, u, v) for u, v in zip(self, other, strict=True)))
            for which in (ahead, ~ahead)
        )
        gap = torch.where(a.m == b.m, 0, a.m - b.m)
        shrink, exponentials = (-gap).exp(), 1 + b.rest
        rest_q = distance = tau = None
        if a.q is not None:
            rest_q = a.rest_q + b.total
        if a.distance is not None:
            distance = a.distance + (b.distance + torch.where((gap == 0) | (b.total == 0), 0, gap * b.total))
        if a.tau is not None:
            tau = a.tau + torch.where(shrink == 0, 0, shrink * (b.tau + gap * exponentials))
        return State(a.m, a.leader, a.rest + shrink * exponentials, a.q, rest_q, distance, tau)  # (3) (4) (5)

    @property
    def total(self) -> Tensor:
        """Q."""
        return self.q + self.rest_q

    def finish(self) -> Tensor:
        """The loss (6), for the state of all classes."""
        return self.distance + self.total * self.rest.log1p()

    def entropy(self) -> Tensor:
        """H of (7)."""
        return self.rest.log1p() + self._mean_gap()

    def distances(self, z: Tensor) -> Tensor:
        """-log p of the classes with scores z."""
        return (self.m - z) + self.rest.log1p()

    def slope(self, z: Tensor, q: Tensor) -> Tensor:
        """The derivative of the loss with respect to scores z with weights q."""
        p, total = self.probabilities(z), self.total
        sure = (p > 0.5) & total.isfinite()  # with an infinite Q, rest_q - Q (…) may be inf - inf
        return torch.where(sure, self.rest_q - total * (self.rest / (1 + self.rest)), total * p - q)  # (8)

    def entropy_slope(self, z: Tensor) -> Tensor:
        """The derivative of the entropy with respect to scores z."""
        return self.probabilities(z) * self.excess(z)  # (9)

    def excess(self, z: Tensor) -> Tensor:
        """How much further than on average scores z are behind the leader; 0 - the average for one of -inf."""
        gap = self.m - z
        return torch.where(gap == math.inf, 0, gap) - self._mean_gap()

    def probabilities(self, z: Tensor) -> Tensor:
        """p of the classes with scores z."""
        return (z - self.m).exp() / (1 + self.rest)

    def _mean_gap(self) -> Tensor:
        return self.tau / (1 + self.rest)
