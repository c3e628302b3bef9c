"""Losses of preferences against the formulas that TRL publishes.

The formulas are those of TRL 1.16.0: of its DPO, KTO and GRPO trainers, and of its experimental CPO and ORPO trainers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import manual_grad.functional as M

BETA, EPSILON = 0.1, 0.15


def log_probs(count: int, scale: float = 20.0, offset: float = 50.0) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    numbers = scale * torch.randn(count, 32, dtype=torch.float64) - offset
    return tuple(row.clone().requires_grad_() for row in numbers)


def assert_same(ours: Tensor, theirs: Tensor, leaves: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    for mine, other in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)


# a and b are the log-ratios of the chosen and of the rejected completion
LOSS_TYPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda a, b: (
        -logsigmoid(BETA * (a - b)) * (1 - EPSILON) - logsigmoid(-BETA * (a - b)) * EPSILON
    ),  # as in the experimental CPO trainer; cDPO
    "robust": lambda a, b: (
        (-(1 - EPSILON) * logsigmoid(BETA * (a - b)) + EPSILON * logsigmoid(-BETA * (a - b))) / (1 - 2 * EPSILON)
    ),
    "hinge": lambda a, b: torch.relu(1 - BETA * (a - b)),
    "ipo": lambda a, b: (a - b - 1 / (2 * BETA)) ** 2,  # of means over tokens
    "exo_pair": lambda a, b: (
        torch.sigmoid(BETA * (a - b)) * (logsigmoid(BETA * (a - b)) - math.log1p(-EPSILON))
        + torch.sigmoid(-BETA * (a - b)) * (logsigmoid(-BETA * (a - b)) - math.log(EPSILON))
    ),
    "nca_pair": lambda a, b: -logsigmoid(BETA * a) - 0.5 * logsigmoid(-BETA * a) - 0.5 * logsigmoid(-BETA * b),
    "sppo_hard": lambda a, b: (a - 0.5 / BETA) ** 2 + (b + 0.5 / BETA) ** 2,
    "apo_zero": lambda a, b: 1 - torch.sigmoid(BETA * a) + torch.sigmoid(BETA * b),
    "apo_down": lambda a, b: torch.sigmoid(BETA * a) + 1 - torch.sigmoid(BETA * (a - b)),
}


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_dpo_loss_has_the_types_of_trl(loss_type: str) -> None:
    x, y, x0, y0 = leaves = log_probs(4)
    epsilon = EPSILON if loss_type in ("sigmoid", "robust", "exo_pair") else 0.0
    ours = M.dpo_loss(*leaves, BETA, epsilon, loss_type)
    assert_same(ours, LOSS_TYPES[loss_type](x - x0, y - y0).mean(), leaves)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_each_type_is_weighted_and_reduced(loss_type: str) -> None:
    leaves, weight = log_probs(4), torch.linspace(0, 1, 32, dtype=torch.float64)
    options = (BETA, EPSILON if loss_type in ("sigmoid", "robust", "exo_pair") else 0.0, loss_type)
    each = M.dpo_loss(*leaves, *options, "none")
    torch.testing.assert_close(M.dpo_loss(*leaves, *options, "sum", weight), (weight * each).sum())


def test_cpo_and_simpo() -> None:
    x, y = leaves = log_probs(2)
    for alpha in (0.0, 0.5):
        z = BETA * (x - y)
        preference = -logsigmoid(z) * (1 - EPSILON) - logsigmoid(-z) * EPSILON
        assert_same(M.cpo_loss(x, y, BETA, EPSILON, alpha), (preference - alpha * x).mean(), leaves)
    assert_same(M.simpo_loss(x, y, 0.7, 0.5), -logsigmoid(0.7 * (x - y - 0.5 / 0.7)).mean(), leaves)


def test_orpo() -> None:
    x, y = leaves = log_probs(2, 0.5, 3.0)
    log_odds = (x - y) - (torch.log1p(-x.exp()) - torch.log1p(-y.exp()))
    assert_same(M.orpo_loss(x, y, 0.3, alpha=0.0), -0.3 * logsigmoid(log_odds).mean(), leaves)


def test_kto() -> None:
    x, x0 = leaves = log_probs(2)
    labels, kl = torch.arange(32) % 3 == 0, torch.tensor(1.5, dtype=torch.float64)
    chosen, rejected = (x - x0)[labels], (x - x0)[~labels]
    losses = torch.cat(
        (1.5 * (1 - torch.sigmoid(BETA * (chosen - kl))), 0.8 * (1 - torch.sigmoid(BETA * (kl - rejected))))
    )
    assert_same(M.kto_loss(x, x0, labels, kl, BETA, 1.5, 0.8), losses.mean(), leaves)


def test_a_sure_pair_keeps_its_slope() -> None:
    """In float32, TRL's 1 - sigmoid(z) is 0 from z = 17 on, and ORPO's 1 - e^x below 6e-8."""
    chosen, zero = torch.tensor([40.0], requires_grad=True), torch.zeros(1)
    loss = M.dpo_loss(chosen, zero, zero, zero, 1.0, loss_type="apo_zero", reduction="none") - 0.5
    torch.testing.assert_close(M.kto_loss(chosen, zero, zero == 0, beta=1.0).item(), math.exp(-40), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, chosen)[0].item(), -math.exp(-40), rtol=1e-6, atol=0)
    likely = torch.tensor([-1e-12], requires_grad=True)
    (slope,) = torch.autograd.grad(M.orpo_loss(likely, torch.tensor([-1.0]), 1.0, 0.0), likely)
    torch.testing.assert_close(slope.item(), -1 / (math.e - 1), rtol=1e-6, atol=0)
