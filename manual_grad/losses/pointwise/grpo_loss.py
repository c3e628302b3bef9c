r"""Group relative policy optimization (GRPO).

**Where it comes from.** The advantage of :mod:`~manual_grad.losses.pointwise.ppo_clip_loss` needs an estimate of what a
prompt is worth, usually a second model. Shao et al. [1] sample a group of completions for each prompt and compare every
reward with the group's mean instead. All tokens of a completion share its advantage. A penalty keeps the policy near a
reference: the estimator k3 of :mod:`~manual_grad.losses.pointwise.sampled_kl`, inside the loss instead of the reward.

**Definition.** :math:`x` is a token's log-probability, :math:`\bar x` the one it was sampled with, :math:`y` that of
the reference, and :math:`A` its advantage:

.. math::
    e(x, \bar x, y) = -A\, k + \beta\, \bigl( e^d - 1 - d \bigr), \qquad d = y - x, \qquad \rho = e^{x - \bar x} \tag{1}

.. math::
    k = \begin{cases}
        \min(\rho,\, 1 + \epsilon_1) & A \ge 0 \\
        \min\bigl( \max(\rho,\, 1 - \epsilon_0),\, \delta \bigr) & A < 0
    \end{cases} \tag{2}

In [1] both :math:`\epsilon` are the same and :math:`\delta` is infinite.

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = s - \beta\, \bigl( e^d - 1 \bigr), \qquad
    \frac{\partial e}{\partial \bar x} = -s, \qquad
    \frac{\partial e}{\partial y} = \beta\, \bigl( e^d - 1 \bigr), \qquad
    s = \begin{cases} -A\, \rho & k = \rho \\ 0 & k \ne \rho \end{cases} \tag{3}

The advantage is a constant.

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = s + \beta\, e^d, \qquad
    \frac{\partial^2 e}{\partial x\, \partial \bar x} = -s, \qquad
    \frac{\partial^2 e}{\partial x\, \partial y} = -\beta\, e^d, \qquad
    \frac{\partial^2 e}{\partial \bar x^2} = s, \qquad
    \frac{\partial^2 e}{\partial y^2} = \beta\, e^d, \qquad
    \frac{\partial^2 e}{\partial \bar x\, \partial y} = 0 \tag{4}

**Kinks.** As in :mod:`~manual_grad.losses.pointwise.ppo_clip_loss`: at the ends of the interval the first term's slope
jumps, and that of the inner side is chosen.

**In floating point** the first term of (1) is computed as written. The second would cancel near the reference; there it
is computed as in :mod:`~manual_grad.losses.pointwise.sampled_kl`.

**One ratio per completion.** GSPO [2] clips whole completions: in place of :math:`x - \bar x`, every token has the mean
of these differences over its completion's tokens. ``level="sequence"`` does this.

**How it is averaged** differs from paper to paper, and matters: in [1] every completion counts the same, so that a
token of a long one counts less. Dr. GRPO [3] and DAPO [4] remove this. The guide to preferences and policies has a
table of who divides by what.

**Shapes and domain.** The log-probabilities have one shape, such as (completions, tokens). Advantages have that shape,
or lack the last dimension. :math:`\epsilon_0, \epsilon_1, \beta \ge 0` and :math:`\delta \ge 1 + \epsilon_1`.

Sources:

1. Zhihong Shao et al., "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models" (2024),
   equations 3 and 4, `arXiv:2402.03300 <https://arxiv.org/abs/2402.03300>`_.
2. Chujie Zheng et al., "Group Sequence Policy Optimization" (2025), `arXiv:2507.18071
   <https://arxiv.org/abs/2507.18071>`_.
3. Zichen Liu et al., "Understanding R1-Zero-Like Training: A Critical Perspective" (2025), `arXiv:2503.20783
   <https://arxiv.org/abs/2503.20783>`_.
4. Qiying Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale" (2025),
   `arXiv:2503.14476 <https://arxiv.org/abs/2503.14476>`_.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, policy
from manual_grad.engine.dtypes import compute_dtype
from manual_grad.engine.elementary import exp_minus_1, exp_remainder
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.losses.pointwise.ppo_clip_loss import PPOClipLossFunction, bounds, clipped, slope
from manual_grad.losses.pointwise.sampled_kl import sampled_kl


class GRPOLossFunction(PointwiseLoss):
    """``apply(x, x0, A, y, w, None, low, high, delta, beta, reduction)``: the bounds of (2); w counts the tokens."""

    kernel = "grpo_loss"

    @staticmethod
    def elementwise(
        x: Tensor,
        x0: Tensor,
        A: Tensor,
        y: Tensor,
        w: Tensor | None,
        low: float,
        high: float,
        delta: float,
        beta: float,
    ) -> Tensor:
        return policy.counted(clipped(x, x0, A, low, high, delta) + beta * exp_remainder(y - x), w)  # (1)

    @staticmethod
    def first(
        x: Tensor,
        x0: Tensor,
        A: Tensor,
        y: Tensor,
        w: Tensor | None,
        low: float,
        high: float,
        delta: float,
        beta: float,
    ) -> tuple[Any, ...]:
        s, dy = slope(x, x0, A, low, high, delta), beta * exp_minus_1(y - x)
        zero = torch.zeros_like(x)
        return policy.counted(s - dy, w), policy.counted(-s, w), zero, policy.counted(dy, w), zero  # (3)

    @staticmethod
    def second(
        x: Tensor,
        x0: Tensor,
        A: Tensor,
        y: Tensor,
        w: Tensor | None,
        low: float,
        high: float,
        delta: float,
        beta: float,
    ) -> tuple[tuple[Any, ...], ...]:
        s = policy.counted(slope(x, x0, A, low, high, delta), w)
        h = policy.counted(beta * (y - x).exp(), w)
        none = (0, 0, 0, 0, 0)
        return (s + h, -s, 0, -h, 0), (-s, s, 0, 0, 0), none, (-h, 0, 0, h, 0), none  # (4)


@arguments.functional
def grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    ref_log_prob: Tensor | None = None,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    delta: float | None = None,
    beta: float = 0.0,
    level: str = "token",
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Group relative policy optimization: the clipped surrogate of each token, and a penalty on leaving a reference.

    Args:
        log_prob: The policy's log-probabilities of the sampled tokens, a floating point tensor of any shape, usually
            (completions, tokens).
        old_log_prob: Those of the policy that sampled them, of the same shape. In the first step they are those of the
            policy: pass ``log_prob.detach()``.
        advantages: The advantages, one per completion: without the last dimension, or with a dimension of size 1; or
            one per token. They are constants: they get no gradient.
        mask: Optional weight of each token, of any real dtype or bool, broadcast to the shape of ``log_prob``: 0 for a
            token that does not count, which may hold anything, even NaN. It gets no gradient.
        ref_log_prob: Those of the reference, of the same shape; needed if ``beta`` is not 0.
        epsilon: How far the relative probability may fall, and rise unless ``epsilon_high`` says otherwise.
        epsilon_high: How far it may rise.
        delta: Upper bound of the relative probability where the advantage is negative, at least 1 + epsilon_high; None
            for no bound.
        beta: Factor of the penalty; not negative.
        level: 'token', or 'sequence' for one ratio per completion, as in GSPO; advantages are then per completion.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all tokens) or 'sequence' (the mean over sequences,
            along the last dimension, of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the tokens of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of the shape of ``log_prob``, in the promoted dtype (float32 under autocast).
        Where no token counts, the means are 0.

    Raises:
        ValueError: ``reduction`` or ``level`` is unknown, ``epsilon``, ``epsilon_high``, ``delta`` or ``beta`` lies
            outside its domain, a shape does not fit, ``ref_log_prob`` is missing, or there is a ``normalizer`` without
            reduction='mean'.
        RuntimeError: ``mask`` does not broadcast to the shape of ``log_prob``.
        TypeError: ``epsilon``, ``epsilon_high``, ``delta`` or ``beta`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import grpo_loss
        >>> x = torch.tensor([[-1.0, -2.0, -0.5], [-1.5, -1.0, 0.0]])
        >>> advantages, mask = torch.tensor([1.0, -1.0]), torch.tensor([[1, 1, 0], [1, 0, 0]])
        >>> grpo_loss(x, x, advantages, mask), grpo_loss(x, x, advantages, mask, reduction="sequence")
        (tensor(-0.3333), tensor(0.))
    """
    arguments.same_shape("grpo_loss", "log_prob", log_prob, old_log_prob=old_log_prob, ref_log_prob=ref_log_prob)
    if level not in ("token", "sequence"):
        raise ValueError(f"grpo_loss(): argument 'level' must be 'token' or 'sequence', but got {level!r}")
    beta = arguments.not_negative("grpo_loss", "beta", beta)
    if beta and ref_log_prob is None:
        raise ValueError("grpo_loss(): argument 'ref_log_prob' is needed for the penalty, since beta is not 0")
    options = bounds("grpo_loss", epsilon, epsilon_high, delta)
    A = policy.of_tokens(advantages, log_prob)
    how: Any = mask, options, reduction, normalizer
    if level == "sequence":
        if A.shape[-1:] != (1,):
            raise ValueError("grpo_loss(): argument 'advantages' must be one per completion for level='sequence'")
        ratio = _mean_ratio(log_prob, old_log_prob, mask)
        loss = policy.averaged("grpo_loss", PPOClipLossFunction, (ratio, torch.zeros_like(ratio), A), *how)
        if beta:
            loss = loss + beta * sampled_kl(log_prob, ref_log_prob, mask, "k3", reduction, normalizer)
        return loss.to(log_prob.dtype)
    if not beta:
        return policy.averaged("grpo_loss", PPOClipLossFunction, (log_prob, old_log_prob, A), *how)
    how = mask, (*options, beta), reduction, normalizer
    return policy.averaged("grpo_loss", GRPOLossFunction, (log_prob, old_log_prob, A, ref_log_prob), *how)


def _mean_ratio(x: Tensor, x0: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over a completion's tokens of x - x0, for each of its tokens, in the dtype that it is computed in."""
    dtype = compute_dtype(x)
    d = x.to(dtype) - x0.to(dtype)
    if mask is None:
        return d.mean(dim=-1, keepdim=True).expand_as(d)
    w = mask.detach().to(dtype)
    total = w.expand_as(d).sum(dim=-1, keepdim=True)
    d = torch.where(w == 0, 0, d)  # a token that does not count may hold anything
    return ((w * d).sum(dim=-1, keepdim=True) / torch.where(total == 0, 1, total)).expand_as(d)


class GRPOLoss(torch.nn.Module):
    """:func:`grpo_loss` as a module."""

    def __init__(
        self,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        delta: float | None = None,
        beta: float = 0.0,
        level: str = "token",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.epsilon, self.epsilon_high, self.delta = epsilon, epsilon_high, delta
        self.beta, self.level, self.reduction = beta, level, reduction

    def forward(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantages: Tensor,
        mask: Tensor | None = None,
        ref_log_prob: Tensor | None = None,
    ) -> Tensor:
        options = self.epsilon, self.epsilon_high, self.delta, self.beta, self.level, self.reduction
        return grpo_loss(log_prob, old_log_prob, advantages, mask, ref_log_prob, *options)

    def extra_repr(self) -> str:
        names = ("epsilon", "epsilon_high", "delta", "beta", "level", "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
