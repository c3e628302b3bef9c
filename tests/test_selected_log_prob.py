"""Rows of a vocabulary's length, for which the kernel of float32 does not widen; oracles take too long there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import manual_grad.functional as M

EPS = torch.finfo(torch.float32).eps
VOCABULARY = 4096 + 13


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def led_by(*gaps: float) -> Tensor:
    """Scores that are normal but for a few that lead by these gaps."""
    x = normal(len(gaps), VOCABULARY, seed=1)
    x[torch.arange(len(gaps)), torch.arange(len(gaps)) * 7] += torch.tensor(gaps)
    return x


def with_impossible_classes() -> Tensor:
    x = normal(4, VOCABULARY, seed=2)
    x[:, ::3] = -torch.inf
    x[0, 2:] = -torch.inf  # leaves one
    return x


SCORES = {
    "normal": normal(4, VOCABULARY),
    "flat": normal(4, VOCABULARY, scale=1e-3),
    "steep": normal(4, VOCABULARY, scale=5.0),
    "confident": led_by(10.0, 20.0, 40.0, 80.0),
    "two leaders": led_by(20.0, 20.0, 40.0, 40.0).roll(1, 1) + led_by(20.0, 20.0, 40.0, 40.0),
    "a few leaders": torch.cat([normal(4, 6, seed=3) + 15, normal(4, VOCABULARY, seed=4)], 1),
    "tied": torch.zeros(4, VOCABULARY),
    "offset": normal(4, VOCABULARY, seed=5) + 1e4,
    "impossible classes": with_impossible_classes(),
    "262,144 classes": normal(1, 262144, seed=6),
}


def exactly(x: Tensor, y: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p_y, H and their gradients in float64, by equations (3) to (6) of the chapter with the leader left out."""
    x = x.double()
    leader = x.argmax(-1, keepdim=True)
    d = (x.gather(-1, leader) - x) / temperature
    finite = torch.where(d == torch.inf, 0, d)
    e = (-d).exp()
    rho, tau = (t.scatter(-1, leader, 0).sum(-1, keepdim=True) for t in (e, e * finite))
    p, mean = e / (1 + rho), tau / (1 + rho)
    one_hot = torch.zeros_like(x).scatter(-1, y[:, None], 1)
    by_log_prob = one_hot - p
    by_log_prob = torch.where((one_hot == 1) & (d == 0), rho / (1 + rho), by_log_prob)
    log_prob = -(d.gather(-1, y[:, None]) + rho.log1p()).squeeze(-1)
    entropy = (rho.log1p() + mean).squeeze(-1)
    return log_prob, entropy, by_log_prob / temperature, p * (finite - mean) / temperature


def assert_within(found: Tensor, exact: Tensor, eps: float) -> None:
    error = (found.double() - exact).abs()
    allowed = eps * EPS * exact.abs() + torch.finfo(torch.float32).tiny  # what underflows has no digits
    assert (error <= allowed).all(), (error / (EPS * exact.abs())).nan_to_num().max()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "another"])
@pytest.mark.parametrize("name", SCORES)
def test_rows_of_a_vocabulary(name: str, leads: bool, temperature: float) -> None:
    x = SCORES[name].clone().requires_grad_()
    y = x.argmax(-1) if leads else x.argsort(-1, descending=True)[:, 3 if name != "impossible classes" else 0]
    log_prob, entropy = M.log_prob_and_entropy(x, y, temperature)
    exact = exactly(x.detach(), y, temperature)
    assert_within(log_prob.detach(), exact[0], 4)
    assert_within(entropy.detach(), exact[1], 4)
    assert_within(torch.autograd.grad(log_prob.sum(), x, retain_graph=True)[0], exact[2], 4)
    assert_within(torch.autograd.grad(entropy.sum(), x)[0], exact[3], 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x = normal(4, VOCABULARY).to(dtype).requires_grad_()
    y = x.argmax(-1)
    log_prob, entropy = M.log_prob_and_entropy(x, y)
    exact = exactly(x.detach(), y, 1.0)
    for found, value in ((log_prob, exact[0]), (entropy, exact[1])):
        torch.testing.assert_close(found, value.to(dtype), rtol=0.51 * torch.finfo(dtype).eps, atol=0)
    gradient = torch.autograd.grad(entropy.sum(), x)[0]
    torch.testing.assert_close(gradient, exact[3].to(dtype), rtol=0.51 * torch.finfo(dtype).eps, atol=1e-7)


def test_autocast_gives_float32_without_a_wide_copy() -> None:
    x, y = normal(4, VOCABULARY).bfloat16().requires_grad_(), torch.arange(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = M.log_prob_and_entropy(x, y)
    exact = exactly(x.detach(), y, 1.0)
    assert found.log_prob.dtype is found.entropy.dtype is torch.float32
    assert_within(found.log_prob.detach(), exact[0], 4)
    (found.log_prob + found.entropy).sum().backward()
    assert x.grad.dtype is torch.bfloat16


def test_shifted_labels_need_no_copy() -> None:
    """Slices of a sequence are not contiguous, and their gradient lands where they were cut from."""
    logits, tokens = normal(2, 6, 50).requires_grad_(), torch.arange(12).view(2, 6)
    M.selected_log_prob(logits[:, :-1], tokens[:, 1:]).sum().backward()
    expected = torch.autograd.grad(logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).sum(), logits)[0]
    torch.testing.assert_close(logits.grad, expected)
    assert not logits.grad[:, -1].any()


def test_the_entropy_alone_or_not_at_all() -> None:
    x, y = normal(3, 7).requires_grad_(), torch.arange(3)
    log_prob, entropy = M.log_prob_and_entropy(x, y)
    torch.testing.assert_close(log_prob, M.selected_log_prob(x, y))
    alone = torch.autograd.grad(entropy.sum(), x, retain_graph=True)[0]
    p = x.detach().softmax(-1)
    torch.testing.assert_close(alone, -p * (p.log() + entropy.detach()[:, None]))


@pytest.mark.parametrize("kernels", [True, False])
def test_compiled_whole(kernels: bool) -> None:
    from manual_grad.kernels import switched

    x, y = normal(3, 7).requires_grad_(), torch.arange(3)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x: Tensor, temperature: float) -> Tensor:
        found = M.log_prob_and_entropy(x, y, temperature)
        return found.log_prob.sum() - found.entropy.sum()

    with switched(kernels):
        for temperature in (1.0, 0.5, 0.25):
            found = torch.autograd.grad(loss(x, temperature), x)[0]
            log_prob, entropy = M.log_prob_and_entropy(x, y, temperature)
            torch.testing.assert_close(found, torch.autograd.grad(log_prob.sum() - entropy.sum(), x)[0])
