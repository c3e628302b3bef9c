r"""Cross entropy of logits.

**Where it comes from.** A classifier assigns each of :math:`C` classes a score :math:`z_c`, any real number.
Exponentials make the scores positive, and dividing them by their sum makes them probabilities. Bridle [1] called this
the softmax:

.. math::
    p_c = \frac{e^{z_c}}{\sum_j e^{z_j}} = e^{z_c - \mathrm{lse}(z)}, \qquad
    \mathrm{lse}(z) = \log \sum_j e^{z_j} \tag{1}

If class :math:`y` was observed, its likelihood is :math:`p_y`, and maximum likelihood minimizes :math:`-\log p_y`. If
the target is itself a distribution (of votes, from a teacher model, or a smoothed label [3]), the loss is the average
:math:`-\sum_c t_c \log p_c`, the cross entropy of :math:`t` and :math:`p`.

**Definition.** One formula covers every kind of target:

.. math::
    \ell = \sum_c q_c\, d_c, \qquad d_c = \mathrm{lse}(z) - z_c = -\log p_c \ge 0 \tag{2}

where, with class weights :math:`w` and label smoothing :math:`\varepsilon`,

.. math::
    q_c = w_c\, \tilde t_c, \qquad \tilde t_c = (1 - \varepsilon)\, t_c + \frac{\varepsilon}{C} \tag{3}

and a class index :math:`y` stands for the distribution :math:`t_c = [c = y]`. 'mean' divides the sum over the rows by
:math:`\sum_n w_{y_n}` for class indices (rows with ``ignore_index`` are left out) and by the number of rows for
probabilities.

**Gradient.** The derivative of a logarithm is that of its argument divided by the argument, and only one of the
exponentials in (1) depends on :math:`z_j`. So the gradient of the log-sum-exp, a smooth maximum, is the softmax. Hence
:math:`\partial d_c / \partial z_j = p_j - [c = j]`, and (2) gives

.. math::
    \frac{\partial\, \mathrm{lse}(z)}{\partial z_j} = p_j, \qquad
    \frac{\partial \ell}{\partial z_j} = \sum_c q_c\, (p_j - [c = j]) = Q\, p_j - q_j, \qquad Q = \sum_c q_c \tag{4}

which is the well-known :math:`p - y`. Targets and weights enter linearly:

.. math::
    \frac{\partial \ell}{\partial q_c} = d_c, \qquad
    \frac{\partial \ell}{\partial t_c} = (1 - \varepsilon)\, w_c\, d_c, \qquad
    \frac{\partial \ell}{\partial w_c} = \tilde t_c\, d_c \tag{5}

**Stable form.** As written, (1) overflows in float32 for a logit of 89, and a probability underflows to 0, whose
logarithm is infinite, once its logit is 104 below the largest:

>>> import torch
>>> from manual_grad.functional import cross_entropy
>>> z = torch.tensor([89.0, 0.0])
>>> z.exp() / z.exp().sum()
tensor([nan, 0.])
>>> z = torch.tensor([0.0, -104.0])
>>> -(z.exp() / z.exp().sum()).log(), cross_entropy(z, torch.tensor(1))
(tensor([-0., inf]), tensor(104.))

A factor :math:`e^m` can be taken out of every term of the sum, which adds :math:`m` to the logarithm. With the largest
logit :math:`m = z_k` no exponent is positive, so nothing overflows. The sum is 1 plus the contribution :math:`\rho` of
the other classes, so it cannot vanish (Blanchard, Higham and Higham [2] bound the rounding errors):

.. math::
    \mathrm{lse}(z) = m + \log(1 + \rho), \qquad \rho = \sum_{c \ne k} e^{z_c - m}, \qquad m = z_k \tag{6}

As the model becomes confident, :math:`\rho \to 0`. ``log1p`` keeps every digit of it, while :math:`\log(1 + \rho)`
rounds to 0 in float32 from a gap of 17 on. The two terms of

.. math::
    d_c = (m - z_c) + \log(1 + \rho) \tag{7}

are not negative, so nothing cancels. In (4), digits do cancel for the leading class: :math:`p_k` is rounded before 1 is
subtracted. But :math:`1 - p_k = \rho / (1 + \rho)` is known to the last digit, so

.. math::
    \frac{\partial \ell}{\partial z_k} = Q p_k - q_k = \sum_{c \ne k} q_c - Q\, \frac{\rho}{1 + \rho} \tag{8}

is accurate. For a class index this is :math:`-w_y \sum_{c \ne y} p_c`: the leading class is pushed up exactly as hard
as all others are pushed down. If :math:`p_k < \frac12`, that is :math:`\rho > 1`, (4) is the accurate form. A softmax
followed by a logarithm loses these digits before the loss is reached, and needs two more passes over the row:

>>> z, y = torch.tensor([20.0, 0.0, 0.0], requires_grad=True), torch.tensor(0)
>>> apart, fused = -z.softmax(0).log()[y], cross_entropy(z, y)
>>> f"{apart:.4e}", f"{fused:.4e}"
('-0.0000e+00', '4.1223e-09')
>>> torch.autograd.grad(apart, z)[0], torch.autograd.grad(fused, z)[0]
(tensor([0.0000e+00, 2.0612e-09, 2.0612e-09]), tensor([-4.1223e-09,  2.0612e-09,  2.0612e-09]))

:math:`m` and :math:`\rho` can also be computed for subsets of the classes and then merged; see
:mod:`~manual_grad.engine.softmax`.

**Second derivative.** By the quotient rule, a probability increases with its own logit and decreases with the others.
The Hessian is :math:`Q\,(\operatorname{diag}(p) - p p^\top)`, which is :math:`Q` times the covariance of a one-hot
sample from :math:`p`. For :math:`Q \ge 0` it has no negative eigenvalue, so the loss is convex in the logits:

.. math::
    \frac{\partial p_j}{\partial z_i} = p_j\, ([i = j] - p_i), \qquad
    \frac{\partial^2 \ell}{\partial z_i\, \partial z_j} = Q\, p_j\, ([i = j] - p_i) \tag{9}

Its product with a direction needs no matrix. Let a dot denote the derivative along the direction :math:`v` in which
logits, targets and weights change:

.. math::
    (H v)_{z_j} = Q\, p_j\, (\dot z_j - \mu) + p_j \sum_c \dot q_c - \dot q_j, \qquad
    (H v)_{q_c} = \mu - \dot z_c, \qquad \mu = \sum_c p_c\, \dot z_c \tag{10}

.. math::
    \dot q_c = (1 - \varepsilon)\, w_c\, \dot t_c + \tilde t_c\, \dot w_c, \qquad
    (H v)_{t_c} = (1 - \varepsilon) \big(w_c\, (H v)_{q_c} + d_c\, \dot w_c\big), \qquad
    (H v)_{w_c} = \tilde t_c\, (H v)_{q_c} + (1 - \varepsilon)\, d_c\, \dot t_c \tag{11}

There are no kinks.

**The same loss by other names.** It is the negative log-likelihood of a log-softmax :math:`x`
(:mod:`~manual_grad.losses.rowwise.nll_loss`) and, up to the entropy of the target, the Kullback-Leibler divergence
(:mod:`~manual_grad.losses.pointwise.kl_div`):

.. math::
    \ell = -\sum_c q_c\, x_c, \quad x_c = z_c - \mathrm{lse}(z), \qquad
    \sum_{c:\, t_c > 0} t_c \log \frac{t_c}{p_c} = \sum_c t_c\, d_c - \eta, \quad
    \eta = -\sum_{c:\, t_c > 0} t_c \log t_c \tag{12}

>>> from manual_grad.functional import nll_loss
>>> z = torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 3.0]]).double()
>>> y = torch.tensor([2, 0])
>>> one_hot = torch.nn.functional.one_hot(y, 3).double()
>>> loss = cross_entropy(z, y)
>>> (torch.stack([nll_loss(z.log_softmax(1), y), cross_entropy(z, one_hot)]) - loss).abs().max() < 1e-15
tensor(True)

**Shapes and domain.** Logits are :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, \dots)`. Targets are class indices
in :math:`[0, C)`, of that shape without the :math:`C`, or probabilities, of that shape. A logit of :math:`-\infty`
rules out a class; :math:`0 \log 0` is 0.

Sources:

1. John S. Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", Neurocomputing, NATO
   ASI Series 68 (1990) 227-236, `doi:10.1007/978-3-642-76153-9_28 <https://doi.org/10.1007/978-3-642-76153-9_28>`_.
2. Pierre Blanchard, Desmond J. Higham and Nicholas J. Higham, "Accurately computing the log-sum-exp and softmax
   functions", IMA J. Numerical Analysis 41 (2021) 2311-2330,
   `doi:10.1093/imanum/draa038 <https://doi.org/10.1093/imanum/draa038>`_.
3. Christian Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015),
   `arXiv:1512.00567 <https://arxiv.org/abs/1512.00567>`_, for label smoothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, rowwise
from manual_grad.engine.dtypes import HALF, dtype_of_loss
from manual_grad.engine.function import Options, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss, class_dim
from manual_grad.engine.softmax import State
from manual_grad.losses.rowwise import selected_log_prob
from manual_grad.losses.rowwise.cross_entropy_head import (
    NOTHING,
    SKIPPED,
    CrossEntropyHeadFunction,
    Head,
    Targets,
    WithHead,
    evaluate_head,
    head_of,
    shifted,
)


class CrossEntropyLossFunction(RowwiseLoss):
    """``apply(input, target, weight, ignore_index, label_smoothing, reduction)``.

    ``input`` is (C) or (N, C, d1, …). A floating point ``target`` holds probabilities; it and ``weight`` (or None) have
    the input's shape. An integer ``target`` holds class indices, of shape () or (N, d1, …), and ``weight`` is (C).
    """

    tensors = 3
    kernel = "cross_entropy"
    swept = 3
    weighs = True

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, ignore_index: int, label_smoothing: float) -> Tensor | float:
        z, t, w = X
        if t.is_floating_point():
            return loss.numel() if z.numel() else float("nan")
        return rowwise.kept_weight(t, w, ignore_index, loss)

    @classmethod
    def value(cls, X: Tensors, ignore_index: int, label_smoothing: float) -> Tensor:
        if X[0].numel() == 0:
            return X[0].sum(class_dim(X[0]))
        q, kept = _effective_target(X, ignore_index, label_smoothing)
        loss = State.of(X[0], q, value=True).finish()  # (2)
        return (loss if kept is None else torch.where(kept, loss, 0)).squeeze(class_dim(X[0]))

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, ignore_index: int, label_smoothing: float) -> Tensors:
        z, t, w = X
        if z.numel() == 0:
            return tuple(None if u is None else torch.zeros_like(u) for u in X)
        q, kept = _effective_target(X, ignore_index, label_smoothing)
        state, g = State.of(z, q), g.unsqueeze(class_dim(z))
        dz = g * state.slope(z, q)  # (4) (8)
        if not t.is_floating_point():
            return torch.where(kept, dz, 0), None, None
        nll = state.distances(z)  # (7)
        dt, dw = g * (1 - label_smoothing) * nll, None  # (5)
        if w is not None:
            dt, dw = w * dt, g * _smooth(t, label_smoothing, z.shape[class_dim(z)]) * nll
        return dz, dt, dw

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, ignore_index: int, label_smoothing: float) -> Tensors:
        (z, t, w), (vz, vt, vw) = X, v
        dim, g = class_dim(z), g.unsqueeze(class_dim(z))
        q, kept = _effective_target(X, ignore_index, label_smoothing)
        if kept is not None:
            z = torch.where(kept, z, 0)  # an ignored row contributes nothing, whatever it holds
        p, total = z.softmax(dim), q.sum(dim, keepdim=True)
        zero = torch.zeros_like(z)
        vz = zero if vz is None else vz
        spread = vz - (p * vz).sum(dim, keepdim=True)  # v - <v>
        hz = total * p * spread
        if not t.is_floating_point():
            return torch.where(kept, g * hz, 0), None, None  # (10); the mean of no rows has an infinite g
        keep, smooth = 1 - label_smoothing, _smooth(t, label_smoothing, z.shape[dim])
        vt = zero if vt is None else vt
        delta = keep * vt if w is None else keep * w * vt
        ht, hw = -spread, None
        if w is not None:
            vw = zero if vw is None else vw
            nll = State.of(z).distances(z) if z.numel() else z
            delta = delta + smooth * vw
            hw = g * (keep * vt * nll - smooth * spread)
            ht = vw * nll - w * spread
        hz = hz + p * delta.sum(dim, keepdim=True) - delta
        return g * hz, g * keep * ht, hw  # (10) (11)

    @classmethod
    def scale(cls, X: Tensors, options: Options) -> float:
        return super().scale(X, options) if X[1].is_floating_point() else 1.0


def smoothing_of(label_smoothing: float) -> float:
    """The validated label smoothing; 0 if it is negative or NaN, as in torch."""
    if label_smoothing > 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    return label_smoothing if label_smoothing > 0 else 0.0


def _smooth(t: Tensor | float, label_smoothing: float, classes: int) -> Any:
    return (1 - label_smoothing) * t + label_smoothing / classes if label_smoothing else t


def _effective_target(X: Tensors, ignore_index: int, label_smoothing: float) -> tuple[Tensor, Tensor | None]:
    """q of (3) and, for class indices, a mask of the rows that are kept."""
    z, t, w = X
    dim = class_dim(z)
    if t.is_floating_point():
        q = _smooth(t, label_smoothing, z.shape[dim])
        return (q if w is None else w * q), None
    kept, y = (u.unsqueeze(dim) for u in rowwise.kept_rows("cross_entropy", t, z.shape[dim], ignore_index))
    q = _smooth(torch.zeros_like(z).scatter(dim, y, 1), label_smoothing, z.shape[dim])
    if w is not None:
        # q stays 0 even if the weight is NaN or infinite
        q = torch.where(q == 0, 0, w.view(-1, *(1,) * (z.dim() - dim - 1)) * q)
    return torch.where(kept, q, 0), kept


@arguments.functional
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    z_loss: float = 0.0,
    token_weight: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    shift: bool = False,
    return_z_loss: bool = False,
    lse: bool = False,
    accuracy: bool = False,
    group: Any = None,
) -> Any:
    """Cross entropy of logits; see :func:`torch.nn.functional.cross_entropy`.

    What follows ``label_smoothing`` torch does not have; see :mod:`~manual_grad.losses.rowwise.cross_entropy_head`.

    Args:
        input: Logits (any real numbers, not the probabilities that a softmax returns), floating point, of shape (C),
            (N, C) or (N, C, d1, …, dk).
        target: Class indices in [0, C), int64 or uint8, of shape (), (N) or (N, d1, …, dk); or class probabilities,
            floating point, of the input's shape.
        weight: Optional weight of each class, of shape (C); under autocast it may have any dtype.
        size_average, reduce: Deprecated; they override ``reduction``.
        ignore_index: Rows with this class index count neither in the loss nor in the mean; for class indices only.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the total weight of the rows that are not ignored, or
            for probabilities by the number of rows; if every row is ignored it is nan.
        label_smoothing: The fraction, at most 1, of the target that is spread evenly over the classes; a negative one
            counts as 0, as in torch.
        temperature: Divides the logits; positive.
        softcap: Bounds them: c tanh(x / c) replaces x before it is divided by the temperature.
        logit_scale: Multiplies the input before anything else; positive.
        z_loss: Factor of the squared log-sum-exp of the logits, which is added to the loss of each row.
        token_weight: Weight of each row, in the shape of class indices and of any real dtype or bool; it may require a
            gradient. Rows with weight 0 may hold anything.
        normalizer: What 'mean' divides by in place of the weight of the rows: a number or a scalar tensor.
        shift: Whether the target of each position is the class index of the next one, along the last dimension.
        return_z_loss, lse, accuracy: What else to return.
        group: A process group over which the classes are spread. ``input``, ``weight`` and a target of probabilities
            then hold this process's classes, of which there may be any number; class indices are those of all classes,
            in the order of the processes. Every process gets the whole loss, and its part of the gradient. See
            :mod:`~manual_grad.sharding`.

    Returns:
        A scalar, or for 'none' a tensor of shape (), (N) or (N, d1, …, dk), in the input's dtype, promoted with that of
        probabilities (float32 under autocast). ``input`` may require a gradient; with probabilities, so may ``target``
        and ``weight``. If more is asked for, a named tuple ``(loss, z_loss, lse, correct)``: the loss, the part of it
        that is the z-loss, reduced likewise, the log-sum-exp of the logits of every row, and whether the target leads
        there; None for what is not asked for. All but ``correct`` have gradients.

    Raises:
        IndexError: a class index is outside [0, C) and not ``ignore_index`` (checked on the CPU); ``input`` is 0-d.
        ValueError: ``reduction`` is unknown; the batch sizes differ; ``temperature``, ``softcap`` or ``logit_scale`` is
            not positive and finite, or ``z_loss`` negative; a ``normalizer`` without reduction='mean'.
        RuntimeError: shapes or dtypes that do not fit; ``label_smoothing`` above 1; a ``weight`` that requires a
            gradient with class indices; ``shift`` with probabilities.
        TypeError: a number or a flag has another type.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import cross_entropy
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
        >>> cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
        tensor([0.1698, 2.1698])
        >>> loss = cross_entropy(logits.requires_grad_(), torch.tensor([0, -100]))  # ignores the second row
        >>> torch.autograd.grad(loss, logits)[0]
        tensor([[-0.1562,  0.1142,  0.0420],
                [ 0.0000,  0.0000,  0.0000]])
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if type(ignore_index) is not int or type(label_smoothing) is not float:
        ignore_index = arguments.integer("cross_entropy", "ignore_index", ignore_index)
        label_smoothing = arguments.real("cross_entropy", "label_smoothing", label_smoothing)
    label_smoothing = smoothing_of(label_smoothing)
    shape = input.shape
    if target.shape == shape:
        rowwise.check_probabilities(target)
    if not shape:
        raise IndexError("Dimension out of range: cross_entropy's input must have at least 1 dimension, got a scalar")
    arguments.require_floating("cross_entropy", input)
    added = temperature, softcap, logit_scale, z_loss, shift, return_z_loss, lse, accuracy
    # for a small loss, a call takes long
    if token_weight is not None or normalizer is not None or group is not None or added != NOTHING:
        head = head_of("cross_entropy", reduction, *added, token_weight, normalizer)
        if shift:
            target = shifted("cross_entropy", target, ignore_index)
        if group is not None or not head.only_divides or input.dtype in HALF:  # which could not hold the sum
            return _with_head(input, target, weight, ignore_index, label_smoothing, reduction, head, group)
        if normalizer is not None:
            loss = cross_entropy(
                input, target, weight, ignore_index=ignore_index, reduction="sum", label_smoothing=label_smoothing
            )
            return loss / normalizer
    if target.shape == shape:
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        if weight is not None:
            weight = rowwise.class_weight(input, weight, by_index=False)
            weight = weight.view(-1, *(1,) * (len(shape) - class_dim(input) - 1)).expand_as(input)
        z, t, w = arguments.promote(*arguments.autocast(input, target, weight))
    else:
        t = rowwise.class_indices("cross_entropy", shape, target, ignore_index)
        if weight is not None:
            weight = rowwise.class_weight(input, weight)
        z, w = arguments.autocast(input, weight)
        if w is not None:
            w = rowwise.constant_weight("cross_entropy", z, w)
    return evaluate(CrossEntropyLossFunction, z, t, w, ignore_index, label_smoothing, reduction)


def _with_head(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float, reduction: str,
    head: Head, group: Any,
) -> Any:  # fmt: skip
    """The loss with any of the additions of a :class:`Head`, which makes no copy of half-precision scores."""
    name = "cross_entropy"
    score = x.new_empty((), dtype=dtype_of_loss(x))  # stands in for the scores
    if target.shape == x.shape:
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        w = None if weight is None else rowwise.class_weight(x, weight, by_index=False)
        score, t, w = arguments.promote(*arguments.autocast(score, target, w))
    else:
        t = rowwise.class_indices(name, x.shape, target, ignore_index, group is not None)
        w = None if weight is None else rowwise.class_weight(x, weight)
        score, w = arguments.autocast(score, w)
        if w is not None:
            w = rowwise.constant_weight(name, score, w)
    if group is not None:
        from manual_grad.sharding import cross_entropy as sharded  # few programs need it

        return sharded.of_scores(x, t, w, score, ignore_index, label_smoothing, reduction, head, group)
    options = SKIPPED if t.is_floating_point() else ignore_index, *head.logits

    def stacked(y: Tensor, q: Tensor | None, outputs: str) -> Tensor:
        return selected_log_prob.stacked(x, y, q, outputs, torch.float64, *options)

    def summed(aim: Targets, omega: Tensor, z_loss: float) -> Tensor:
        y, q, factor, _, outputs = aim
        state = selected_log_prob.state_of(x, q, outputs, *options[1:])
        return evaluate(CrossEntropyHeadFunction, x, y, q, factor, omega, state, outputs, z_loss, *options, "sum")

    scores = score.expand(x.shape)
    return evaluate_head(name, stacked, summed, scores, t, w, ignore_index, label_smoothing, reduction, head)


class CrossEntropyLoss(WithHead, torch.nn.CrossEntropyLoss):
    """:func:`cross_entropy` as a module, interchangeable with :class:`torch.nn.CrossEntropyLoss`.

    It takes what :func:`cross_entropy` has besides, except the flags that change the type of the result. The weights of
    tokens and the normalizer belong to a call.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        temperature: float = 1.0,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        z_loss: float = 0.0,
        shift: bool = False,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.add(temperature=temperature, softcap=softcap, logit_scale=logit_scale, z_loss=z_loss, shift=shift)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        token_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            token_weight=token_weight,
            normalizer=normalizer,
            **self.additions(),
        )
