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

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manual_grad.engine import arguments, rowwise
from manual_grad.engine.dtypes import compute_dtype
from manual_grad.engine.reduction import total
from manual_grad.losses.rowwise.selected_log_prob import logits_of

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
    token_weight: Tensor | None, normalizer: Tensor | float | None, shift: bool, return_z_loss: bool, lse: bool,
    accuracy: bool,
) -> Head | None:  # fmt: skip
    """The additions, checked; None if there are none, which is asked first, for the sake of small losses."""
    flags = shift, return_z_loss, lse, accuracy
    if token_weight is None and normalizer is None and (temperature, softcap, logit_scale, z_loss, *flags) == _NONE:
        return None
    for argument, flag in zip(("shift", "return_z_loss", "lse", "accuracy"), flags, strict=True):
        arguments.boolean(name, argument, flag)
    if normalizer is not None and reduction != "mean":
        raise ValueError(f"{name}(): argument 'normalizer' needs reduction='mean', but got {reduction!r}")
    if token_weight is not None and token_weight.is_complex():
        raise RuntimeError(f"{name}(): argument 'token_weight' must be real, but got {token_weight.dtype}")
    logits = logits_of(name, temperature, softcap, logit_scale, SKIPPED)[1:]
    z_loss = arguments.not_negative(name, "z_loss", z_loss)
    return Head(logits, z_loss, token_weight, normalizer, flags[1:])


_NONE = (1.0, None, 1.0, 0.0, False, False, False, False)


def shifted(name: str, target: Tensor, ignore_index: int) -> Tensor:
    """The class index of the next position for each, along the last dimension; the last position is ignored."""
    if target.is_floating_point():
        raise RuntimeError(f"{name}(): argument 'shift' is for class indices, but target holds probabilities")
    if not target.dim():
        raise RuntimeError(f"{name}(): argument 'shift' needs a target with a dimension")
    return torch.cat([target[..., 1:], torch.full_like(target[..., :1], ignore_index)], -1)


def evaluate_head(
    name: str,
    stacked: Callable[[Tensor, Tensor | None, str], Tensor],
    scores: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    head: Head,
) -> Tensor | CrossEntropyOutput:
    """The loss, from the float64 numbers of each row that ``stacked`` returns for indices, weights and outputs.

    ``scores`` has the shape and the dtype of the scores, and dimension ``dim`` for the classes, but is not read.
    ``target`` holds class indices that have been checked, or probabilities; ``weight`` is (C).
    """
    dim = rowwise.class_dim(scores)
    rows, classes = scores.shape[:dim] + scores.shape[dim + 1 :], scores.shape[dim]
    wide = torch.promote_types(compute_dtype(scores), torch.float32)  # digits may cancel in Q p - q
    by_class = None if weight is None else weight.to(wide).view(-1, *(1,) * (scores.dim() - dim - 1))
    token = head.token_weight
    if token is not None:
        if token.shape != rows:
            expected, found = list(rows), list(token.shape)
            raise RuntimeError(f"{name}(): argument 'token_weight' must have shape {expected}, but got {found}")
        token = token.double()
    return_z_loss, lse, accuracy = head.outputs
    outputs, q = ["log_prob"], None
    if target.is_floating_point():
        q, outputs = target.to(torch.promote_types(target.dtype, torch.float32)), ["cross"]
        if label_smoothing:
            q = (1 - label_smoothing) * q.to(wide) + label_smoothing / classes
        if by_class is not None:
            q = by_class * q
        with torch.no_grad():
            y = target.argmax(dim) if accuracy else torch.zeros(rows, dtype=torch.int64, device=scores.device)
        ignore_index = SKIPPED
    else:
        y = target
        if label_smoothing:
            share = torch.full((1,), label_smoothing / classes, dtype=wide, device=scores.device)
            share = share.view(-1, *(1,) * (scores.dim() - dim - 1)) if by_class is None else by_class * share
            q, outputs = share.expand(scores.shape), ["log_prob", "cross"]
    if token is not None and not token.requires_grad:  # if it does, its gradient is the loss of the row
        y = torch.where(token == 0, ignore_index, y)
    kept = y != ignore_index
    if head.z_loss or lse:
        outputs.append("lse")
    order = ("log_prob", "lse", "cross")
    outputs = [*sorted(outputs, key=order.index), *(("correct",) if accuracy else ())]
    found = dict(zip(outputs, stacked(y, q, " ".join(outputs)).unbind(), strict=True))

    counts = kept.double()  # what a row adds to the denominator
    loss = found.get("cross", 0.0)
    if "log_prob" in found:
        if weight is not None:
            counts = torch.where(kept, rowwise.each_of(weight.double(), torch.where(kept, y, 0)), 0)
        factor = (1 - label_smoothing) * counts
        loss = loss - torch.where(factor == 0, 0, factor * found["log_prob"])  # (5); 0 log 0 = 0
    z_loss = head.z_loss * found["lse"].square() if head.z_loss else None  # (2)
    if z_loss is not None:
        loss = loss + z_loss
    if token is not None:
        loss, counts = token * loss, token * counts
        z_loss = None if z_loss is None else token * z_loss
    if reduction != "none":
        divisor = 1.0 if reduction == "sum" else total(counts) if head.normalizer is None else head.normalizer
        loss = total(loss) / divisor
        z_loss = None if z_loss is None else total(z_loss) / divisor
    result = loss.to(scores.dtype)
    if not any(head.outputs):
        return result
    return CrossEntropyOutput(
        result,
        (torch.zeros_like(loss) if z_loss is None else z_loss).to(scores.dtype) if return_z_loss else None,
        found["lse"].to(scores.dtype) if lse else None,
        found["correct"] != 0 if accuracy else None,
    )
