r"""Cross entropy as the head of a language model: softcap, temperature, z-loss, weights of tokens.

**Where it comes from.** A language model is trained by the cross entropy of its next token, with a few additions. Its
logits :math:`z` are made of scores :math:`x` by a scale :math:`a`, a softcap :math:`\kappa` [1] and a temperature
:math:`T`, as in :mod:`~manual_grad.losses.rowwise.selected_log_prob`. The *z-loss* [2] keeps the normalizer of the
softmax near 1: it costs :math:`\lambda\, \mathrm{lse}(z)^2`. Tokens may count differently, and a batch may be a part of
a larger one, by whose tokens the sum is to be divided.

**Definition.** For one row (a token), with the effective target :math:`q` of
:mod:`~manual_grad.losses.rowwise.cross_entropy`, which combines the target with class weights and label smoothing,

.. math::
    z_c = \frac{\kappa}{T} \tanh\Big(\frac{a}{\kappa}\, x_c\Big) \quad\text{or}\quad z_c = \frac{a}{T}\, x_c \tag{1}

.. math::
    \ell = \sum_c q_c\, \big(\mathrm{lse}(z) - z_c\big) + \lambda\, \mathrm{lse}(z)^2, \qquad
    \mathrm{lse}(z) = \log \sum_c e^{z_c} \tag{2}

with the reductions 'none', :math:`\omega_n\, \ell_n` for each token, :math:`\omega_n` being its weight; 'sum', the sum
of that; and 'mean', the sum divided by one number, z-loss included:

* for class indices, by the sum of :math:`\omega_n w_{y_n}`, the weight of a token times that of its class, over the
  tokens that are not ignored;
* for probabilities, by the sum of :math:`\omega_n` over all tokens;
* given a normalizer, by that.

Gradients that are accumulated over parts of a batch are those of the whole if every part has the whole's normalizer;
means of parts of unequal numbers of tokens, averaged, are not.

**Gradient.** Cross entropy's slope is :math:`Q\, p_j - q_j`, and that of the log-sum-exp is the softmax :math:`p`:

.. math::
    \frac{\partial \ell}{\partial z_j} = \big(Q + 2 \lambda\, \mathrm{lse}(z)\big)\, p_j - q_j, \qquad
    p_j = e^{z_j - \mathrm{lse}(z)}, \qquad Q = \sum_c q_c \tag{3}

For the scores it is multiplied by :math:`\partial z_j / \partial x_j`. Targets enter linearly:

.. math::
    \frac{\partial \ell}{\partial q_c} = \mathrm{lse}(z) - z_c \tag{4}

**Stable form.** Whatever is added, (3) is a combination of the slopes of three numbers of the row, of which
:mod:`~manual_grad.losses.rowwise.selected_log_prob` has the rules: :math:`\log p_y`, a cross entropy with any weights
of the classes, and :math:`\mathrm{lse}(z)`. One sweep over the scores gives them all, and backward needs one more.
Everything else is arithmetic with a few numbers per token, and can require gradients: probabilities, class weights with
them, and the weights of tokens. For a class index,

.. math::
    q_c = w_c\, \Big( (1 - \varepsilon)\, [c = y] + \frac{\varepsilon}{C} \Big), \qquad
    \ell = -(1 - \varepsilon)\, w_y \log p_y + \frac{\varepsilon}{C} \sum_c w_c\, \big(\mathrm{lse}(z) - z_c\big)
    + \lambda\, \mathrm{lse}(z)^2 \tag{5}

A token with weight 0 is treated as an ignored one: it may hold anything, even NaN. (Not if the weight requires a
gradient, which is :math:`\ell`.)

**Second derivative.** The z-loss adds two terms to the Hessian of cross entropy:

.. math::
    \frac{\partial^2 \ell}{\partial z_i\, \partial z_j}
    = \big(Q + 2 \lambda\, \mathrm{lse}(z)\big)\, p_j\, ([i = j] - p_i) + 2 \lambda\, p_i\, p_j \tag{6}

There are no kinks.

**Shapes and domain.** As for cross entropy. Weights of tokens have the shape of class indices. With ``shift``, the
target of a position is the label of the next one, along the last dimension; the last position has none.

>>> import torch
>>> from manual_grad.functional import cross_entropy
>>> logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 1.0, 3.0], [1.0, 0.0, -1.0]]])  # (batch, sequence, classes)
>>> labels = torch.tensor([[0, 2, 2]])
>>> found = cross_entropy(logits.mT, labels, shift=True, z_loss=1e-4, return_z_loss=True, accuracy=True)
>>> found.loss, found.z_loss
(tensor(0.7895), tensor(0.0008))
>>> found.correct
tensor([[False,  True, False]])

Sources:

1. Gemma Team, "Gemma 2: Improving Open Language Models at a Practical Size" (2024),
   `arXiv:2408.00118 <https://arxiv.org/abs/2408.00118>`_, for the softcap.
2. Aakanksha Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways" (2022),
   `arXiv:2204.02311 <https://arxiv.org/abs/2204.02311>`_, section 5, for the z-loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, collectives, rowwise, torch_private
from manual_grad.engine.dtypes import compute_dtype
from manual_grad.engine.function import Options, Reduction, Tensors
from manual_grad.engine.reduction import total
from manual_grad.engine.rowwise import RowwiseLoss
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction, logits_of

SKIPPED = -100  # stands for a row of probabilities that does not count


class CrossEntropyOutput(NamedTuple):
    """What cross entropy returns if more than the loss was asked for; None for what was not."""

    loss: Tensor
    z_loss: Tensor | None = None
    lse: Tensor | None = None
    correct: Tensor | None = None


class WithHead:
    """What a Module adds to cross entropy. Only what is not the default is in its state, which else is torch's."""

    temperature: float = 1.0
    softcap: float | None = None
    logit_scale: float = 1.0
    z_loss: float = 0.0
    shift: bool = False

    def add(self, **additions: Any) -> None:
        for name, value in additions.items():
            if value != getattr(WithHead, name):
                setattr(self, name, value)

    def additions(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in WithHead.__annotations__}

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """torch's own Module, which torch.jit.script compiles in place of this one."""
        added = {name: value for name, value in self.additions().items() if value != getattr(WithHead, name)}
        if added:
            raise RuntimeError(f"torch.jit.script knows only torch's {type(self).__name__}, without {', '.join(added)}")
        scriptable = copy.copy(self)
        scriptable.__class__ = type(self).__bases__[-1]  # type: ignore[assignment]
        return scriptable  # type: ignore[return-value]


class Head(NamedTuple):
    """What is added to a cross entropy."""

    logits: tuple[float, float, float]  # temperature, softcap (0: none) and scale
    z_loss: float
    token_weight: Tensor | None
    normalizer: Tensor | float | None
    outputs: tuple[bool, bool, bool]  # whether to return the z-loss, the log-sum-exp, the accuracy

    @property
    def only_divides(self) -> bool:
        """Whether it is cross entropy's sum, divided by the normalizer if there is one."""
        rest = (*self.logits, self.z_loss, *self.outputs)
        return self.token_weight is None and rest == (1.0, 0.0, 1.0, 0.0, False, False, False)


def head_of(
    name: str, reduction: str, temperature: float, softcap: float | None, logit_scale: float, z_loss: float,
    shift: bool, return_z_loss: bool, lse: bool, accuracy: bool, token_weight: Tensor | None,
    normalizer: Tensor | float | None,
) -> Head:  # fmt: skip
    """The additions, checked."""
    flags = shift, return_z_loss, lse, accuracy
    for argument, flag in zip(("shift", "return_z_loss", "lse", "accuracy"), flags, strict=True):
        arguments.boolean(name, argument, flag)
    arguments.divides_a_mean(name, normalizer, reduction)
    if token_weight is not None and token_weight.is_complex():
        raise RuntimeError(f"{name}(): argument 'token_weight' must be real, but got {token_weight.dtype}")
    logits = logits_of(name, temperature, softcap, logit_scale, SKIPPED)[1:]
    z_loss = arguments.not_negative(name, "z_loss", z_loss)
    return Head(logits, z_loss, token_weight, normalizer, flags[1:])


# the additions but for the tensors, in the order in which head_of takes them, where nothing is added
NOTHING = (1.0, None, 1.0, 0.0, False, False, False, False)


def shifted(name: str, target: Tensor, ignore_index: int) -> Tensor:
    """The class index of the next position for each, along the last dimension; the last position is ignored."""
    if target.is_floating_point():
        raise RuntimeError(f"{name}(): argument 'shift' is for class indices, but target holds probabilities")
    if not target.dim():
        raise RuntimeError(f"{name}(): argument 'shift' needs a target with a dimension")
    return torch.cat([target[..., 1:], torch.full_like(target[..., :1], ignore_index)], -1)


def combined(found: Mapping[str, Tensor], factor: Tensor | None, z_loss: float) -> tuple[Tensor, Tensor | None]:
    """(5) from the numbers of each row, and the part of it that is the z-loss."""
    loss: Any = found.get("cross", 0.0)
    if factor is not None:
        loss = loss - torch.where(factor == 0, 0, factor * found["log_prob"])  # 0 log 0 = 0
    added = z_loss * found["lse"].square() if z_loss else None
    return loss if added is None else loss + added, added


class CrossEntropyHeadFunction(RowwiseLoss):
    """``apply(input, index, q, factor, omega, state, outputs, z_loss, *options, reduction)``, the weighted loss (5).

    It is made of ``outputs`` of :class:`SelectedLogProbFunction`, whose options, from ``ignore_index``, are the last.
    ``factor`` multiplies the negative log-probability, ``omega`` the loss of the row; both, like ``q``, are constants.
    """

    tensors = 6
    kernel = "log_prob"

    @classmethod
    def dtype(cls, X: Tensors, *options: Any) -> torch.dtype:
        return torch.float64

    @classmethod
    def value(cls, X: Tensors, outputs: str, z_loss: float, *options: Any) -> Tensor:
        return X[4] * combined(cls.numbers(X, outputs, *options), X[3], z_loss)[0]

    @classmethod
    def numbers(cls, X: Tensors, outputs: str, *options: Any) -> dict[str, Tensor]:
        rows = SelectedLogProbFunction.value((*X[:3], None), outputs, X[0].dtype, *options)
        return dict(zip(outputs.split(), rows.unbind(), strict=True))

    @staticmethod
    def upstream(g: Tensor, found: Mapping[str, Tensor], factor: Tensor | None, omega: Tensor, z_loss: float) -> Tensor:
        """The derivative of the loss by each of the numbers, stacked; (3) by the chain rule."""
        each = {
            "log_prob": lambda: -factor * omega * g,
            "lse": lambda: 2 * z_loss * omega * g * found["lse"],
            "cross": lambda: omega * g,
        }
        return torch.stack([each[name]() for name in found])

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, outputs: str, z_loss: float, *options: Any) -> Tensors:
        up = cls.upstream(g, cls.numbers(X, outputs, *options), X[3], X[4], z_loss)
        dx, *_ = SelectedLogProbFunction.gradient(up, (*X[:3], None), outputs, X[0].dtype, *options)
        return dx, *(None for _ in X[1:])

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, outputs: str, z_loss: float, *options: Any) -> Tensors:
        nothing = tuple(None for _ in X[1:])
        if v[0] is None:
            return None, *nothing
        x, *_ = Y = (*X[:3], None)
        up = cls.upstream(g, cls.numbers(X, outputs, *options), X[3], X[4], z_loss)
        hx, *_ = SelectedLogProbFunction.curvature(up, Y, (v[0], None, None, None), outputs, x.dtype, *options)
        if z_loss:  # the second term of (6)
            slope, *_ = SelectedLogProbFunction.gradient(torch.ones_like(up[:1]), Y, "lse", x.dtype, *options)
            dim = rowwise.class_dim(x)
            moved = (slope * v[0]).sum(dim)
            hx = hx + (2 * z_loss * X[4] * g * moved).unsqueeze(dim) * slope
        return hx, *nothing

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        (x, y, q, factor, omega, state), (outputs, z_loss, *rest) = X, options
        op = None if state is None else kernels.op(cls.kernel, x)
        if op is None:
            return None
        rows = SelectedLogProbFunction.buffers(x, outputs, torch.float64)
        of_rows = (x, y, q, state), (outputs, torch.float64, *rest)
        SelectedLogProbFunction.run(op, *of_rows, rows, None, None)
        found = dict(zip(outputs.split(), rows, strict=True))
        loss = dx = None
        if value:
            loss = omega * combined(found, factor, z_loss)[0]
            loss = loss if reduction == "none" else total(loss)
        if needs[0]:
            dx = torch.empty_like(x)
            g = omega.new_ones(()) if g is None else g.double()
            SelectedLogProbFunction.run(op, *of_rows, None, cls.upstream(g, found, factor, omega, z_loss), dx)
        return loss, [dx, *(None for _ in X[1:])]


class Targets(NamedTuple):
    """What the rows aim at, in the terms of (5)."""

    y: Tensor  # the class of each row, or the ignored index
    q: Tensor | None  # weights of the classes, of the scores' shape
    factor: Tensor | None  # what multiplies -log p_y
    counts: Tensor  # what a row adds to the denominator
    outputs: str  # the numbers of each row that are needed


def targets_of(
    scores: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float,
    token: Tensor | None, head: Head,
) -> Targets:  # fmt: skip
    """The targets from class indices or probabilities; ``scores`` has the shape of the scores, but is not read."""
    dim = rowwise.class_dim(scores)
    classes, beside = scores.shape[dim], (1,) * (scores.dim() - dim - 1)
    wide = torch.promote_types(compute_dtype(scores), torch.float32)  # digits may cancel in Q p - q
    by_class = None if weight is None else weight.to(wide).view(-1, *beside)
    _, lse, accuracy = head.outputs
    by_index = not target.is_floating_point()
    q = None
    if by_index:
        y = target
        if label_smoothing:
            share = torch.full((1, *beside), label_smoothing / classes, dtype=wide, device=scores.device)
            q = (share if by_class is None else by_class * share).expand(scores.shape)
    else:
        q = target.to(torch.promote_types(target.dtype, torch.float32))
        if label_smoothing:
            q = (1 - label_smoothing) * q.to(wide) + label_smoothing / classes
        q = q if by_class is None else by_class * q
        with torch.no_grad():
            y = target.argmax(dim) if accuracy else target.new_zeros(_rows(scores), dtype=torch.int64)
        ignore_index = SKIPPED
    if token is not None and not token.requires_grad:  # if it does, its gradient is the loss of the row
        y = torch.where(token == 0, ignore_index, y)
    kept = y != ignore_index
    counts, factor = kept.double(), None
    if by_index:
        if weight is not None:
            counts = torch.where(kept, rowwise.each_of(weight.double(), torch.where(kept, y, 0)), 0)
        factor = (1 - label_smoothing) * counts
    wanted = dict(log_prob=by_index, lse=bool(head.z_loss) or lse, cross=q is not None, correct=accuracy)
    return Targets(y, q, factor, counts, " ".join(name for name, is_wanted in wanted.items() if is_wanted))


def evaluate_head(
    name: str,
    stacked: Callable[[Tensor, Tensor | None, str], Tensor],
    summed: Callable[[Targets, Tensor, float], Tensor],
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    head: Head,
) -> Tensor | CrossEntropyOutput:
    """The loss, from the float64 numbers of each row that ``stacked`` returns for indices, weights and outputs.

    Where only the reduced loss is asked for, and nothing but the scores requires a gradient, ``summed`` returns it for
    targets, weights of the rows and the factor of the z-loss: a :class:`CrossEntropyHeadFunction`.

    ``scores`` has the shape and the dtype of the scores, but is not read. ``target`` holds class indices that have been
    checked, or probabilities; ``weight`` is (C).
    """
    token = token_of(name, _rows(scores), head)
    aim = targets_of(scores, target, weight, ignore_index, label_smoothing, token, head)
    omega, of_nothing = shares(token, aim.counts, reduction, head)
    constant = not any(t is not None and t.requires_grad for t in (aim.q, omega))
    if reduction != "none" and not any(head.outputs) and constant and not torch_private.is_intercepted():
        one = torch.ones((), dtype=torch.float64, device=scores.device) if omega is None else omega
        loss = summed(aim, one.expand(_rows(scores)), head.z_loss)
        return (loss / 0 if of_nothing else loss).to(scores.dtype)
    found = dict(zip(aim.outputs.split(), stacked(aim.y, aim.q, aim.outputs).unbind(), strict=True))
    return finished(found, aim.factor, omega, of_nothing, reduction, head, scores.dtype)


def token_of(name: str, rows: torch.Size, head: Head) -> Tensor | None:
    """The weights of the tokens, checked."""
    token = head.token_weight
    if token is not None and token.shape != rows:
        raise RuntimeError(
            f"{name}(): argument 'token_weight' must have shape {list(rows)}, but got {list(token.shape)}"
        )
    return None if token is None else token.double()


def shares(token: Tensor | None, counts: Tensor, reduction: str, head: Head) -> tuple[Tensor | None, bool]:
    """The weights of the rows, divided for the mean; and whether that is a mean of nothing, which is NaN as torch's."""
    if reduction != "mean":
        return token, False
    divisor, of_nothing = head.normalizer, False
    if divisor is None:
        divisor = collectives.of_batch(total(counts if token is None else token * counts), counts)
        of_nothing = not counts.numel() and not collectives.batch_groups()
    if not isinstance(divisor, Tensor):
        divisor = torch.full((), divisor, dtype=torch.float64, device=counts.device)
    return (1.0 if token is None else token) / divisor.double(), of_nothing


def finished(
    found: Mapping[str, Tensor], factor: Tensor | None, omega: Tensor | None, of_nothing: bool, reduction: str,
    head: Head, dtype: torch.dtype,
) -> Tensor | CrossEntropyOutput:  # fmt: skip
    """The loss, and what else is asked for, from the numbers of each row."""
    loss, z_loss = combined(found, factor, head.z_loss)
    z_loss = torch.zeros_like(loss) if z_loss is None else z_loss
    if omega is not None:
        loss, z_loss = omega * loss, omega * z_loss
    if reduction != "none":
        loss, z_loss = total(loss), total(z_loss)
    if of_nothing:
        loss, z_loss = loss / 0, z_loss / 0
    if not any(head.outputs):
        return loss.to(dtype)
    return_z_loss, lse, accuracy = head.outputs
    return CrossEntropyOutput(
        loss.to(dtype),
        z_loss.to(dtype) if return_z_loss else None,
        found["lse"].to(dtype) if lse else None,
        found["correct"] != 0 if accuracy else None,
    )


def _rows(scores: Tensor) -> torch.Size:
    dim = rowwise.class_dim(scores)
    return scores.shape[:dim] + scores.shape[dim + 1 :]
