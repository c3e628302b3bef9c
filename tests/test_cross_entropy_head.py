"""Cross entropy with additions, on scores and from hidden states, as a training loop calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import manual_grad
import manual_grad.functional as M
from manual_grad import kernels
from manual_grad.engine import linear

B, T, D, C = 3, 20, 8, 37


def made(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of sequences, the weight of the head, and labels of which some are ignored."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*s, generator=draw, dtype=torch.float64).to(dtype) for s in ((B, T, D), (C, D)))
    labels = torch.randint(C, (B, T), generator=draw)
    labels[:, ::7] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def from_scores(hidden: Tensor, weight: Tensor, labels: Tensor, **options: Any) -> Any:
    return M.cross_entropy((hidden @ weight.mT).movedim(-1, 1), labels, **options)


HEADS = {"cross_entropy": from_scores, "linear_cross_entropy": M.linear_cross_entropy}
each_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
Head = Callable[..., Any]


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, retain_graph=True)


@each_head
@pytest.mark.parametrize("additions", [{}, dict(z_loss=1e-2, softcap=3.0, temperature=0.7)], ids=["plain", "all"])
def test_shifted_labels(head: Head, additions: dict[str, float]) -> None:
    """As if the scores' last position and the labels' first were cut off."""
    hidden, weight, labels = made()
    found = head(hidden, weight, labels, shift=True, **additions)
    expected = from_scores(hidden[:, :-1], weight, labels[:, 1:], **additions)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, hidden, weight), gradients(expected, hidden, weight))


@each_head
@pytest.mark.parametrize("additions", [{}, dict(z_loss=1e-2)], ids=["plain", "z-loss"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_parts_with_the_normalizer_of_the_whole_add_up(
    head: Head, additions: dict[str, float], dtype: torch.dtype
) -> None:
    hidden, weight, labels = made(dtype)
    labels = labels.clone()
    labels[1] = -100  # one part has no token, the others have different numbers
    labels[2, 3:] = -100
    count = (labels[:, 1:] != -100).sum()
    whole = head(hidden, weight, labels, shift=True, **additions)
    parts = [
        head(hidden[i : i + 1], weight, labels[i : i + 1], shift=True, normalizer=count, **additions) for i in range(B)
    ]
    assert all(part.dtype is dtype for part in parts)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(sum(parts), whole, rtol=4 * eps, atol=0)
    (dh, dW), several = gradients(whole, hidden, weight), [gradients(part, hidden, weight) for part in parts]
    for one, terms in ((dh, [d[0] for d in several]), (dW, [d[1] for d in several])):
        # the products round by themselves, and a sum of three halves twice
        torch.testing.assert_close(sum(terms), one, rtol=0, atol=8 * eps * one.abs().max().item())


@each_head
def test_every_output_has_its_gradient(head: Head) -> None:
    hidden, weight, labels = made()
    z = 2.0 * ((hidden @ weight.mT) / 2.0).tanh()
    kept = labels != -100
    lse = z.logsumexp(-1).where(kept, 0)
    nll = F.cross_entropy(z.movedim(-1, 1), labels, reduction="none")
    w = torch.linspace(0.5, 2, B * T, dtype=torch.float64).reshape(B, T)
    z_loss = (w * 0.1 * lse.square()).sum() / (w * kept).sum()
    expected = (w * nll).sum() / (w * kept).sum() + z_loss, z_loss, lse
    found = head(hidden, weight, labels, softcap=2.0, z_loss=0.1, token_weight=w, return_z_loss=True, lse=True,
                 accuracy=True)  # fmt: skip
    assert torch.equal(found.correct, (z.argmax(-1) == labels) & kept)
    for ours, theirs in zip(found[:3], expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        g = torch.ones_like(ours)
        mine, wanted = (torch.autograd.grad(t, (hidden, weight), g, retain_graph=True) for t in (ours, theirs))
        torch.testing.assert_close(mine, wanted)


@each_head
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_weights_of_tokens_may_require_a_gradient(head: Head, reduction: str) -> None:
    hidden, weight, labels = made()
    w = torch.linspace(0, 2, B * T, dtype=torch.float64).reshape(B, T).requires_grad_()
    found = head(hidden, weight, labels, token_weight=w, reduction=reduction)
    rows = F.cross_entropy((hidden @ weight.mT).movedim(-1, 1), labels, reduction="none")
    expected = {"none": w * rows, "sum": (w * rows).sum(), "mean": (w * rows).sum() / (w * (labels != -100)).sum()}
    torch.testing.assert_close(found, expected[reduction])
    mine, wanted = (gradients(t.sum(), w, hidden) for t in (found, expected[reduction]))
    torch.testing.assert_close(mine, wanted)


@each_head
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float16, torch.float64], ids=str)
def test_a_mask_of_any_dtype(head: Head, kind: torch.dtype) -> None:
    hidden, weight, labels = made(torch.float32)
    mask = (torch.arange(B * T) % 3 > 0).reshape(B, T)
    found = head(hidden, weight, labels, token_weight=mask.to(kind), z_loss=0.1)
    torch.testing.assert_close(found, head(hidden, weight, labels.where(mask, -100), z_loss=0.1))
    assert found.dtype is torch.float32


@each_head
def test_nothing_counts(head: Head) -> None:
    """Every row is ignored, of one part or of all: sums are 0, and so are the gradients."""
    hidden, weight, labels = made()
    found = head(hidden, weight, torch.full_like(labels, -100), z_loss=0.1, normalizer=5.0)
    assert found == 0
    assert not any(d.any() for d in gradients(found, hidden, weight))
    assert not head(hidden, weight, labels, z_loss=0.1, normalizer=0).isfinite()
    nan = torch.full_like(hidden, torch.nan).requires_grad_()
    found = head(nan, weight, labels, token_weight=torch.zeros(B, T), reduction="sum", softcap=3.0)
    assert found == 0 and not gradients(found, nan)[0].any()


@each_head
@pytest.mark.parametrize("blocks", [dict(SCORES=11 * C, LEAST_ROWS=1),
                                    dict(SCORES=C, SCORES_OF_FORMULAS=160, MOST_ROWS=16)],
                         ids=["rows", "classes"])  # fmt: skip
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("on", [True, False], ids=["kernels", "formulas"])
def test_blocks(
    head: Head, on: bool, blocks: dict[str, int], smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight, labels = made()
    labels[1] = -100  # a block with no token, and one with a few
    labels[2, 3:12] = -100
    options = dict(softcap=3.0, z_loss=0.1, label_smoothing=smoothing, token_weight=torch.ones(B, T))
    whole = head(hidden, weight, labels, **options)
    expected = gradients(whole, hidden, weight)
    for name, size in blocks.items():
        monkeypatch.setattr(linear, name, size)
    with kernels.switched(on):
        found = head(hidden, weight, labels, **options)
        torch.testing.assert_close(found, whole)
        torch.testing.assert_close(gradients(found, hidden, weight), expected)


@each_head
def test_accumulated_twice_checkpointed_and_tied(head: Head) -> None:
    hidden, weight, labels = made()
    options = dict(z_loss=0.1, shift=True, normalizer=40)
    loss = head(hidden, weight, labels, **options)
    once, again = (gradients(loss, hidden, weight) for _ in range(2))
    saved = checkpoint(head, hidden, weight, labels, use_reentrant=False, **options)
    for a, b, c in zip(once, again, gradients(saved, hidden, weight), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)

    def through(head: Head) -> Tensor:  # the embedding and the head share a weight
        return gradients(head(F.embedding(labels.clamp(min=0), weight).tanh(), weight, labels, **options), weight)[0]

    def plain(hidden: Tensor, weight: Tensor, labels: Tensor, **_: Any) -> Tensor:
        z, y = (hidden @ weight.mT)[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return (F.cross_entropy(z, y, reduction="sum") + 0.1 * z.logsumexp(-1)[y != -100].square().sum()) / 40

    torch.testing.assert_close(through(head), through(plain))


@each_head
def test_float32_parameters_under_autocast(head: Head) -> None:
    hidden, weight, labels = made(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(hidden, weight, labels, shift=True, z_loss=1e-3, normalizer=torch.tensor(50))
        z = (hidden @ weight.mT)[:, :-1].flatten(0, 1).float()
    y = labels[:, 1:].flatten()
    expected = (F.cross_entropy(z, y, reduction="sum") + 1e-3 * z.logsumexp(-1)[y != -100].square().sum()) / 50
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)
    found.backward()
    assert hidden.grad.dtype is weight.grad.dtype is torch.float32


@each_head
def test_compiled_with_options_that_vary(head: Head) -> None:
    hidden, weight, labels = made()
    run = torch.compile(head, fullgraph=True, backend="aot_eager")
    for options in (
        dict(z_loss=0.1, shift=True),
        dict(z_loss=0.2, shift=True, normalizer=torch.tensor(30.0)),
        dict(softcap=3.0, token_weight=torch.linspace(0, 1, B * T, dtype=torch.float64).reshape(B, T)),
        dict(softcap=5.0, temperature=0.5, label_smoothing=0.1, lse=True, accuracy=True),
    ):
        found, expected = run(hidden, weight, labels, **options), head(hidden, weight, labels, **options)
        torch.testing.assert_close(found, expected)
        a, b = (t if isinstance(t, Tensor) else t.loss + t.lse.sum() for t in (found, expected))
        torch.testing.assert_close(gradients(a, hidden, weight), gradients(b, hidden, weight))


def test_modules_take_the_additions() -> None:
    hidden, weight, labels = made()
    options = dict(z_loss=0.1, softcap=3.0, temperature=0.5, logit_scale=2.0, shift=True)
    w = torch.linspace(0, 1, B * T, dtype=torch.float64).reshape(B, T)
    expected = M.linear_cross_entropy(hidden, weight, labels, token_weight=w, normalizer=7.0, **options)
    layer = manual_grad.LinearCrossEntropyLoss(D, C, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.linear.weight.copy_(weight)
    torch.testing.assert_close(layer(hidden, labels, w, 7.0), expected)
    scores = (hidden @ weight.mT).movedim(-1, 1)
    torch.testing.assert_close(manual_grad.CrossEntropyLoss(**options)(scores, labels, w, 7.0), expected)


def test_probabilities_and_class_weights_get_gradients() -> None:
    hidden, weight, labels = made()
    p = torch.rand(B, T, C, generator=torch.Generator().manual_seed(1)).double().softmax(-1).requires_grad_()
    v = torch.linspace(0.5, 2, C, dtype=torch.float64).requires_grad_()
    found = M.cross_entropy((hidden @ weight.mT).movedim(-1, 1), p.movedim(-1, 1), v, z_loss=0.1, label_smoothing=0.1)
    z = hidden @ weight.mT
    rows = -(v * (0.9 * p + 0.1 / C) * z.log_softmax(-1)).sum(-1) + 0.1 * z.logsumexp(-1).square()
    torch.testing.assert_close(found, rows.mean())
    torch.testing.assert_close(gradients(found, hidden, p, v), gradients(rows.mean(), hidden, p, v))
    flat = M.linear_cross_entropy(hidden.flatten(0, 1), weight, p.flatten(0, 1), weight=v, z_loss=0.1,
                                  label_smoothing=0.1)  # fmt: skip
    torch.testing.assert_close(flat, found)
    torch.testing.assert_close(gradients(flat, hidden, p, v), gradients(found, hidden, p, v))


@pytest.mark.parametrize("head", [M.cross_entropy, M.linear_cross_entropy], ids=lambda f: f.__name__)
def test_half_precision_scores_are_not_copied(head: Head) -> None:
    """The only buffer as large as the scores is their gradient."""
    rows, classes = 64, 50_000
    hidden = torch.randn(rows, 4, dtype=torch.bfloat16).requires_grad_()
    weight = torch.randn(classes, 4, dtype=torch.bfloat16)
    scores = (hidden @ weight.mT).detach().requires_grad_()
    labels = torch.arange(rows)
    arguments = (scores, labels) if head is M.cross_entropy else (hidden, weight, labels)
    most = 0

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal most
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and "empty" in func.__name__ + "to_copy" * ("_to_copy" in func.__name__):
                most = max(most, result.nbytes)
            return result

    with Watching():
        head(*arguments, z_loss=1e-3, softcap=30.0).backward()
    assert most <= max(scores.nbytes, 4 * linear.SCORES)


@pytest.mark.parametrize("rows", [1, 3])
def test_positions_in_blocks_of_classes(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight (C, 2, D) scores two positions of every row."""
    monkeypatch.setattr(linear, "SCORES", 6)
    monkeypatch.setattr(linear, "SCORES_OF_FORMULAS", 6)
    x, W = torch.randn(rows, 4, dtype=torch.float64), torch.randn(5, 2, 4, dtype=torch.float64)
    y = torch.arange(2 * rows).view(rows, 2) % 5
    scores = torch.einsum("nd,cpd->ncp", x, W)
    for options in (dict(z_loss=0.1), dict(lse=True, accuracy=True, label_smoothing=0.1)):
        found, expected = (
            loss(*args, y, reduction="none", softcap=3.0, **options)
            for loss, args in ((M.linear_cross_entropy, (x, W)), (M.cross_entropy, (scores,)))
        )
        torch.testing.assert_close(found, expected)
