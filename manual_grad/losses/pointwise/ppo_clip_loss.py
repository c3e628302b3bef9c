r"""Clipped surrogate of proximal policy optimization (PPO).

**Where it comes from.** An action that turned out better than expected shall become more probable. Its probability
under the policy, relative to that at the time when it was sampled, times its advantage, has the right slope; but the
sample says little about a policy far from that one. Schulman et al. [1] clip the relative probability: once it has
moved by :math:`\epsilon` in the direction that the advantage asks for, there is nothing more to gain. For language
models an action is a token.

**Definition.** :math:`x` is the token's log-probability, :math:`\bar x` the one it was sampled with, and :math:`A` its
advantage:

.. math::
    e(x, \bar x) = \max\bigl( -A\, \rho,\, -A\, c(\rho) \bigr), \qquad
    c(r) = \min\bigl( \max(r,\, 1 - \epsilon_0),\, 1 + \epsilon_1 \bigr), \qquad \rho = e^{x - \bar x} \tag{1}

In [1] both :math:`\epsilon` are the same; DAPO [2] raises the upper one. For a negative advantage (1) is unbounded: the
relative probability of a bad token may be huge. Ye et al. [3] bound it by :math:`\delta` (the *dual clip*):

.. math::
    e(x, \bar x) = -A\, k, \qquad k = \begin{cases}
        \min(\rho,\, 1 + \epsilon_1) & A \ge 0 \\
        \min\bigl( \max(\rho,\, 1 - \epsilon_0),\, \delta \bigr) & A < 0
    \end{cases} \tag{2}

This is (1) if :math:`\delta` is infinite, and it is what is computed.

**Gradient.** The relative probability is its own derivative. It has a slope where it is not clipped:

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x} = \begin{cases}
        -A\, \rho & k = \rho \\ 0 & k \ne \rho
    \end{cases} \tag{3}

The advantage is a constant.

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial \bar x^2}
    = -\frac{\partial^2 e}{\partial x\, \partial \bar x} = \frac{\partial e}{\partial x} \tag{4}

**Kinks.** At the ends of the interval the slope jumps to 0. There the slope of the inner side is chosen, as in torch's
``clamp``: a token on the edge still moves.

**In floating point** (2) is computed as written: nothing cancels. Where the advantage is not negative an overflowing
:math:`\rho` is clipped, so that neither an infinite value nor, at :math:`A = 0`, NaN comes of it.

**Shapes and domain.** The log-probabilities have one shape, such as (sequences, tokens). Advantages have that shape, or
lack the last dimension, which tokens of a sequence then share. :math:`\epsilon_0, \epsilon_1 \ge 0` and
:math:`\delta \ge 1 + \epsilon_1`.

**How it is averaged** differs from library to library; the guide to preferences and policies has a table.

Sources:

1. John Schulman, Filip Wolski, Prafulla Dhariwal, Alec Radford and Oleg Klimov, "Proximal Policy Optimization
   Algorithms" (2017), equation 7, `arXiv:1707.06347 <https://arxiv.org/abs/1707.06347>`_.
2. Qiying Yu et al., "DAPO: An Open-Source LLM Reinforcement Learning System at Scale" (2025), section 3.1,
   `arXiv:2503.14476 <https://arxiv.org/abs/2503.14476>`_.
3. Deheng Ye et al., "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning", AAAI (2020),
   `arXiv:1912.09729 <https://arxiv.org/abs/1912.09729>`_.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, policy
from manual_grad.engine.pointwise import PointwiseLoss


class PPOClipLossFunction(PointwiseLoss):
    """``apply(x, x0, A, w, None, low, high, delta, reduction)``: the bounds of (2); w counts the tokens."""

    kernel = "ppo_clip_loss"

    @staticmethod
    def elementwise(
        x: Tensor, x0: Tensor, A: Tensor, w: Tensor | None, low: float, high: float, delta: float
    ) -> Tensor:
        return policy.counted(clipped(x, x0, A, low, high, delta), w)

    @staticmethod
    def first(
        x: Tensor, x0: Tensor, A: Tensor, w: Tensor | None, low: float, high: float, delta: float
    ) -> tuple[Any, ...]:
        d = policy.counted(slope(x, x0, A, low, high, delta), w)
        return d, -d, torch.zeros_like(x), torch.zeros_like(x)

    @staticmethod
    def second(
        x: Tensor, x0: Tensor, A: Tensor, w: Tensor | None, low: float, high: float, delta: float
    ) -> tuple[tuple[Any, ...], ...]:
        d = policy.counted(slope(x, x0, A, low, high, delta), w)  # (4)
        return (d, -d, 0, 0), (-d, d, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)


def clipped(x: Tensor, x0: Tensor, A: Tensor, low: float, high: float, delta: float) -> Tensor:
    rho = (x - x0).exp()
    return -A * torch.where(A < 0, rho.clamp_min(low).clamp_max(delta), rho.clamp_max(high))  # (2)


def slope(x: Tensor, x0: Tensor, A: Tensor, low: float, high: float, delta: float) -> Tensor:
    rho, negative = (x - x0).exp(), A < 0
    still = (negative & ((rho < low) | (rho > delta))) | (~negative & (rho > high))
    return torch.where(still, 0, -A * rho)  # (3)


@arguments.functional
def ppo_clip_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    delta: float | None = None,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Clipped surrogate of each token: the negative of its advantage times its relative probability.

    Args:
        log_prob: The policy's log-probabilities of the sampled tokens, a floating point tensor of any shape, usually
            (sequences, tokens).
        old_log_prob: Those of the policy that sampled them, of the same shape. In the first step they are those of the
            policy: pass ``log_prob.detach()``.
        advantages: The advantages, of the same shape, or one per sequence: without the last dimension, or with a
            dimension of size 1. They are constants: they get no gradient.
        mask: Optional weight of each token, of any real dtype or bool, broadcast to the shape of ``log_prob``: 0 for a
            token that does not count, which may hold anything, even NaN. It gets no gradient.
        epsilon: How far the relative probability may fall, and rise unless ``epsilon_high`` says otherwise.
        epsilon_high: How far it may rise.
        delta: Upper bound of the relative probability where the advantage is negative, at least 1 + epsilon_high; None
            for no bound.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all tokens) or 'sequence' (the mean over sequences,
            along the last dimension, of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the tokens of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of the shape of ``log_prob``, in the promoted dtype (float32 under autocast).
        Where no token counts, the means are 0.

    Raises:
        ValueError: ``reduction`` is unknown, ``epsilon``, ``epsilon_high`` or ``delta`` lies outside its domain, a
            shape does not fit, or there is a ``normalizer`` without reduction='mean'.
        RuntimeError: ``mask`` does not broadcast to the shape of ``log_prob``.
        TypeError: ``epsilon``, ``epsilon_high`` or ``delta`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import ppo_clip_loss
        >>> x = torch.tensor([[0.0, 0.5, -0.5]], requires_grad=True)
        >>> loss = ppo_clip_loss(x, torch.zeros(1, 3), torch.tensor([1.0]), reduction="none")
        >>> loss
        tensor([[-1.0000, -1.2000, -0.6065]], grad_fn=<PPOClipLossBackward>)
        >>> torch.autograd.grad(loss.sum(), x)[0]
        tensor([[-1.0000,  0.0000, -0.6065]])
    """
    arguments.same_shape("ppo_clip_loss", "log_prob", log_prob, old_log_prob=old_log_prob)
    X = log_prob, old_log_prob, policy.of_tokens(advantages, log_prob)
    options = bounds("ppo_clip_loss", epsilon, epsilon_high, delta)
    return policy.averaged("ppo_clip_loss", PPOClipLossFunction, X, mask, options, reduction, normalizer)


def bounds(name: str, epsilon: float, epsilon_high: float | None, delta: float | None) -> tuple[float, float, float]:
    """The bounds of (2)."""
    low = arguments.not_negative(name, "epsilon", epsilon)
    high = low if epsilon_high is None else arguments.not_negative(name, "epsilon_high", epsilon_high)
    most = math.inf if delta is None else arguments.real(name, "delta", delta)
    if not most >= 1 + high:
        raise ValueError(f"{name}(): argument 'delta' must be at least 1 + epsilon_high, {1 + high}, but got {most}")
    return 1 - low, 1 + high, most


class PPOClipLoss(torch.nn.Module):
    """:func:`ppo_clip_loss` as a module."""

    def __init__(
        self,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        delta: float | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.epsilon, self.epsilon_high, self.delta, self.reduction = epsilon, epsilon_high, delta, reduction

    def forward(self, log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, mask: Tensor | None = None) -> Tensor:
        bounds = self.epsilon, self.epsilon_high, self.delta
        return ppo_clip_loss(log_prob, old_log_prob, advantages, mask, *bounds, self.reduction)

    def extra_repr(self) -> str:
        bounds = f"epsilon={self.epsilon}, epsilon_high={self.epsilon_high}, delta={self.delta}"
        return f"{bounds}, reduction={self.reduction!r}"
