"""What the losses of a pair of completions share: one was chosen, one rejected, and each has its log-probability.

Most of them compare the policy with a reference, as functions of two log-ratios: a = x - x0 of the chosen completion
and b = y - y0 of the rejected one. The derivatives in x, y, x0 and y0 follow from those in a and b.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import size, times

Four = tuple[Any, Any, Any, Any]


def slopes(da: Any, db: Any) -> Four:
    return da, db, -da, -db


def curvatures(aa: Any, ab: Any, bb: Any) -> tuple[Four, Four, Four, Four]:
    return (aa, ab, -aa, -ab), (ab, bb, -ab, -bb), (-aa, -ab, aa, ab), (-ab, -bb, ab, bb)


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z)."""
    m = size(z)
    return torch.where(z < 0, 0, m) + (-m).exp().log1p()


def sigmoid(z: Tensor) -> Tensor:
    """1 / (1 + e^-z), by the exponential that cannot overflow."""
    u = (-size(z)).exp()
    return torch.where(z < 0, u, 1) / (1 + u)


def bell(z: Tensor) -> Tensor:
    """sigmoid(z) sigmoid(-z), the slope of the sigmoid."""
    u = (-size(z)).exp()
    return u / ((1 + u) * (1 + u))


def bend(z: Tensor) -> Tensor:
    """The slope of the bell: sigmoid(z) sigmoid(-z) (sigmoid(-z) - sigmoid(z))."""
    m = size(z)
    u = (-m).exp()
    half = u * (-m).expm1() / ((1 + u) * (1 + u) * (1 + u))
    return torch.where(z < 0, -half, half)


def logistic(z: Tensor, q: float) -> Tensor:
    """(1 - q) softplus(-z) + q softplus(z)."""
    m = size(z)
    return times(torch.where(z < 0, 1 - q, torch.full_like(z, q)), m) + (-m).exp().log1p()


def logistic_slope(z: Tensor, q: float) -> Tensor:
    """q - sigmoid(-z). Near 0, where the terms may cancel, 1 - u is taken from expm1."""
    m = size(z)
    u, v = (-m).exp(), (-m).expm1()
    left = torch.where(u > 0.5, (2 * q - 1) + q * v, q * u - (1 - q))
    right = torch.where(u > 0.5, (2 * q - 1) - (1 - q) * v, q - (1 - q) * u)
    return torch.where(z < 0, left, right) / (1 + u)


_OTHERS = ("policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")


def together(name: str, weight: Tensor | None, x: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    """The log-probabilities and the weight in one dtype; those of a pair have one shape."""
    given = zip(_OTHERS, others)  # noqa: B905 - there may be no reference
    arguments.same_shape(name, "policy_chosen_logps", x, **dict(given))
    arguments.broadcasts_into("weight", weight, x)
    found = arguments.together(x, *others, weight)
    arguments.require_floating(name, found[0])
    return found


def smoothing(name: str, value: float, most: float = 1.0) -> float:
    """The argument ``label_smoothing``, from 0 to below ``most``."""
    q = arguments.real(name, "label_smoothing", value)
    if not 0 <= q < most:
        raise ValueError(f"{name}(): argument 'label_smoothing' must be in [0, {most:g}), but got {q}")
    return q


class PairLoss(torch.nn.Module):
    """Base of the Modules of these losses: ``forward`` calls ``loss`` with the attributes that ``options`` names."""

    loss: ClassVar[Callable[..., Tensor]]
    options: ClassVar[tuple[str, ...]] = ("beta", "reduction")

    def __init__(self, beta: float = 0.1, reduction: str = "mean") -> None:
        super().__init__()
        self.beta, self.reduction = beta, reduction

    def forward(self, policy_chosen_logps: Tensor, policy_rejected_logps: Tensor) -> Tensor:
        return self._called(policy_chosen_logps, policy_rejected_logps)

    def _called(self, *log_probs: Tensor) -> Tensor:
        return type(self).loss(*log_probs, **{name: getattr(self, name) for name in self.options})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.options)


class ReferencedPairLoss(PairLoss):
    """The same with a reference."""

    def forward(  # type: ignore[override]
        self,
        policy_chosen_logps: Tensor,
        policy_rejected_logps: Tensor,
        ref_chosen_logps: Tensor,
        ref_rejected_logps: Tensor,
    ) -> Tensor:
        return self._called(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
