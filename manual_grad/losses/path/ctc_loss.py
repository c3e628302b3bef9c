r"""Connectionist temporal classification.

**Where it comes from.** A network reads :math:`T` frames and outputs, for each, the log-probabilities :math:`x_t(k)` of
:math:`C` symbols, one of which is the blank. The target is a shorter sequence of :math:`S` labels whose alignment with
the frames is unknown. A path :math:`\pi`, one symbol per frame, spells the target if merging repetitions and then
removing blanks gives the target: in five frames, C C A – T and C – A T T both spell CAT, where – is the blank.

**Definition.** The loss of Graves et al. [1] is the negative log-likelihood of all such paths together:

.. math::
    L = -\log P, \qquad P = \sum_{\pi} \exp V(\pi), \qquad V(\pi) = \sum_{t=0}^{T-1} x_t(\pi_t) \tag{1}

**The lattice.** Put a blank between the labels and at both ends. This gives :math:`K = 2S + 1` states, where state
:math:`s` emits the symbol :math:`l_s`. A path that spells the target is a walk that starts in state 0 or 1, ends in
state :math:`K - 2` or :math:`K - 1`, and at every frame stays, advances by one state, or advances by two if
:math:`l_s \ne l_{s-2}`: a blank between different labels may be skipped, one between equal labels may not. (A label
that equals the blank is treated like any other.)

There are too many paths to enumerate, but walks that meet in a state share the same continuations. Let
:math:`\alpha_t(s)` be the logarithm of the total weight, before frame :math:`t`, of the walks that are in state
:math:`s` at frame :math:`t`, and :math:`\beta_t(s)` the same after frame :math:`t`. With :math:`\oplus` for the
logarithm of a sum, see (10), and :math:`r \to s` for the allowed steps,

.. math::
    \alpha_t(s) = \bigoplus_{r \to s} \big(\alpha_{t-1}(r) + x_{t-1}(l_r)\big), \qquad
    \alpha_0(s) = \begin{cases} 0 & s \le 1 \\ -\infty & s > 1 \end{cases} \tag{2}

.. math::
    \beta_t(s) = \bigoplus_{s \to r} \big(\beta_{t+1}(r) + x_{t+1}(l_r)\big), \qquad
    \beta_{T-1}(s) = \begin{cases} 0 & s \ge K - 2 \\ -\infty & s < K - 2 \end{cases} \tag{3}

A walk reversed in time and in the order of states is again a walk, so (3) is the mirror image of (2). An extra frame
:math:`T` after the last one, in the last blank, collects both ends:

.. math::
    L = -\alpha_T(K - 1) \tag{4}

**Gradient.** :math:`x_t(k)` contributes to exactly those walks that emit :math:`k` at frame :math:`t`. Differentiating
(1), the gradient is minus the posterior probability of emitting :math:`k` there,

.. math::
    \gamma_t(s) = \frac1P \exp\big(\alpha_t(s) + x_t(l_s) + \beta_t(s)\big), \qquad
    \frac{\partial L}{\partial x_t(k)} = -\sum_{s:\, l_s = k} \gamma_t(s) \tag{5}

At every frame the walk is in exactly one state, so the posterior is a softmax over the states,

.. math::
    \sum_s \gamma_t(s) = 1, \qquad \gamma_t(s) = \frac{e^{\lambda_t(s)}}{\sum_r e^{\lambda_t(r)}}, \qquad
    \lambda_t(s) = \alpha_t(s) + x_t(l_s) + \beta_t(s) \tag{6}

**By the scores.** Usually the network ends in a log-softmax, :math:`x_t(k) = z_t(k) - \log \sum_j e^{z_t(j)}`. Its
derivative :math:`[j = k] - p_t(k)` turns (5), of which the entries of a frame add up to :math:`-1`, into what the
network predicts minus what the target demands:

.. math::
    \sum_j \frac{\partial L}{\partial x_t(j)}\, \big([j = k] - p_t(k)\big)
    = p_t(k) - \sum_{s:\, l_s = k} \gamma_t(s), \qquad p_t(k) = e^{x_t(k)} \tag{7}

It is the gradient of a cross entropy whose target is the posterior: CTC labels every frame itself, softly, and
learns from these labels.

.. figure:: /figures/ctc_lattice.svg
   :alt: Two heat maps over nine frames. The first has seven states, blank, C, blank, A, blank, T, blank, with lines for
         the allowed steps; the probability moves from the upper left to the lower right, mostly over the letters. The
         second has four symbols; the gradient is negative for a letter in the frames where the first map shows it, and
         positive for the other symbols.

   The word CAT in nine frames. On the left (6), with the allowed steps; on the right (7): blue scores will grow.

torch returns (5) plus :math:`e^{x_t(k)}`, which is (7) and not the derivative by :math:`x`. The log-softmax before it
does not notice, since what it back-propagates does not change when a multiple of :math:`e^{x_t}` is added. (5) is the
derivative of (1) wherever the log-probabilities come from.

**Second derivative.** :math:`\log P` is a log-partition function. So the gradient of :math:`L` is minus the mean, and
its Hessian minus the covariance, of the indicators :math:`[\pi_t = k]` when the walk is drawn with probability
:math:`e^{V(\pi)}/P`. Let a dot denote the derivative along a direction :math:`v`. The posterior of a state changes in
proportion to how much more its walks gain than the average walk:

.. math::
    \dot\gamma_t(s) = \gamma_t(s)\, \big(\dot\lambda_t(s) - \mu\big) \quad\text{for } \gamma_t(s) > 0, \qquad
    \mu = \frac1P \sum_\pi \dot V(\pi)\, \exp V(\pi), \qquad
    (H v)_{x_t(k)} = -\sum_{s:\, l_s = k} \dot\gamma_t(s) \tag{8}

Given a state, its past and future are independent, so the gain of its walks is a sum,
:math:`\dot\lambda_t(s) = \dot\alpha_t(s) + v_t(l_s) + \dot\beta_t(s)`. Differentiating (2) gives the mean gain of the
past as the mean over the predecessors, weighted by their shares:

.. math::
    \dot\alpha_t(s) = \sum_{r \to s,\, \alpha_{t-1}(r) > -\infty}
                      \exp\big(\alpha_{t-1}(r) + x_{t-1}(l_r) - \alpha_t(s)\big)\,
                      \big(\dot\alpha_{t-1}(r) + v_{t-1}(l_r)\big)
                      \quad\text{for } t > 0 \text{ and } \alpha_t(s) > -\infty, \qquad
    \dot\alpha_0(s) = 0 \quad\text{for } s \le 1 \tag{9}

and :math:`\dot\beta` is its mirror image. There are no kinks.

**Stable form.** Probabilities over a thousand frames underflow; their logarithms do not. The logarithm of a sum is

.. math::
    a \oplus b = \log(e^a + e^b) = \max(a, b) + \log(1 + e^{-|a - b|}) \tag{10}

computed with ``log1p``, so that a confident network keeps its digits: its :math:`L` is composed of numbers as small as
its :math:`x_t`. If the numbers are large, only their differences between states matter: (6) needs neither :math:`P` nor
the absolute values of :math:`x`, :math:`\alpha` and :math:`\beta`. So at every frame all three are stored relative to
the largest one. The weight of an unreachable state is :math:`-\infty`, which enters only sums, maxima and exponentials.

**Shapes and domain.** Log-probabilities are :math:`(T, N, C)` or :math:`(T, C)` and need not be normalized. Labels are
padded to :math:`(N, S)` or concatenated; each sample has two lengths. A target that no path can spell has
:math:`L = \infty` and derivative nan or, with ``zero_infinity``, loss 0 and gradient 0.

Sources:

1. Alex Graves, Santiago Fernández, Faustino Gomez and Jürgen Schmidhuber, "Connectionist Temporal Classification:
   Labelling Unsegmented Sequence Data with Recurrent Neural Networks", ICML (2006) 369-376,
   `doi:10.1145/1143844.1143891 <https://doi.org/10.1145/1143844.1143891>`_.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from manual_grad import kernels
from manual_grad.engine import arguments, collectives, torch_private
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.path import PathLoss

_INFINITY = float("inf")
_MOST_ON_CUDA = 4096  # labels per sample; a Triton program holds all of them in registers


class CTCLossFunction(PathLoss):
    """``apply(log_probs, targets, input_lengths, target_lengths, blank, zero_infinity, reduction)``.

    ``log_probs`` is (T, N, C). The other tensors are int64: ``targets`` is (N, S) or concatenated, the lengths are (N).
    """

    tensors = 4
    kernel = "ctc_loss"
    weighs = True  # by the length of each target

    @classmethod
    def value(cls, X: Tensors, blank: int, zero_infinity: bool) -> Tensor:
        lattice = _lattice(X, blank)
        walk = _arrivals(lattice)
        loss = 0 - (_at_the_end(lattice, walk.alpha) + (walk.level + lattice.levels.sum(0)).squeeze(1))  # (4)
        return loss.masked_fill(loss == _INFINITY, 0) if zero_infinity else loss

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, blank: int, zero_infinity: bool) -> Tensors:
        lattice = _lattice(X, blank)
        gamma, impossible, _ = _posterior(lattice)
        dx = _by_symbol(lattice, -gamma, X[0], impossible, zero_infinity)  # (5)
        return g[:, None] * dx, None, None, None

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, blank: int, zero_infinity: bool) -> Tensors:
        if v[0] is None:
            return (None,) * cls.tensors
        lattice = _lattice(X, blank)
        gamma, impossible, mean = _posterior(lattice, _on_states(lattice, v[0]))
        bent = gamma * (mean - (gamma * mean).sum(2, keepdim=True))  # (8)
        return g[:, None] * _by_symbol(lattice, -bent, X[0], impossible, zero_infinity), None, None, None

    @classmethod
    def reduce(cls, loss: Tensor, X: Tensors, options: Options, reduction: Reduction) -> Tensor:
        if reduction == "none":
            return loss
        return (loss / _divisor(X) if reduction == "mean" else loss).sum()

    @classmethod
    def spread(cls, g: Tensor, X: Tensors, options: Options, reduction: Reduction) -> Tensor:
        return (g / _divisor(X) if reduction == "mean" else g).expand(cls.shape(X))

    @classmethod
    def share(cls, *args: Any) -> Tensor:
        rows = args[0].shape[1]
        with collectives.batch(""):
            own = evaluate(cls, *args)
        return own * (rows / collectives.of_batch(rows, args[0])).to(own.dtype)

    @classmethod
    def op(cls, X: Tensors, options: Options) -> Any:
        x, targets = X[:2]
        return None if x.is_cuda and targets.shape[-1] >= _MOST_ON_CUDA else kernels.op(cls.kernel, x)


def _divisor(X: Tensors) -> Tensor:
    """The divisor of each sample's loss in torch's mean: its target length times the batch size."""
    return X[3].clamp(min=1) * X[0].shape[1]


class _Lattice(NamedTuple):
    """N lattices of K states each; a shorter target has unused states after its last one."""

    symbols: Tensor  # (N, K): l
    emissions: Tensor  # (T, N, K): x_t(l_s), or 0 at frames after the last, minus the level of the frame
    levels: Tensor  # (T, N, 1): the largest emission of each frame
    frames: Tensor  # (T, N, 1): whether the frame is one of the input's
    lengths: Tensor  # (N, 1): the number of frames
    last: Tensor  # (N, 1): the last state


def _lattice(X: Tensors, blank: int) -> _Lattice:
    x, targets, input_lengths, target_lengths = X
    if targets.dim() == 1:
        targets = _padded(targets, target_lengths)
    labels = torch.arange(targets.shape[1], device=x.device)
    targets = torch.where(labels < target_lengths[:, None], targets, blank)  # padding need not be valid symbols
    symbols = pad(torch.stack((torch.full_like(targets, blank), targets), 2).flatten(1), (0, 1), value=blank)
    frames = torch.arange(x.shape[0], device=x.device)[:, None, None] < input_lengths[:, None]
    lattice = _Lattice(symbols, x, x, frames, input_lengths[:, None], 2 * target_lengths[:, None])
    emissions = _on_states(lattice, x)
    levels = _level(emissions)
    return lattice._replace(emissions=emissions - levels, levels=levels)


def _padded(targets: Tensor, target_lengths: Tensor) -> Tensor:
    longest = max(target_lengths.tolist()) if arguments.readable(target_lengths, waits=True) else targets.shape[0]
    begin = target_lengths.cumsum(0) - target_lengths
    index = begin[:, None] + torch.arange(longest, device=targets.device)
    return pad(targets, (0, 1))[index.clamp(0, targets.shape[0])]


def _on_states(lattice: _Lattice, values: Tensor) -> Tensor:
    """(T, N, C) to (T, N, K): each state gets the value of its symbol."""
    inside = values.masked_fill(~lattice.frames, 0)  # frames after the last contribute nothing, whatever they hold
    return inside.gather(2, lattice.symbols.expand(inside.shape[0], *lattice.symbols.shape))


def _by_symbol(lattice: _Lattice, values: Tensor, like: Tensor, impossible: Tensor, zero_infinity: bool) -> Tensor:
    """(T, N, K) to (T, N, C), the transpose of :func:`_on_states`; 0 or NaN for impossible samples."""
    values = values.masked_fill(impossible | ~lattice.frames, 0)
    summed = torch.zeros_like(like).scatter_add(2, lattice.symbols.expand(values.shape), values)
    return summed if zero_infinity else summed.masked_fill(impossible & lattice.frames, float("nan"))


def _mirrored(lattice: _Lattice, rows: Tensor) -> Tensor:
    """(T, N, K) with the frames and states of each sample reversed; the remaining entries are arbitrary."""
    T, _, K = rows.shape
    t = (lattice.lengths - 1 - torch.arange(T, device=rows.device)).clamp(min=0).T
    s = (lattice.last - torch.arange(K, device=rows.device)).clamp(min=0)
    return rows.gather(0, t[:, :, None].expand(rows.shape)).gather(2, s.expand(rows.shape))


def _shifted(a: Tensor, by: int, fill: float = 0) -> Tensor:
    """The value ``by`` states before each state."""
    return pad(a, (by, 0), value=fill)[:, :-by]


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    """(10); a and b may be -inf; differentiable to any order even where they are equal."""
    high, low = torch.where(a > b, a, b), torch.where(a > b, b, a)
    return high + torch.exp(low - _finite(high)).log1p()


def _finite(a: Tensor) -> Tensor:
    return a.masked_fill(a == -_INFINITY, 0)  # -inf - -inf would be NaN


def _level(a: Tensor) -> Tensor:
    """The largest value over the states, as a constant reference level for a frame."""
    return _finite(a.detach().amax(-1, keepdim=True))


class _Walk(NamedTuple):
    alpha: Tensor  # (T + 1, N, K): (2), relative to a level of the frame
    level: Tensor  # (N, 1): the level of the last frame, not counting the levels of the emissions
    mean: Tensor | None  # (T + 1, N, K): (9)


def _arrivals(lattice: _Lattice, direction: Tensor | None = None) -> _Walk:
    """(2) for frames 0 to T, and (9) along ``direction``; both stay constant after a sample's last frame."""
    symbols, emissions, _, frames, *_ = lattice
    T, N, K = emissions.shape
    skip = symbols != _shifted(symbols, 2)
    states = torch.arange(K, device=emissions.device)
    alpha = emissions.new_zeros(N, K).masked_fill(states > 1, -_INFINITY)
    mean, level = torch.zeros_like(alpha), emissions.new_zeros(N, 1)
    alphas, means = [alpha], [mean]
    for t in range(T):
        here = alpha + emissions[t]
        one = _shifted(here, 1, -_INFINITY)
        two = _shifted(here, 2, -_INFINITY).masked_fill(~skip, -_INFINITY)
        after = _log_add(_log_add(here, one), two)
        if direction is not None:
            past = mean + direction[t]
            steps = (here, past), (one, _shifted(past, 1)), (two, _shifted(past, 2))
            stay, go, leap = (torch.exp(weight - _finite(after)) * value for weight, value in steps)
            mean = torch.where(frames[t], stay + go + leap, mean)
            means.append(mean)
        top = _level(after.masked_fill(states > lattice.last, -_INFINITY)).masked_fill(~frames[t], 0)
        alpha, level = torch.where(frames[t], after - top, alpha), level + top
        alphas.append(alpha)
    return _Walk(torch.stack(alphas), level, None if direction is None else torch.stack(means))


def _at_the_end(lattice: _Lattice, alpha: Tensor) -> Tensor:
    return alpha[-1].gather(1, lattice.last).squeeze(1)


def _posterior(lattice: _Lattice, direction: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """gamma of (6), a mask (N, 1) of impossible samples, for which all else is arbitrary, and the gain of (8)."""
    _, N, K = lattice.emissions.shape
    states = torch.arange(K, device=lattice.last.device)
    mirror = lattice._replace(
        symbols=lattice.symbols.gather(1, (lattice.last - states).clamp(min=0)),
        emissions=_mirrored(lattice, lattice.emissions),
    )
    both = _Lattice(*(torch.cat(pair, -2) for pair in zip(lattice, mirror, strict=True)))  # one walk for (2) and (3)
    along = None if direction is None else torch.cat((direction, _mirrored(lattice, direction)), 1)
    alpha_beta, _, mean = _arrivals(both, along)
    impossible = _at_the_end(lattice, alpha_beta[:, :N])[:, None] == -_INFINITY
    score = alpha_beta[:-1, :N] + lattice.emissions + _mirrored(lattice, alpha_beta[:-1, N:])
    score = score.masked_fill(states > lattice.last, -_INFINITY)
    gamma = score.masked_fill(~lattice.frames | impossible, 0).softmax(2)  # (6)
    if mean is not None:
        mean = mean[:-1, :N] + direction + _mirrored(lattice, mean[:-1, N:])
    return gamma, impossible, mean


@arguments.functional
def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Connectionist temporal classification; see :func:`torch.nn.functional.ctc_loss`.

    Args:
        log_probs: Log-probabilities of the symbols at each frame, floating point, of shape (T, N, C) or (T, C). Their
            exponentials need not sum to 1; the gradient is that of the function itself.
        targets: Labels in [0, C), of an integer dtype: of shape (N, S), where entries beyond a target's length are
            ignored, or all targets concatenated, of shape (sum of ``target_lengths``).
        input_lengths: The number of frames of each sample, at most T; an integer tensor, or a tuple or list of ints.
        target_lengths: The number of labels of each sample; a tensor or a sequence, like ``input_lengths``.
        blank: The symbol that separates labels.
        reduction: 'none', 'mean' (each loss divided by its target length, at least 1; then over the batch) or 'sum'.
        zero_infinity: Whether a target that no path can spell gives loss 0 and gradient 0 instead of inf and nan.

    Returns:
        A scalar, or for 'none' a tensor of shape (N), or () without a batch, in the dtype of ``log_probs`` (float32
        under autocast). ``log_probs`` may require a gradient, of any order.

    Raises:
        IndexError: a label is outside [0, C) (checked on the CPU).
        ValueError: ``reduction`` is unknown.
        RuntimeError: a length is negative, larger than T, or does not fit ``targets``; ``blank`` is outside [0, C);
            shapes that do not fit; ``log_probs`` is empty.
        TypeError: only one of the lengths is a tensor, or a sequence contains something other than ints.
        NotImplementedError: ``log_probs`` is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import ctc_loss
        >>> log_probs = torch.zeros(4, 2, 3).log_softmax(2)  # 4 frames, 2 samples, 3 symbols
        >>> targets = torch.tensor([[1, 2], [1, 1]])
        >>> ctc_loss(log_probs, targets, input_lengths=(4, 4), target_lengths=(2, 2), reduction="none")
        tensor([1.6864, 2.7850])
        >>> ctc_loss(log_probs, targets, input_lengths=(4, 2), target_lengths=(2, 2), zero_infinity=True)
        tensor(0.4216)
    """
    reduction = arguments.reduction_of(reduction)
    blank = arguments.integer("ctc_loss", "blank", blank)
    zero_infinity = arguments.boolean("ctc_loss", "zero_infinity", zero_infinity)
    for name, t in ("log_probs", log_probs), ("targets", targets):
        if not isinstance(t, Tensor):
            raise TypeError(f"ctc_loss(): argument '{name}' must be Tensor, not {type(t).__name__}")
    frames, labels = _lengths(input_lengths, target_lengths)
    (x,) = arguments.autocast(log_probs)
    batched = x.dim() != 2
    if not batched:
        x = x.unsqueeze(1)
    targets = targets.long()
    _check_shapes(x, targets, frames, labels, blank)
    if torch_private.is_transforming() or kernels.op(CTCLossFunction.kernel, x) is None:
        _check_values(x, targets, frames, labels)
    X = (x, *(t if t.device == x.device else t.to(x.device) for t in (targets, frames, labels)))
    loss = evaluate(CTCLossFunction, *X, blank, zero_infinity, reduction)
    return loss if batched or reduction != "none" else loss.squeeze(0)


def _lengths(input_lengths: Any, target_lengths: Any) -> tuple[Tensor, Tensor]:
    both = {"input_lengths": input_lengths, "target_lengths": target_lengths}
    if all(isinstance(lengths, Tensor) for lengths in both.values()):
        for name, lengths in both.items():
            if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype is torch.bool:
                raise RuntimeError(f"{name} must be integral, but got {lengths.dtype}")
        # copied, as in torch, because the caller may overwrite them before backward
        frames, labels = ((t.clone() if t.dtype is torch.int64 else t.long()).flatten() for t in both.values())
        return frames, labels
    if not all(isinstance(lengths, (tuple, list)) for lengths in both.values()):
        raise TypeError(
            "ctc_loss(): arguments 'input_lengths' and 'target_lengths' must both be tensors, or both tuples or lists "
            f"of ints, not {type(input_lengths).__name__} and {type(target_lengths).__name__}"
        )
    frames, labels = ([operator.index(n) for n in lengths] for lengths in both.values())
    return torch.tensor(frames, dtype=torch.int64), torch.tensor(labels, dtype=torch.int64)


def _check_shapes(x: Tensor, targets: Tensor, frames: Tensor, labels: Tensor, blank: int) -> None:
    if x.dim() != 3:
        raise RuntimeError(
            f"Expected 2 to 3 dimensions, but got {x.dim()}-dimensional tensor for argument #1 'log_probs'"
        )
    arguments.require_floating("ctc_loss", x)
    if x.numel() == 0:
        raise RuntimeError("log_probs tensor must not be empty")
    if targets.dim() not in (1, 2):
        raise RuntimeError(
            f"Expected 1 to 2 dimensions, but got {targets.dim()}-dimensional tensor for argument #2 'targets'"
        )
    _, samples, classes = x.shape
    if not 0 <= blank < classes:
        raise RuntimeError(f"blank must be in label range: expected 0 <= blank < {classes}, but got {blank}")
    for name, lengths in ("input_lengths", frames), ("target_lengths", labels):
        if lengths.numel() != samples:
            raise RuntimeError(f"{name} must be of size batch_size: expected {samples}, but got {lengths.numel()}")
    if targets.dim() == 2 and targets.shape[0] != samples:
        raise RuntimeError(
            f"Expected tensor to have size {samples} at dimension 0, but got size {targets.shape[0]} "
            "for argument #2 'targets'"
        )


def _check_values(x: Tensor, targets: Tensor, frames: Tensor, labels: Tensor) -> None:
    """The checks of the kernel, for calls without one; skipped on a GPU, where reading values would synchronize."""
    T, _, C = x.shape
    limits = {"target_lengths": (labels, None), "input_lengths": (frames, T)}
    for name, (lengths, most) in limits.items():
        for got in lengths.tolist() if arguments.readable(lengths) else ():
            if got < 0:
                raise RuntimeError(f"Expected {name} to have value at least 0, but got value {got}")
            if most is not None and got > most:
                raise RuntimeError(f"Expected {name} to have value at most {most}, but got value {got}")
    if not arguments.readable(labels):
        return
    size, total, longest = targets.shape[-1], sum(labels.tolist()), max(labels.tolist())
    wrong = f"{total} at dimension 0" if targets.dim() == 1 else f"at least {longest} at dimension 1"
    if size != total if targets.dim() == 1 else size < longest:
        raise RuntimeError(f"Expected tensor to have size {wrong}, but got size {size} for argument #2 'targets'")
    if arguments.readable(targets):
        outside = (targets < 0) | (targets >= C)
        if targets.dim() == 2:
            outside &= torch.arange(size) < labels[:, None]
        for got in targets[outside].tolist():
            raise IndexError(f"Target {got} is out of bounds: ctc_loss's targets must be in [0, {C})")


class CTCLoss(torch.nn.CTCLoss):
    """:func:`ctc_loss` as a module, interchangeable with :class:`torch.nn.CTCLoss`."""

    def forward(
        self,
        log_probs: Tensor,
        targets: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
    ) -> Tensor:
        return ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )
