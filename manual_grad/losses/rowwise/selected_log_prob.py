r"""The log-probability of a chosen class, and the entropy of all of them.

**Where it comes from.** The last layer of a model scores each of :math:`C` classes. Its logits :math:`z` are the
scores :math:`x` times a scale :math:`a`, divided by a temperature :math:`T`; in some models a softcap :math:`\kappa`
bounds them smoothly [3]:

.. math::
    z_c = \frac{\kappa}{T} \tanh u_c \quad\text{or}\quad z_c = \frac{a}{T}\, x_c, \qquad
    u_c = \frac{a}{\kappa}\, x_c \tag{1}

**Definition.** A policy that chooses among the classes by the softmax :math:`p` of its logits is trained on two numbers
of each row: the log-probability of the class :math:`y` that was drawn, whose gradient times an advantage is the policy
gradient of Williams [1], and the entropy of :math:`p`, which is held up so that the policy goes on exploring [2]:

.. math::
    \log p_y = z_y - \mathrm{lse}(z), \qquad H = -\sum_c p_c \log p_c, \qquad
    p_c = e^{z_c - \mathrm{lse}(z)}, \quad \mathrm{lse}(z) = \log \sum_c e^{z_c} \tag{2}

**Stable form.** Let :math:`k` be the leader, the class with the largest logit, and :math:`d_c` how far class :math:`c`
is behind it. As in :mod:`~manual_grad.engine.softmax`, two sums leave out the leader:

.. math::
    d_c = z_k - z_c, \qquad \rho = \sum_{c \ne k} e^{-d_c}, \qquad \tau = \sum_{c \ne k} d_c\, e^{-d_c}, \qquad
    \bar\tau = \frac{\tau}{1 + \rho} \tag{3}

.. math::
    \log p_y = -\big(d_y + \log(1 + \rho)\big), \qquad \mathrm{lse}(z) = z_k + \log(1 + \rho), \qquad
    H = \log(1 + \rho) + \bar\tau \tag{4}

No term of :math:`\log p_y` or :math:`H` is of the other sign, so nothing cancels. What is usually computed,
:math:`\mathrm{lse}(z) - \sum_c p_c z_c`, is a difference of two numbers as large as the largest logit. A trained policy
is sure of most tokens, and there that difference has no correct digit:

>>> import torch
>>> from manual_grad.functional import log_prob_and_entropy
>>> z, y = torch.tensor([20.0, 0.0, 0.0], requires_grad=True), torch.tensor(0)
>>> usual = z.logsumexp(0) - (z.softmax(0) * z).sum()
>>> entropy = log_prob_and_entropy(z, y).entropy
>>> f"{usual:.4e}", f"{entropy:.4e}"
('0.0000e+00', '8.6568e-08')
>>> torch.autograd.grad(entropy, z)[0]
tensor([-8.2446e-08,  4.1223e-08,  4.1223e-08])

**Gradient.** By the rules of cross entropy, :math:`\partial\, \mathrm{lse} / \partial z_j = p_j`. In the derivative of
the entropy, :math:`-p_j\, (\log p_j + H)`, the terms :math:`\log(1 + \rho)` cancel:

.. math::
    \frac{\partial\, \mathrm{lse}}{\partial z_j} = p_j, \qquad
    \frac{\partial \log p_y}{\partial z_j} = [j = y] - p_j, \qquad
    \frac{\partial H}{\partial z_j} = p_j\, (d_j - \bar\tau) \tag{5}

A loss of these numbers depends on the logits only through its three upstream gradients :math:`g_y`, :math:`g_H` and
:math:`g_s`:

.. math::
    \ell = g_y \log p_y + g_H\, H + g_s\, \mathrm{lse}(z), \qquad
    \frac{\partial \ell}{\partial z_j} = (g_s - g_y)\, p_j + g_y\, [j = y] + g_H\, p_j\, (d_j - \bar\tau) \tag{6}

.. math::
    p_j = \frac{e^{-d_j}}{1 + \rho}, \qquad 1 - p_k = \frac{\rho}{1 + \rho} \tag{7}

The last form serves for :math:`1 - p_y` if :math:`y` leads, where :math:`p_y` may round to 1. For the scores, (6) is
multiplied by

.. math::
    \frac{\partial z_c}{\partial x_c} = \frac{a}{T}\, s_c \quad\text{or}\quad
    \frac{\partial z_c}{\partial x_c} = \frac{a}{T}, \qquad
    s_c = 1 - (\tanh u_c)^2 = \frac{4\, e^{-2 |u_c|}}{(1 + e^{-2 |u_c|})^2} \tag{8}

where the fraction keeps the digits that :math:`1 - \tanh^2 u` loses for a score far beyond the softcap.

**Second derivative.** Along a direction :math:`\dot z`, a probability changes by :math:`p_j\, (\dot z_j - \mu)` and the
entropy by :math:`\eta`, so (5) gives

.. math::
    \sum_i \frac{\partial^2\, \mathrm{lse}}{\partial z_j\, \partial z_i}\, \dot z_i = p_j\, (\dot z_j - \mu),
    \qquad \mu = \sum_c p_c\, \dot z_c \tag{9}

.. math::
    \sum_i \frac{\partial^2 H}{\partial z_j\, \partial z_i}\, \dot z_i
    = p_j\, \big((\dot z_j - \mu)\, (d_j - \bar\tau - 1) - \eta\big), \qquad
    \eta = \sum_c p_c\, (d_c - \bar\tau)\, \dot z_c \tag{10}

With a softcap, (1) bends as well:

.. math::
    \frac{\partial^2 z_c}{\partial x_c^2} = -\frac{2 a^2}{\kappa\, T}\, s_c \tanh u_c \quad\text{or}\quad
    \frac{\partial^2 z_c}{\partial x_c^2} = 0 \tag{11}

**A cross entropy.** A head with label smoothing or with probabilities as its target
(:mod:`~manual_grad.losses.rowwise.cross_entropy_head`) needs a third number: the cross entropy of :math:`p` and any
weights :math:`q` of the classes, which is

.. math::
    X = \sum_c q_c\, \big(\mathrm{lse}(z) - z_c\big) = \delta + Q \log(1 + \rho), \qquad
    \delta = \sum_c q_c\, d_c, \qquad Q = \sum_c q_c \tag{12}

.. math::
    \frac{\partial X}{\partial z_j} = Q\, p_j - q_j, \qquad
    \frac{\partial X}{\partial z_k} = \sum_{c \ne k} q_c - Q\, \frac{\rho}{1 + \rho}, \qquad
    \frac{\partial X}{\partial q_j} = d_j + \log(1 + \rho) \tag{13}

.. math::
    \sum_i \frac{\partial^2 X}{\partial z_j\, \partial z_i}\, \dot z_i = Q\, p_j\, (\dot z_j - \mu) \tag{14}

There are no kinks.

**Shapes and domain.** Scores are :math:`(\dots, C)`: unlike in cross entropy the classes are the last dimension, as in
language models. A score of :math:`-\infty` rules out a class, also with a softcap. A row without a finite
leader is NaN.

Sources:

1. Ronald J. Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
   Machine Learning 8 (1992) 229-256, `doi:10.1007/BF00992696 <https://doi.org/10.1007/BF00992696>`_.
2. Volodymyr Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning" (2016),
   `arXiv:1602.01783 <https://arxiv.org/abs/1602.01783>`_.
3. Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size" (2024),
   `arXiv:2408.00118 <https://arxiv.org/abs/2408.00118>`_, for the softcap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, rowwise, torch_private
from manual_grad.engine.dtypes import dtype_of_loss
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss, class_dim
from manual_grad.engine.softmax import State

OUTPUTS = ("log_prob", "entropy", "lse", "cross", "correct")  # in the order in which the kernel takes them


class LogProbAndEntropy(NamedTuple):
    """What :func:`log_prob_and_entropy` returns."""

    log_prob: Tensor
    entropy: Tensor


class SelectedLogProbFunction(RowwiseLoss):
    """``apply(input, index, q, state, outputs, dtype, ignore_index, temperature, softcap, scale, "none")``.

    ``input`` is (C) or (N, C, d1, …), ``index`` has its shape without the C, and ``q``, the weights of the classes that
    'cross' is for, its shape. ``state`` is what :meth:`summarize` gives: the kernels need it, in backward too, where it
    saves two sweeps over the scores; the formulas do not read it. The result stacks the ``outputs``, some of
    :data:`OUTPUTS` in that order with spaces between, along a new first dimension, in ``dtype``. A ``softcap`` of 0
    stands for none.
    """

    tensors = 4
    kernel = "log_prob"
    stacked = True

    @classmethod
    def shape(cls, X: Tensors, outputs: str, *options: Any) -> torch.Size:
        return torch.Size((len(outputs.split()), *super().shape(X)))

    @classmethod
    def dtype(cls, X: Tensors, outputs: str, dtype: torch.dtype, *options: Any) -> torch.dtype:
        return dtype

    @classmethod
    def value(cls, X: Tensors, outputs: str, dtype: torch.dtype, ignore_index: int, *logits: float) -> Tensor:
        x, y, kept = cls.kept(X, ignore_index)
        z, q, dim = logits_by(x, *logits), X[2], class_dim(x)
        state = State.of(z, q, value=q is not None, entropy="entropy" in outputs)
        found = outputs_of(state, y, state.distances(z.gather(dim, y)), outputs)
        return torch.stack([torch.where(kept, u, 0).squeeze(dim) for u in found])

    @classmethod
    def gradient(
        cls, g: Tensor, X: Tensors, outputs: str, dtype: torch.dtype, ignore_index: int, *logits: Any
    ) -> Tensors:
        x, y, kept = cls.kept(X, ignore_index)
        z, up, dq = logits_by(x, *logits), upstream_of(cls.by_classes(g, *logits), outputs, class_dim(x)), None
        dz, state, _ = cls.slope(up, z, y, X, outputs, *logits)
        if "cross" in up:
            dq = torch.where(kept, up["cross"] * state.distances(z), 0)  # (13)
        nothing = (None for _ in X[3:])
        return torch.where(kept, dz * stretch_of(x, *logits), 0), None, dq, *nothing  # (6) (8) (13)

    @classmethod
    def curvature(
        cls, g: Tensor, X: Tensors, v: Tensors, outputs: str, dtype: torch.dtype, ignore_index: int, *logits: Any
    ) -> Tensors:
        x, y, kept = cls.kept(X, ignore_index)
        z, dim, stretch = logits_by(x, *logits), class_dim(x), stretch_of(x, *logits)
        up, vx, vq, hq = upstream_of(cls.by_classes(g, *logits), outputs, dim), v[0], v[2], None
        vx = torch.zeros_like(x) if vx is None else vx
        dz, state, of_q = cls.slope(up, z, y, X, outputs, *logits)
        p, vz, u = state.probabilities(z), stretch * vx, state.excess(z) if "entropy" in up else None
        terms = p * vz, None if u is None else p * u * vz, vq if "cross" in up else None
        mean, moved, moved_q = cls.over_classes(terms, dim, *logits)
        spread = vz - mean
        hz = (up.get("lse", 0) - up.get("log_prob", 0)) * p * spread  # (9)
        if u is not None:
            hz = hz + up["entropy"] * p * (spread * (u - 1) - moved)  # (10)
        if "cross" in up:
            hz = hz + up["cross"] * of_q.total * p * spread  # (14)
            hq = torch.where(kept, -up["cross"] * spread, 0)
            if vq is not None:
                hz = hz + up["cross"] * (p * moved_q - vq)
        hx = stretch * hz + _bend(x, *logits) * vx * dz  # (11)
        nothing = (None for _ in X[3:])
        return torch.where(kept, hx, 0), None, hq, *nothing

    # -- what is different if a row's classes are not all here

    @classmethod
    def kept(cls, X: Tensors, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The scores, without those of ignored rows; an index in range for every row; and a mask of the others."""
        x, y = X[:2]
        dim = class_dim(x)
        kept, y = (u.unsqueeze(dim) for u in rowwise.kept_rows("log_prob", y, x.shape[dim], ignore_index))
        return torch.where(kept, x, 0), y, kept

    @classmethod
    def slope(
        cls, up: dict[str, Tensor], z: Tensor, y: Tensor, X: Tensors, outputs: str, *logits: Any
    ) -> tuple[Tensor, State, State | None]:
        """(6) and (13); and the states of all classes, weighted by 1 for the row's own, and by q."""
        own = torch.zeros_like(z).scatter(class_dim(z), y, 1)
        state = State.of(z, own, entropy="entropy" in up)
        of_q = State.of(z, X[2]) if "cross" in up else None
        return slope_of(up, state, z, own, of_q, X[2]), state, of_q

    @classmethod
    def by_classes(cls, g: Tensor, *logits: Any) -> Tensor:
        """Upstream gradients, on which those of all classes depend."""
        return g

    @classmethod
    def over_classes(cls, terms: Tensors, dim: int, *logits: Any) -> Tensors:
        """The sums over all classes."""
        return tuple(None if u is None else u.sum(dim, keepdim=True) for u in terms)

    # -- kernels

    @classmethod
    def summarize(cls, x: Tensor, q: Tensor | None, outputs: str, *logits: float) -> Tensor | None:
        """For each row the largest score, rho, tau-bar if the entropy is an output; None without a kernel.

        With ``q``, also delta, the sum of q and that of the classes behind the leader.
        """
        op = kernels.op("log_prob_state", x) if x.numel() else None
        if op is None:
            return None
        state = x.new_empty((3 if q is None else 6, *RowwiseLoss.shape((x,))), dtype=torch.float64)
        op(x, q, *logits, "entropy" in outputs, state)
        return state

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        (x, _, _, state), (outputs, dtype, *_) = X, options
        op = None if state is None or (g is not None and needs[2]) else kernels.op(cls.kernel, x)
        if op is None:
            return None
        rows = cls.buffers(x, outputs, dtype) if value else None
        dx = torch.empty_like(x) if needs[0] else None
        cls.run(op, X, options, rows, g, dx)
        return None if rows is None else torch.stack(rows), [dx, None, None, None]

    @staticmethod
    def buffers(x: Tensor, outputs: str, dtype: torch.dtype) -> list[Tensor]:
        """One for each output: of several views of one buffer, inductor loses what an op writes into them."""
        return [x.new_empty(RowwiseLoss.shape((x,)), dtype=dtype) for _ in outputs.split()]

    @staticmethod
    def run(
        op: Any, X: Tensors, options: Options, result: Sequence[Tensor] | None, g: Tensor | None, dx: Tensor | None
    ) -> None:
        """Write the outputs or, for the upstream gradients ``g``, the gradient, which may overwrite the scores."""
        (x, y, q, state), (outputs, _, *rest) = X, options
        rows, up = dict.fromkeys(OUTPUTS), dict.fromkeys(OUTPUTS)
        if result is not None:
            rows.update(zip(outputs.split(), result, strict=True))
        if dx is not None:
            up.update(zip(outputs.split(), g.unbind(), strict=True))
        *up, _ = up.values()  # 'correct' has no gradient
        op(x, y, q, state, *up, *rest, *rows.values(), dx)


def outputs_of(state: State, y: Tensor, distance: Tensor, outputs: str) -> list[Tensor]:
    """(4), from the state of all classes and -log p_y."""
    found = {
        "log_prob": lambda: -distance,
        "entropy": state.entropy,
        "lse": lambda: state.m + state.rest.log1p(),
        "cross": state.finish,
        "correct": lambda: (state.leader == y).to(state.m.dtype),
    }
    return [found[name]() for name in outputs.split()]


def logits_by(x: Tensor, temperature: float, softcap: float, scale: float, *_: Any) -> Tensor:
    """(1)."""
    if not softcap:
        return x * (scale / temperature)
    return torch.where(x == -math.inf, x, (x * (scale / softcap)).tanh() * (softcap / temperature))


def stretch_of(x: Tensor, temperature: float, softcap: float, scale: float, *_: Any) -> Tensor | float:
    """(8)."""
    if not softcap:
        return scale / temperature
    t = (x * (scale / softcap)).abs().mul(-2).exp()
    return 4 * t / (1 + t).square() * (scale / temperature)


def _bend(x: Tensor, temperature: float, softcap: float, scale: float, *_: Any) -> Tensor | float:
    """(11)."""
    if not softcap:
        return 0.0
    return -2 * (scale / softcap) * (x * (scale / softcap)).tanh() * stretch_of(x, temperature, softcap, scale)


def upstream_of(g: Tensor, outputs: str, dim: int) -> dict[str, Tensor]:
    """The upstream gradient of each output, in a shape that broadcasts to the logits."""
    return dict(zip(outputs.split(), g.unsqueeze(dim + 1), strict=True))


def slope_of(
    up: dict[str, Tensor], state: State, z: Tensor, own: Tensor, of_q: State | None = None, q: Tensor | None = None
) -> Tensor:
    """(6) and (13) for classes with logits z, of which ``own`` is 1 for the row's and 0 for the others."""
    dz = torch.zeros_like(z)
    if "log_prob" in up:
        dz = dz - up["log_prob"] * state.slope(z, own)
    if "lse" in up:
        dz = dz + up["lse"] * state.probabilities(z)
    if "entropy" in up:
        dz = dz + up["entropy"] * state.entropy_slope(z)
    return dz if of_q is None else dz + up["cross"] * of_q.slope(z, q)


def state_of(input: Tensor, q: Tensor | None, outputs: str, *logits: float) -> Tensor | None:
    """What the kernels need; None where the formulas are used."""
    if torch_private.is_intercepted():
        return None
    weights = None if q is None else q.detach()
    return SelectedLogProbFunction.summarize(input.detach(), weights, outputs, *logits)


@arguments.functional
def stacked(input: Tensor, index: Tensor, q: Tensor | None, outputs: str, dtype: torch.dtype, *options: Any) -> Tensor:
    """The outputs, stacked; a single node in a graph of torch.compile."""
    state = state_of(input, q, outputs, *options[1:])
    return evaluate(SelectedLogProbFunction, input, index, q, state, outputs, dtype, *options, "none")


def _of_rows(
    name: str, outputs: str, input: Tensor, index: Tensor, temperature: float, softcap: float | None,
    logit_scale: float, ignore_index: int, group: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Check the arguments and compute the outputs."""
    arguments.require_floating(name, input)
    if not input.dim():
        raise IndexError(f"Dimension out of range: {name}'s input must have at least 1 dimension, got a scalar")
    if index.shape != input.shape[:-1]:
        raise RuntimeError(
            f"index: expected shape {list(input.shape[:-1])}, that of the input without the classes, "
            f"but got {list(index.shape)}"
        )
    options = logits_of(name, temperature, softcap, logit_scale, ignore_index)
    if index.dtype is not torch.int64:
        raise RuntimeError(f"index: expected scalar type Long but found {arguments.scalar_type(index.dtype)}")
    if not input.shape[-1] and index.numel() and group is None:
        raise IndexError(f"Target is out of bounds: {name}'s input has no classes")
    x = input.movedim(-1, 1) if input.dim() > 2 else input
    if group is None:
        result = stacked(x, index, None, outputs, dtype_of_loss(input), *options)
    else:
        from manual_grad.sharding import log_prob as sharded  # few programs need it

        result = sharded.of_scores(name, x, index, outputs, dtype_of_loss(input), *options, group)
    return tuple(result[i] for i in range(len(result)))  # those of unbind may not be changed in place


def logits_of(
    name: str, temperature: float, softcap: float | None, logit_scale: float, ignore_index: int
) -> tuple[int, float, float, float]:
    """The options of :class:`SelectedLogProbFunction` that follow the dtype, validated."""
    return (
        arguments.integer(name, "ignore_index", ignore_index),
        arguments.positive(name, "temperature", temperature),
        0.0 if softcap is None else arguments.positive(name, "softcap", softcap),
        arguments.positive(name, "logit_scale", logit_scale),
    )


@arguments.overridable
def selected_log_prob(
    input: Tensor,
    index: Tensor,
    temperature: float = 1.0,
    *,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
    group: Any = None,
) -> Tensor:
    """The log-probability of one class of each row.

    The result of ``log_prob_and_entropy`` without the entropy, which takes longer to compute.

    Args:
        input: Scores (any real numbers), floating point, of shape (…, C).
        index: The class of each row, int64, of shape (…), in [0, C).
        temperature: Divides the logits; positive.
        softcap: Bounds them: c tanh(x / c) replaces x before it is divided by the temperature.
        logit_scale: Multiplies the scores before anything else; positive.
        ignore_index: Rows with this index have a log-probability of 0, and no gradient.
        group: A process group over which the classes are spread: ``input`` then holds this process's, of which there
            may be any number, and ``index`` is among all, in the order of the processes. Every process gets the whole
            result, and its part of the gradient. See :mod:`~manual_grad.sharding`.

    Returns:
        A tensor of shape (…) in the input's dtype (float32 under autocast, without a copy of the scores in float32).

    Raises:
        IndexError: an index is outside [0, C) and not ``ignore_index`` (checked on the CPU); ``input`` is 0-d.
        RuntimeError: shapes or dtypes that do not fit.
        ValueError: ``temperature``, ``softcap`` or ``logit_scale`` is not positive and finite.
        NotImplementedError: the input is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import selected_log_prob
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
        >>> selected_log_prob(logits, torch.tensor([0, 1]))
        tensor([-0.1698, -2.1698])
    """
    name = "selected_log_prob"
    return _of_rows(name, "log_prob", input, index, temperature, softcap, logit_scale, ignore_index, group)[0]


@arguments.overridable
def log_prob_and_entropy(
    input: Tensor,
    index: Tensor,
    temperature: float = 1.0,
    *,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
    group: Any = None,
) -> LogProbAndEntropy:
    """The log-probability of one class of each row, and the entropy of its classes.

    Args:
        input: Scores (any real numbers), floating point, of shape (…, C).
        index: The class of each row, int64, of shape (…), in [0, C).
        temperature: Divides the logits; positive.
        softcap: Bounds them: c tanh(x / c) replaces x before it is divided by the temperature.
        logit_scale: Multiplies the scores before anything else; positive.
        ignore_index: Rows with this index have a log-probability and an entropy of 0, and no gradient.
        group: A process group over which the classes are spread: ``input`` then holds this process's, of which there
            may be any number, and ``index`` is among all, in the order of the processes. Every process gets the whole
            result, and its part of the gradient. See :mod:`~manual_grad.sharding`.

    Returns:
        A named tuple ``(log_prob, entropy)`` of tensors of shape (…) in the input's dtype (float32 under autocast,
        without a copy of the scores in float32). ``input`` may require a gradient, and both have theirs.

    Raises:
        IndexError: an index is outside [0, C) and not ``ignore_index`` (checked on the CPU); ``input`` is 0-d.
        RuntimeError: shapes or dtypes that do not fit.
        ValueError: ``temperature``, ``softcap`` or ``logit_scale`` is not positive and finite.
        NotImplementedError: the input is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import log_prob_and_entropy
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
        >>> log_prob, entropy = log_prob_and_entropy(logits, torch.tensor([0, 1]), temperature=0.5)
        >>> log_prob
        tensor([-0.0206, -4.0206])
        >>> entropy
        tensor([0.1069, 0.1069])
    """
    name = "log_prob_and_entropy"
    found = _of_rows(name, "log_prob entropy", input, index, temperature, softcap, logit_scale, ignore_index, group)
    return LogProbAndEntropy(*found)
