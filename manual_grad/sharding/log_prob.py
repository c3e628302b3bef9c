r"""The log-probability of a class, the entropy, and cross entropy, where each process has some of a row's classes.

**Where it comes from.** A vocabulary that is too large for one device is divided: process :math:`r` scores the classes
:math:`V_r`. What a row is trained on, see :mod:`~manual_grad.losses.rowwise.selected_log_prob`, needs all of them:

.. math::
    \log p_y = -\big(d_y + \log(1 + \rho)\big), \qquad H = \log(1 + \rho) + \bar\tau, \qquad
    X = \delta + Q \log(1 + \rho) \tag{1}

**Two all-reduces.** The states of the parts of a row merge by a maximum and a sum, as :mod:`~manual_grad.engine.parts`
derives. So each process computes the state of its classes; an all-reduce takes the maximum of their leaders' scores;
and another adds up, per row, the terms of :math:`\rho`, of the number of leaders and of :math:`\tau`, with weights also
those of :math:`\delta`, :math:`Q` and :math:`\bar q`, and the distance :math:`d_y`, which its owner contributes, with
whether that class leads and what it weighs. That is 8 bytes a row, then 40 to 72. What is usually done, to reduce the
maximum and the sum of all exponentials, gives a sure row a loss without a correct digit.

Where the classes of a process begin need not be said: each writes their number beside its maxima, so that the first
all-reduce distributes them.

**Gradient.** Equations (5) and (13) of that chapter use the class's own score and the state, which all processes now
have: the gradient of the scores needs no message. The one class of a row that is special, its own, is so for one
process; for the others, the row is one without it, whose log-sum-exp has the gradient :math:`g_s - g_y`:

.. math::
    \frac{\partial \ell}{\partial z_j} = (g_s - g_y)\, p_j + g_H\, p_j\, (d_j - \bar\tau) \qquad
    \text{for } y \notin V_r,\; j \in V_r \tag{2}

**Second derivative.** The sums over classes in (9), (10) and (14) of that chapter, :math:`\mu`, :math:`\eta` and
:math:`\sum_c \dot q_c`, take one more all-reduce, together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, collectives, parts, torch_private
from manual_grad.engine.collectives import Groups
from manual_grad.engine.dtypes import compute_dtype
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.rowwise import class_dim, kept_rows
from manual_grad.engine.softmax import State
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction, logits_by, slope_of

IGNORED, ELSEWHERE = -100, -1  # in place of the index of a class that is here


class Shards(NamedTuple):
    """Where this process's classes are among all of a row."""

    groups: Groups
    start: Tensor | int | None = None  # the first; None until the processes have exchanged their numbers
    total: Tensor | int | None = None
    partial: bool = False  # whether gradients of replicated tensors are left to be added up

    @property
    def met(self) -> bool:
        return self.start is not None

    def meet(self, classes: int, device: torch.device) -> Shards:
        """Exchange the numbers of classes."""
        return self if self.met else self.leaders(torch.empty(0, dtype=torch.float64, device=device), classes)[1]

    def leaders(self, m: Tensor, classes: int) -> tuple[Tensor, Shards]:
        """The maxima over the processes, which exchange their numbers of classes in passing."""
        if self.met:
            return collectives.maximum(m, self.groups), self
        place = collectives.rank(self.groups)
        counts = m.new_zeros(collectives.count(self.groups))
        counts[place].fill_(classes)  # setting it would copy the number to a device
        found = collectives.maximum(torch.cat([m.flatten(), counts]), self.groups)
        counts = found[m.numel() :]
        return found[: m.numel()].view(m.shape), self._replace(start=counts[:place].sum().long(), total=counts.sum())

    def localized(self, y: Tensor, classes: int, ignore_index: int, name: str) -> Tensor:
        """Class indices among the ``classes`` that are here; others are :data:`ELSEWHERE` or :data:`IGNORED`."""
        if not isinstance(self.total, Tensor) or arguments.readable(self.total):
            kept_rows(name, y, int(self.total), ignore_index)  # raises for an index out of range
        local = y - self.start
        local = torch.where((local >= 0) & (local < classes), local, ELSEWHERE)
        return torch.where(y == ignore_index, IGNORED, local)


def shards_of(group: Groups | Shards) -> Shards:
    return group if isinstance(group, Shards) else Shards(group)


class ShardedLogProbFunction(SelectedLogProbFunction):
    """``apply(input, index, q, state, near, outputs, dtype, IGNORED, temperature, softcap, scale, groups, "none")``.

    As :class:`SelectedLogProbFunction` of this process's classes, with local indices. ``state`` (N, 3 or 6, d1, …) is
    that of all classes, and ``near`` (N, 2, d1, …) has how far the row's class is behind, and whether it leads.
    """

    tensors = 5

    @staticmethod
    def across(contracted: Tensor, *options: Any) -> Tensor:
        return collectives.total(contracted, options[-1])

    @classmethod
    def value(cls, X: Tensors, outputs: str, dtype: torch.dtype, ignore_index: int, *logits: Any) -> Tensor:
        y, state, near = X[1], X[3], X[4]
        m, rest, mean_gap, *of_weights = state.unbind(1)
        log_s = rest.log1p()
        found = {
            "log_prob": lambda: -(near[:, 0] + log_s),
            "entropy": lambda: log_s + mean_gap,
            "lse": lambda: logits_by(m, *logits) + log_s,
            "cross": lambda: of_weights[0] + of_weights[1] * log_s,
            "correct": lambda: near[:, 1],
        }
        return torch.stack([torch.where(y != ignore_index, found[name](), 0) for name in outputs.split()]).to(dtype)

    @classmethod
    def kept(cls, X: Tensors, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
        x, y = X[:2]
        kept = (y != ignore_index).unsqueeze(class_dim(x))
        return torch.where(kept, x, 0), y.unsqueeze(class_dim(x)), kept

    @classmethod
    def slope(
        cls, up: dict[str, Tensor], z: Tensor, y: Tensor, X: Tensors, outputs: str, *logits: Any
    ) -> tuple[Tensor, State, State | None]:
        state, near, groups = X[3], X[4], logits[-1]
        if torch.is_grad_enabled() and z.requires_grad:  # a third derivative
            own = parts.of(X[0], X[2], "entropy" in outputs, lambda x: logits_by(x, *logits))
            state = merged(own, Shards(groups, 0, 0), 0, *logits)[0].movedim(0, 1)
        m, rest, mean_gap, *of_weights = (u.unsqueeze(1) for u in state.to(z.dtype).unbind(1))
        leads = (near[:, :1] == 0).to(z.dtype)
        level, tau = logits_by(m, *logits), mean_gap * (1 + rest)
        all_classes = State(level, y, rest, leads, 1 - leads, None, tau)
        of_q = None
        if "cross" in up:
            _, total, behind = of_weights
            of_q = State(level, y, rest, total - behind, behind)
        own = (torch.arange(z.shape[1], device=z.device).view(-1, *(1,) * (z.dim() - 2)) == y).to(z.dtype)
        return slope_of(up, all_classes, z, own, of_q, X[2]), all_classes, of_q

    @classmethod
    def by_classes(cls, g: Tensor, *logits: Any) -> Tensor:
        return collectives.spread(g, logits[-1])

    @classmethod
    def over_classes(cls, terms: Tensors, dim: int, *logits: Any) -> Tensors:
        sums = super().over_classes(terms, dim, *logits)
        together = iter(collectives.total(torch.stack([u for u in sums if u is not None]), logits[-1]))
        return tuple(None if u is None else next(together) for u in sums)

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        x, y, q, state, _ = X
        if value:
            return cls.value(X, *options), [None] * len(X)
        op = kernels.op(cls.kernel, x) if x.numel() and not needs[2] else None
        if op is None:
            return None
        dx = torch.empty_like(x)
        of_block(op, x, y, q, state.movedim(1, 0), options, g, dx)
        return None, [dx, *(None for _ in X[1:])]


def of_block(
    op: Any, x: Tensor, y: Tensor, q: Tensor | None, state: Tensor, options: Options, g: Tensor, dx: Tensor
) -> None:
    """Write the gradient of some of the classes, by (2) where the row's is not among them; it may overwrite ``x``."""
    outputs, _, ignore_index, *logits, _ = options
    up, elsewhere = dict(zip(outputs.split(), g.unbind(), strict=True)), y == ELSEWHERE
    if "log_prob" in up:
        up["lse"] = torch.where(elsewhere, -up["log_prob"], 0) + up.get("lse", 0)
        up["log_prob"] = torch.where(elsewhere, 0, up["log_prob"])
    X = x, torch.where(elsewhere, 0, y), q, state.contiguous()
    options = " ".join(up), None, ignore_index, *logits
    SelectedLogProbFunction.run(op, X, options, None, torch.stack([*up.values()]), dx)


def local_state(x: Tensor, q: Tensor | None, outputs: str, *logits: float) -> Tensor:
    """The state of the classes that are here: by the kernel, or by the formulas."""
    q = None if q is None else q.detach()
    state = None
    if not torch_private.is_intercepted():
        state = SelectedLogProbFunction.summarize(x.detach(), q, outputs, *logits)
    if state is not None:
        return state
    dtype = compute_dtype(x)
    return parts.of(x.detach().to(dtype), None if q is None else q.to(dtype), "entropy" in outputs,
                    lambda u: logits_by(u, *logits))  # fmt: skip


def own_score(x: Tensor, y: Tensor) -> Tensor:
    """The score of each row's class, if it is here."""
    if not x.numel():
        return y.new_zeros(y.shape, dtype=torch.float64)
    return x.detach().gather(1, y.clamp(min=0).unsqueeze(1)).squeeze(1).double()


def merged(
    state: Tensor, shards: Shards, classes: int, *logits: Any, beside: Any = None
) -> tuple[Tensor, Tensor | None, Shards]:
    """The state of all classes, by two all-reduces.

    ``beside``, of the maxima and the shards, returns further numbers of the rows, stacked along a new first dimension,
    which are added up in passing.
    """

    def of(x: Tensor) -> Tensor:
        return logits_by(x, *logits)

    most, shards = shards.leaders(parts.leader(state[0]), classes)
    sole = None
    if torch.is_grad_enabled() and state.requires_grad:  # a third derivative, also by the leaders
        leads = parts.leader(state[0]) == most
        moved = torch.where(leads, state[0] - state[0].detach(), 0)
        moved, leaders = collectives.total(torch.stack([moved, leads.to(moved.dtype)]), shards.groups)
        most, sole = most + moved / leaders, leads & (leaders == 1)
    lanes = parts.lanes_of(state.unsqueeze(0), most, of, sole)[0]
    own = None if beside is None else beside(most, shards)
    sums = collectives.total(lanes if own is None else torch.cat([lanes, own]), shards.groups)
    return parts.finished(most, sums[: len(lanes)]), None if own is None else sums[len(lanes) :], shards


def own_numbers(
    most: Tensor, m: Tensor, y: Tensor, later: Tensor, score: Tensor, leads: Tensor | None, weight: Tensor | None,
    *logits: Any,
) -> Tensor:  # fmt: skip
    """What goes through the sum beside a state: d_y, whether y leads and, if asked for, the weight of y.

    Args:
        most: The largest score of each row.
        m: The largest one here.
        y: The index of the row's class among those here.
        later: Whether the row's class comes after those here.
        score: The score of the row's class, if it is here.
        leads: Whether it is then the first with the largest score here; None if that does not matter.
        weight: The weights of the classes here, or None.
        logits: What makes logits of scores.
    """
    here, distance = y >= 0, logits_by(most, *logits) - logits_by(score, *logits)
    found = [torch.where(here, distance, 0), torch.zeros_like(distance)]
    if leads is not None:  # 1 if it leads, unless there is as large a score among earlier classes
        ties = parts.leader(m) == most
        found[1] = torch.where(ties & here & leads, 1.0, torch.where(ties & later, -1.0, 0.0)).to(most.dtype)
    if weight is not None:
        w = weight.to(most.dtype)
        found.append(torch.where(here, w[y.clamp(min=0)] if len(w) else 0, 0))
    return torch.stack(found)


def own_of(numbers: Tensor) -> tuple[Tensor, Tensor | None]:
    """From the sums of :func:`own_numbers`: d_y and whether y leads, stacked, and its weight."""
    return torch.stack([numbers[0], (numbers[1] == 1).to(numbers.dtype)]), numbers[2] if len(numbers) > 2 else None


@arguments.functional
def stacked(
    name: str, x: Tensor, index: Tensor, q: Tensor | None, weight: Tensor | None, outputs: str, dtype: torch.dtype,
    ignore_index: int, temperature: float, softcap: float, scale: float, groups: Groups, start: Tensor | int | None,
    total: Tensor | int | None,
) -> tuple[Tensor, Tensor | None, Tensor | int]:  # fmt: skip
    """The outputs, stacked, of scores (N, C, d1, …); the weight of each row's class; and the number of all classes.

    ``index`` holds indices of all classes, ``q`` and ``weight`` (C) weights of those here. A single node in a graph of
    torch.compile.
    """
    logits, classes = (temperature, softcap, scale), x.shape[1]
    found: list[Tensor] = []

    def beside(most: Tensor, shards: Shards) -> Tensor:
        y = shards.localized(index, classes, ignore_index, name)
        found.append(y)
        score, later = own_score(x, y), index >= shards.start + classes
        leads = x.argmax(1) == y if "correct" in outputs and classes else None
        return own_numbers(most, state[0], y, later, score, leads, weight, *logits)

    with torch.no_grad():
        state = local_state(x, q, outputs, *logits)
        state, numbers, shards = merged(state, Shards(groups, start, total), classes, *logits, beside=beside)
        near, own_weight = own_of(numbers)
    X = x, found[0], q, state.movedim(0, 1), near.movedim(0, 1)
    rows = evaluate(ShardedLogProbFunction, *X, outputs, dtype, IGNORED, *logits, groups, "none")
    return rows, own_weight, shards.total


def of_scores(
    name: str, x: Tensor, index: Tensor, outputs: str, dtype: torch.dtype, ignore_index: int, temperature: float,
    softcap: float, scale: float, group: Groups | Shards,
) -> Tensor:  # fmt: skip
    """The outputs, stacked, of scores that are not a batch, too."""
    shards, unbatched = shards_of(group), x.dim() == 1
    if unbatched:
        x, index = x.unsqueeze(0), index.unsqueeze(0)
    options = outputs, dtype, ignore_index, temperature, softcap, scale
    found, *_ = stacked(name, x, index, None, None, *options, *shards[:3])
    return found.squeeze(1) if unbatched else found
