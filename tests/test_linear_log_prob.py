"""The log-probability head in training: blocks, frozen and tied weights, accumulation, checkpointing, autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import manual_grad.functional as M
from manual_grad import kernels
from manual_grad.engine import linear
from manual_grad.losses.linear import linear_log_prob as loss

N, D, C = 60, 8, 37
EPS = torch.finfo(torch.float64).eps


def made(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    draw = torch.Generator().manual_seed(0)
    x, W, b = (torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in ((N, D), (C, D), (C,)))
    y = torch.randint(C, (N,), generator=draw)
    y[::7] = -100
    leaves = [t.requires_grad_() for t in (x, W, b)]
    return leaves[0], leaves[1], y, leaves[2] if bias else None


def reference(
    x: Tensor, W: Tensor, y: Tensor, b: Tensor, temperature: float, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    z = x @ W.mT + b
    z = (z if softcap is None else softcap * (z / softcap).tanh()) / temperature
    log_p, kept = z.log_softmax(-1), y != -100
    log_prob = log_p.gather(-1, y.where(kept, 0)[:, None])[:, 0]
    entropy = -(log_p.exp() * log_p).sum(-1)
    outputs = log_prob, entropy, z.logsumexp(-1), z.argmax(-1) == y
    return tuple(t.where(kept, 0) if t.is_floating_point() else t & kept for t in outputs)


BLOCKS = {
    "one block": {},
    "blocks of rows": dict(SCORES=35 * C, LEAST_ROWS=1),
    "blocks of classes": dict(SCORES=C, SCORES_OF_FORMULAS=10 * 16, MOST_ROWS=16),
}


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("on", [True, False], ids=["kernels", "formulas"])
def test_every_output_in_blocks(on: bool, blocks: str, softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in BLOCKS[blocks].items():
        monkeypatch.setattr(linear, name, size)
    x, W, y, b = made()
    with kernels.switched(on):
        found = M.linear_log_prob(x, W, y, b, 0.7, softcap, entropy=True, lse=True, accuracy=True)
        expected = reference(x, W, y, b, 0.7, softcap)
        torch.testing.assert_close(tuple(found), expected)
        for k in range(3):  # each output alone: none's gradient may be dropped
            g = torch.linspace(1, 2, N, dtype=torch.float64)
            ours = torch.autograd.grad(found[k], (x, W, b), g, retain_graph=True)
            torch.testing.assert_close(ours, torch.autograd.grad(expected[k], (x, W, b), g, retain_graph=True))


def test_the_scores_of_backward_are_those_of_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, as far as one process on one machine goes: the same product of the same rows in the same memory."""
    seen: list[Tensor] = []
    scores = linear.Products.scores

    def recorded(self: linear.Products, i: slice, c: slice) -> Tensor:
        z = scores(self, i, c)
        seen.append(z.clone())
        return z

    monkeypatch.setattr(linear.Products, "scores", recorded)
    monkeypatch.setattr(linear, "SCORES", 35 * C)
    monkeypatch.setattr(linear, "LEAST_ROWS", 1)
    x, W, y, b = made(torch.float32)
    M.linear_log_prob(x, W, y, b).sum().backward()
    forward, backward = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(forward) == 2
    assert all(torch.equal(a, c) for a, c in zip(forward, backward, strict=True))


@pytest.mark.parametrize("frozen", ["x", "W", "b"])
def test_nothing_is_computed_for_what_needs_no_gradient(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[Tensor | None]] = []
    gradients = linear.Products.gradients
    monkeypatch.setattr(linear.Products, "gradients", lambda self: kept.append(self.sums) or gradients(self))
    x, W, y, b = made()
    of = dict(x=x, W=W, b=b)
    of[frozen].requires_grad_(False)
    M.linear_log_prob(x, W, y, b).sum().backward()
    (*_, sums) = kept
    assert [d is None for d in sums] == [name == frozen for name in of]
    assert of[frozen].grad is None and all(t.grad is not None for name, t in of.items() if name != frozen)


def test_micro_batches_add_up_to_one_batch() -> None:
    x, W, y, b = made()
    whole = torch.autograd.grad(M.linear_log_prob(x, W, y, b).sum(), (W, b))
    parts = [torch.autograd.grad(M.linear_log_prob(x[i], W, y[i], b).sum(), (W, b)) for i in linear.blocks(N, 13)]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(several[1:], several[0]), one, rtol=1e-13, atol=1e-13)


def test_tied_weight() -> None:
    """The embedding and the head share a weight, which gets the gradients of both."""
    _, W, y, _ = made(bias=False)
    y = y.clamp(min=0)

    def through(head: Callable[..., Tensor]) -> Tensor:
        hidden = torch.nn.functional.embedding(y, W).tanh()
        return torch.autograd.grad(head(hidden, W, y).sum(), W)[0]

    plain = through(lambda x, W, y: (x @ W.mT).log_softmax(-1).gather(-1, y[:, None]))
    torch.testing.assert_close(through(M.linear_log_prob), plain)


def test_twice_and_under_checkpointing() -> None:
    x, W, y, b = made()
    log_prob = M.linear_log_prob(x, W, y, b)
    once, again = (torch.autograd.grad(log_prob.sum(), (x, W, b), retain_graph=True) for _ in range(2))
    again_saved = torch.autograd.grad(checkpoint(M.linear_log_prob, x, W, y, b, use_reentrant=False).sum(), (x, W, b))
    for a, c, d in zip(once, again, again_saved, strict=True):
        assert torch.equal(a, c) and torch.equal(a, d)


def test_float32_parameters_under_autocast() -> None:
    x, W, y, b = made(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = M.linear_log_prob(x, W, y, b, entropy=True)
        z = torch.nn.functional.linear(x, W, b).float()
    kept = y != -100
    expected = z.log_softmax(-1).gather(-1, y.clamp(min=0)[:, None])[:, 0].where(kept, 0)
    assert found.log_prob.dtype is found.entropy.dtype is torch.float32
    torch.testing.assert_close(found.log_prob, expected, rtol=0.02, atol=0.02)
    found.log_prob.sum().backward()
    assert x.grad.dtype is W.grad.dtype is torch.float32


def test_halves_accumulate_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SCORES", 8 * C)
    monkeypatch.setattr(linear, "LEAST_ROWS", 1)
    x, W, y, b = made(torch.bfloat16)
    assert M.linear_log_prob(x, W, y, b).dtype is torch.float32
    found = torch.autograd.grad(M.linear_log_prob(x, W, y, b).sum(), W)[0]
    wide = [t.detach().double().requires_grad_() for t in (x, W, b)]
    exact = torch.autograd.grad(reference(wide[0], wide[1], y, wide[2], 1.0, None)[0].sum(), wide[1])[0]
    error = (found.double() - exact).norm() / exact.norm()
    assert error < 1.5 * torch.finfo(torch.bfloat16).eps / 2, error


def test_compiled_whole_with_options_that_vary() -> None:
    x, W, y, b = made(torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def head(x: Tensor, temperature: float, entropy: bool) -> Tensor:
        found = M.linear_log_prob(x, W, y, b, temperature, entropy=entropy)
        return found.log_prob - found.entropy if isinstance(found, loss.LinearLogProb) else found

    for temperature, entropy in ((1.0, True), (0.5, True), (0.25, False)):
        found = head(x, temperature, entropy)
        plain = M.linear_log_prob(x, W, y, b, temperature, entropy=True)
        expected = plain.log_prob - plain.entropy if entropy else plain.log_prob
        torch.testing.assert_close(found, expected)
        ours, theirs = (torch.autograd.grad(t.sum(), (x, W, b)) for t in (found, expected))
        torch.testing.assert_close(ours, theirs)


def test_no_rows_and_only_ignored_rows() -> None:
    x, W, y, b = made()
    assert M.linear_log_prob(x[:0], W, y[:0], b).shape == (0,)
    found = M.linear_log_prob(x, W, torch.full_like(y, -100), b, entropy=True)
    assert not found.log_prob.any() and not found.entropy.any()
    for d in torch.autograd.grad((found.log_prob + found.entropy).sum(), (x, W, b)):
        assert not d.any()


def test_an_output_may_be_changed_in_place() -> None:
    x, W, y, b = made()
    log_prob, entropy, *_ = M.linear_log_prob(x, W, y, b, entropy=True)
    of_logits = M.log_prob_and_entropy(x @ W.mT + b, y)
    expected = torch.autograd.grad(log_prob.exp().sum() + entropy.sum(), (x, W), retain_graph=True)
    for a, c in ((log_prob, entropy), of_logits):
        found = torch.autograd.grad(a.exp_().sum() + c.sum(), (x, W))
        torch.testing.assert_close(found, expected)
