r"""The state of a softmax as numbers of a row, and the merging of states: of blocks, of tiles, of processes.

:mod:`~manual_grad.engine.softmax` defines the state of some classes of a row, and the union of two. The kernels write
it as 3 numbers, or 6 with weights of the classes,

.. math::
    x_k, \qquad \rho, \qquad \bar\tau = \frac{\tau}{1 + \rho}, \qquad \delta, \qquad Q, \qquad \bar q \tag{1}

where :math:`x_k` is the largest *score*, of which a scale, a softcap and a temperature make the logit. Any number of
parts :math:`S` merge at once. With the largest of their leaders, :math:`m`, and the gaps :math:`\gamma_S = m - m(S)`,

.. math::
    \rho = \sum_S \Big( e^{-\gamma_S} \big(1 + \rho(S)\big) - [\gamma_S = 0] \Big) + (n - 1), \qquad
    n = \sum_S\, [\gamma_S = 0] \tag{2}

.. math::
    \tau = \sum_S e^{-\gamma_S} \big(\tau(S) + \gamma_S\, (1 + \rho(S))\big), \qquad
    \delta = \sum_S \big(\delta(S) + \gamma_S\, Q(S)\big), \qquad Q = \sum_S Q(S) \tag{3}

The term of a part that leads is its :math:`\rho(S)`, so what is summed is never negative, and :math:`n - 1`, the number
of leaders that tie with the first, is exact: no digits are lost, whoever leads and by how much. A maximum and a sum are
all that the parts must exchange. Between processes these are two all-reduces, of one number a row, and then of three
or six, beside what the loss adds.

A part without classes, or with all of them ruled out, adds nothing to others. A row with a score of NaN or
:math:`+\infty`, or with nothing but ruled out classes, has no softmax, and its :math:`\rho` is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from manual_grad.engine.rowwise import class_dim
from manual_grad.engine.softmax import State

Logits = Callable[[Tensor], Tensor]  # what makes logits of scores; increasing


def empty(rows: Tensor, weighted: bool) -> Tensor:
    """The state of no classes, for rows of the shape of ``rows``."""
    state = rows.new_zeros((6 if weighted else 3, *rows.shape), dtype=torch.float64)
    state[0].fill_(-math.inf)  # setting it would copy the number to a device
    return state


def of(x: Tensor, q: Tensor | None, entropy: bool, logits: Logits) -> Tensor:
    """(1) from scores and weights of the classes, by the formulas."""
    dim = class_dim(x)
    if not x.shape[dim]:  # processes exchange gradients, so that a graph must have this one's part, too
        nothing = x.sum(dim) if q is None else x.sum(dim) + q.sum(dim)
        return empty(nothing, q is not None) + nothing
    z = logits(x)
    state = State.of(z, q, value=q is not None, entropy=entropy)
    numbers = [x.gather(dim, state.leader), state.rest, torch.zeros_like(state.rest)]
    if entropy:
        numbers[2] = state.tau / (1 + state.rest)
    if q is not None:
        numbers += [state.distance, state.total, state.rest_q]
    return torch.stack([u.double() for u in numbers]).squeeze(dim + 1)


def merged(states: Tensor, logits: Logits) -> Tensor:
    """The state of all classes from those of parts, which are stacked along a new first dimension."""
    most = leader(states[:, 0]).amax(0)
    return finished(most, lanes_of(states, most, logits).sum(0))


def leader(m: Tensor) -> Tensor:
    """The largest scores as a constant that has a maximum: infinity, which has no softmax either, for NaN."""
    return torch.where(m.isnan(), math.inf, m).detach()


def lanes_of(states: Tensor, most: Tensor, logits: Logits, sole: Tensor | None = None) -> Tensor:
    """The terms of (2) and (3), along dimension 1: of rho, n, tau and, with weights, delta, Q and q-bar.

    If they are to be differentiated, by the leaders too, ``sole`` says where a part leads alone.
    """
    m, rest, mean_gap, *of_weights = states.unbind(1)
    leads, nothing = leader(m) == most, (m == -math.inf) & (most > -math.inf)
    # masked before and after, for the sake of derivatives
    m, rest, mean_gap = torch.where(nothing, most, m), torch.where(nothing, 0, rest), torch.where(nothing, 0, mean_gap)
    gap = logits(most) - logits(m)
    gap = gap if sole is None else torch.where(sole, 0, gap)
    shrink, exponentials = (-gap).exp(), 1 + rest
    # of a leader, expm1 is 0, but its derivative is not
    rho = torch.where(leads, rest + (-gap).expm1() * exponentials, shrink * exponentials)
    tau = torch.where(shrink == 0, 0, shrink * (mean_gap + gap) * exponentials)
    lanes = [torch.where(nothing, 0, rho), leads.to(rest.dtype), torch.where(nothing, 0, tau)]
    if of_weights:
        distance, total, behind = of_weights
        # classes that are ruled out are infinitely far behind
        moved = torch.where((total == 0) | leads, 0, torch.where(nothing, math.inf, gap) * total)
        # where all classes are ruled out the distance is infinite, and the kernel's NaN
        distance = torch.where(nothing, 0, distance)
        lanes += [distance + moved, total, torch.where(leads, behind, total)]
    return torch.stack(lanes, 1)


def finished(most: Tensor, sums: Tensor) -> Tensor:
    """(1) from the sums of (2) and (3)."""
    rho, leaders, tau, *of_weights = sums
    rho = rho + (leaders - 1)
    rho = torch.where(rho < 0, math.nan, rho)  # if even the leaders are ruled out
    # without a finite score so far, there may be one in a part to come
    lost = rho.isnan() & (most > -math.inf)
    return torch.stack([torch.where(lost, math.nan, most), rho, tau / (1 + rho), *of_weights])
