"""Losses of sampled tokens, and how each library averages them: against the formulas that they publish.

TRL 1.16.0, its GRPO trainer; verl's ``agg_loss``; OpenRLHF's ``PolicyLoss``. The table of the guide names the calls.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import manual_grad.functional as M

LENGTHS = torch.tensor([9, 4, 1, 7, 0, 3])  # one completion has no token at all
B, T, LONGEST = len(LENGTHS), 9, 12
MASK = (torch.arange(T) < LENGTHS[:, None]).double()
TOTAL = torch.tensor(40)  # tokens of the batch that this is a part of


def tokens() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(B, T, dtype=torch.float64) - 3
    old, ref = (x + 0.3 * torch.randn(B, T, dtype=torch.float64) for _ in range(2))
    return x.requires_grad_(), old, ref, torch.randn(B, dtype=torch.float64)


def per_token(x: Tensor, old: Tensor, ref: Tensor, A: Tensor, level: str, beta: float, delta: float | None) -> Tensor:
    """As in TRL: the two surrogates, the smaller of them, and the penalty."""
    ratio = x - old
    if level == "sequence":
        ratio = ((ratio * MASK).sum(-1) / MASK.sum(-1).clamp(min=1.0)).unsqueeze(-1)
    unclipped = ratio.exp()
    clipped = unclipped.clamp(0.8, 1.28)
    if delta is not None:
        unclipped = unclipped.clamp(max=delta)
    loss = -torch.min(unclipped * A.unsqueeze(1), clipped * A.unsqueeze(1))
    return loss + beta * ((ref - x).exp() - (ref - x) - 1) if beta else loss.expand_as(x)


AVERAGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "TRL grpo": (lambda e: ((e * MASK).sum(-1) / MASK.sum(-1).clamp(min=1.0)).mean(), dict(reduction="sequence")),
    "TRL bnpo, OpenRLHF, verl token-mean": (lambda e: (e * MASK).sum() / MASK.sum(), dict()),
    "TRL dapo": (lambda e: (e * MASK).sum() / TOTAL, dict(normalizer=TOTAL)),
    "TRL dr_grpo": (lambda e: (e * MASK).sum() / (B * LONGEST), dict(normalizer=B * LONGEST)),
    "TRL luspo, verl seq-mean-token-sum": (lambda e: (e * MASK).sum(-1).mean(), dict(normalizer=B)),
    "verl seq-mean-token-sum-norm": (lambda e: (e * MASK).sum(-1).sum() / T, dict(normalizer=T)),
}


@pytest.mark.parametrize("name", AVERAGES)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("beta", "delta"), [(0.0, None), (0.04, None), (0.0, 2.0), (0.5, 1.5)])
def test_grpo_is_averaged_as_elsewhere(name: str, level: str, beta: float, delta: float | None) -> None:
    x, old, ref, A = tokens()
    average, call = AVERAGES[name]
    theirs = average(per_token(x, old, ref, A, level, beta, delta))
    options = dict(epsilon=0.2, epsilon_high=0.28, delta=delta, beta=beta, level=level)
    ours = M.grpo_loss(x, old, A, MASK, ref, **options, **call)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)
    (mine,), (other,) = torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x)
    torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15)
    assert ((mine != 0) <= (MASK != 0)).all()


@pytest.mark.parametrize("name", AVERAGES)
def test_cispo_is_averaged_as_elsewhere(name: str) -> None:
    x, old, _, A = tokens()
    average, call = AVERAGES[name]
    theirs = average(-torch.clamp((x - old).exp(), max=1.1).detach() * A.unsqueeze(1) * x)
    ours = M.cispo_loss(x, x - old, A, MASK, 1.1, **call)  # the ratio gets no gradient
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", AVERAGES)
def test_the_other_losses_are_averaged_alike(name: str) -> None:
    x, old, ref, A = tokens()
    average, call = AVERAGES[name]
    surrogate = M.ppo_clip_loss(x, old, A, MASK, 0.2, 0.28, **call)
    torch.testing.assert_close(surrogate, average(per_token(x, old, ref, A, "token", 0.0, None)))
    for estimator, e in (("k1", x - ref), ("k2", (x - ref) ** 2 / 2), ("k3", (ref - x).exp() - 1 - (ref - x))):
        torch.testing.assert_close(M.sampled_kl(x, ref, MASK, estimator, **call), average(e))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "sequence"])
def test_what_is_masked_may_be_anything(reduction: str) -> None:
    x, old, ref, A = tokens()
    broken = [
        torch.where(MASK == 0, bad, t.detach()) for t, bad in ((x, torch.nan), (old, -torch.inf), (ref, torch.inf))
    ]
    for level in ("token", "sequence"):
        results = []
        for policy, sampled, reference in ((x.detach(), old, ref), broken):
            leaf = policy.clone().requires_grad_()
            options = dict(ref_log_prob=reference, beta=0.5, level=level, reduction=reduction)
            loss = M.grpo_loss(leaf, sampled, A, MASK, **options)
            results.append((loss, *torch.autograd.grad(loss.sum(), leaf)))
        torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_counts_all_tokens(dtype: torch.dtype) -> None:
    """float16 overflows at 65,504, and bfloat16 cannot tell 256 from 257."""
    x, A = torch.full((3, 30000), -1.0, dtype=dtype), torch.tensor([1.0, 1.0, -1.0], dtype=dtype)
    mask = torch.ones_like(x, dtype=torch.bool)
    for reduction in ("mean", "sequence"):
        found = M.grpo_loss(x, x, A, mask, reduction=reduction)
        assert found.dtype is dtype
        torch.testing.assert_close(found, torch.tensor(-1 / 3, dtype=dtype))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "sequence"])
def test_a_mask_is_broadcast(reduction: str) -> None:
    x, old, ref, A = tokens()
    for level in ("token", "sequence"):
        options = dict(ref_log_prob=ref, beta=0.5, level=level, reduction=reduction)
        narrow, wide = (M.grpo_loss(x, old, A, mask, **options) for mask in (MASK[1], MASK[1].expand(B, T)))
        torch.testing.assert_close(narrow, wide, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "sequence"])
def test_a_mask_may_have_any_dtype_and_layout(dtype: torch.dtype, reduction: str) -> None:
    """The kernels read integers where they lie, in several blocks of which the last is not whole."""
    x, old, counts = torch.randn(3, 700), torch.randn(3, 700), torch.randint(0, 3, (3, 700))
    counts[:, -5:] = torch.tensor([0, 1, 2, 1, 0])
    x.requires_grad_()
    A = torch.randn(3, 1)
    mask = counts.to(dtype)
    layouts = mask, mask.T.contiguous().T, torch.stack([mask, mask], -1)[..., 0], mask.flip(1).flip(1)
    expected = M.grpo_loss(x, old, A, mask.to(x.dtype), reduction=reduction)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    for laid in layouts:
        found = M.grpo_loss(x, old, A, laid, reduction=reduction)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(*torch.autograd.grad(found.sum(), x), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_accumulated_micro_batches_are_one_batch(level: str) -> None:
    x, old, ref, A = tokens()
    options = dict(beta=0.04, level=level, normalizer=MASK.sum())
    whole = M.grpo_loss(x, old, A, MASK, ref, beta=0.04, level=level)
    parts = [M.grpo_loss(x[i : i + 2], old[i : i + 2], A[i : i + 2], MASK[i : i + 2], ref[i : i + 2], **options)
             for i in range(0, B, 2)]  # fmt: skip
    torch.testing.assert_close(sum(parts), whole, rtol=1e-14, atol=1e-16)


def test_k3_near_the_reference_keeps_its_digits() -> None:
    x = torch.full((1,), -2.0, requires_grad=True)
    reference = torch.full((1,), -2.0 + 2.0**-20)
    d = 2.0**-20
    loss = M.sampled_kl(x, reference)
    torch.testing.assert_close(loss.item(), d * d / 2, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0].item(), -d, rtol=1e-6, atol=0)
    assert (reference.detach() - x.detach()).exp() - 1 - (reference - x.detach()) == 0  # what is written usually
