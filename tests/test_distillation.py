"""Distillation: rows of a vocabulary's length, what TRL computes, the teacher's tail, and the memory of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import manual_grad.functional as M
from manual_grad.engine import linear
from manual_grad.engine.divergence import NAMES
from manual_grad.kernels import switched

EPS = torch.finfo(torch.float32).eps
VOCABULARY = 4096 + 13
LOG2 = math.log(2)

of_each = pytest.mark.parametrize("divergence", NAMES)


def normal(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def led_by(*gaps: float, seed: int = 1) -> Tensor:
    x = normal(len(gaps), VOCABULARY, seed=seed)
    x[torch.arange(len(gaps)), torch.arange(len(gaps)) * 7] += torch.tensor(gaps)
    return x


def only_some(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, ::3] = -torch.inf
    return x


PAIRS = {
    "apart": (normal(4, VOCABULARY), normal(4, VOCABULARY, seed=1)),
    "steep": (normal(4, VOCABULARY, scale=5.0), normal(4, VOCABULARY, seed=1, scale=5.0)),
    "within 0.001": (normal(4, VOCABULARY) + normal(4, VOCABULARY, seed=1, scale=1e-3), normal(4, VOCABULARY)),
    "within an ulp": (normal(4, VOCABULARY).nextafter(normal(4, VOCABULARY, seed=1, scale=9.0)), normal(4, VOCABULARY)),
    "confident": (led_by(10.0, 20.0, 40.0, 70.0), led_by(10.0, 20.0, 40.0, 70.0, seed=2)),
    "confident, wrong": (led_by(10.0, 20.0, 40.0, 70.0).roll(1, 0), led_by(10.0, 20.0, 40.0, 70.0)),
    "confident, within 0.01": (
        led_by(10.0, 20.0, 40.0, 60.0) + normal(4, VOCABULARY, seed=3, scale=0.01), led_by(10.0, 20.0, 40.0, 60.0)),
    "offset": (normal(4, VOCABULARY) + 1e4, normal(4, VOCABULARY, seed=1) - 1e4),
    "flat": (normal(4, VOCABULARY, scale=1e-3), torch.zeros(4, VOCABULARY)),
    "impossible classes": (only_some(normal(4, VOCABULARY)), only_some(normal(4, VOCABULARY, seed=1))),
    "262,144 classes": (normal(1, 262144), normal(1, 262144, seed=1)),
}  # fmt: skip


def log_softmax(x: Tensor, temperature: float) -> Tensor:
    """With the leader left out of the sum, so that in float64 no digit is lost that float32 has."""
    m, k = x.max(-1, keepdim=True)
    d = (m - x) / temperature
    return -(d + (-d).exp().scatter(-1, k, 0).sum(-1, keepdim=True).log1p())


def exactly(x: Tensor, t: Tensor, divergence: str, beta: float, T: float) -> tuple[Tensor, Tensor]:
    """Value and gradient by the student's scores in float64, by (3), (5) and (9) of the chapter."""
    x, t = x.double(), t.double()
    a, b = log_softmax(x, T), log_softmax(t, T)
    p, q = a.exp(), b.exp()
    possible = x > -torch.inf
    delta = torch.where(possible, (x - t) - (x.amax(-1, keepdim=True) - t.amax(-1, keepdim=True)), 0) / T
    e = ((t - t.amax(-1, keepdim=True)) / T).exp()
    sigma = (e * delta.clamp_max(500).expm1()).sum(-1, keepdim=True) / e.sum(-1, keepdim=True)
    u = torch.where(sigma.abs() < 0.5, delta - sigma.log1p(), torch.where(possible, a - b, 0))

    def remainder(d: Tensor) -> Tensor:
        series = d**2 / 2 * (1 + d / 3 * (1 + d / 4 * (1 + d / 5 * (1 + d / 6 * (1 + d / 7 * (1 + d / 8))))))
        return torch.where(d.abs() < 0.01, series, torch.where(d > 700, 0, d).expm1() - d)

    w, v = ((1 - beta) * u.expm1()).log1p(), (beta * (-u).expm1()).log1p()
    lead = u.gather(-1, x.argmax(-1, keepdim=True))
    terms, h = {
        "forward_kl": (torch.where(u.abs() < 1, q * remainder(u), p - q - q * u), None),
        "reverse_kl": (torch.where(u.abs() < 1, p * remainder(-u), q - p + p * u), u),
        "jsd": (beta * q * remainder(w) + (1 - beta) * p * remainder(v),
                -(1 - beta) * ((-lead).exp() * (lead - u).expm1() / ((-lead).exp() + (1 - beta) / beta)).log1p()),
        "tv": ((p * (-(-u.abs()).expm1())).where(u > 0, q * -(-u.abs()).expm1()) / 2, u.sign() / 2),
    }[divergence]  # fmt: skip
    if h is None:
        slope = torch.where(u.abs() < 1, q * u.expm1(), p - q)
    else:
        ahead = torch.where(possible, h - h.gather(-1, x.argmax(-1, keepdim=True)), 0)
        slope = p * (ahead - (p * ahead).sum(-1, keepdim=True))
    return T**2 * terms.sum(-1), T * slope


def assert_within(found: Tensor, exact: Tensor, eps: float) -> None:
    error = (found.double() - exact).abs()
    # what underflows has no digits, and where a gradient crosses 0, float64 has none that float32 could lack
    allowed = (
        eps * EPS * exact.abs() + 1e-13 * exact.abs().amax(-1, keepdim=True) * EPS + torch.finfo(torch.float32).tiny
    )
    assert (error <= allowed).all(), (error / (EPS * exact.abs())).nan_to_num().max()


@of_each
@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("name", PAIRS)
def test_rows_of_a_vocabulary(name: str, temperature: float, divergence: str) -> None:
    x, t = PAIRS[name]
    x = x.clone().requires_grad_()
    value = M.distillation_loss(x, t, divergence, 0.3, temperature, reduction="none")
    exact = exactly(x.detach(), t, divergence, 0.3, temperature)
    assert (value >= 0).all()
    assert_within(value.detach(), exact[0], 4)
    assert_within(torch.autograd.grad(value.sum(), x)[0], exact[1], 4)


@of_each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["apart", "confident", "within 0.1"])
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype, divergence: str) -> None:
    pairs = {"within 0.1": (normal(4, VOCABULARY) + normal(4, VOCABULARY, seed=1, scale=0.1), normal(4, VOCABULARY))}
    x, t = (s.to(dtype) for s in {**PAIRS, **pairs}[name])
    x.requires_grad_()
    value = M.distillation_loss(x, t, divergence, reduction="none")
    exact = exactly(x.detach(), t, divergence, 0.5, 1.0)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    half = 0.51 * torch.finfo(dtype).eps  # of the exact result, rounded to nearest
    torch.testing.assert_close(value.double(), exact[0], rtol=half, atol=tiny)
    gradient = torch.autograd.grad(value.sum(), x)[0]
    # float32 sums leave an entry in which the gradient itself cancels an error of eps relative to its terms
    cancelling = 8 * EPS * x.detach().double().softmax(-1) * exact[1].abs().amax(-1, keepdim=True)
    assert ((gradient.double() - exact[1]).abs() <= half * exact[1].abs() + cancelling + tiny).all()


@of_each
def test_the_gradient_of_the_teacher_is_that_of_a_student(divergence: str) -> None:
    x, t = (s.clone().requires_grad_() for s in PAIRS["steep"])
    other = {"forward_kl": "reverse_kl", "reverse_kl": "forward_kl"}.get(divergence, divergence)
    found = torch.autograd.grad(M.distillation_loss(x, t, divergence, 0.2), (x, t))
    swapped = torch.autograd.grad(M.distillation_loss(t, x, other, 0.8), (x, t))
    for a, b in zip(found, swapped, strict=True):
        torch.testing.assert_close(a, b, rtol=4 * EPS, atol=0)


def of_trl(student: Tensor, teacher: Tensor, beta: float, temperature: float) -> Tensor:
    """generalized_jsd_loss of TRL's GKDTrainer, without masking, summed."""
    a, b = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    if beta == 0:
        return F.kl_div(a, b, reduction="sum", log_target=True)
    if beta == 1:
        return F.kl_div(b, a, reduction="sum", log_target=True)
    m = torch.logsumexp(torch.stack([a + math.log1p(-beta), b + math.log(beta)]), dim=0)
    of_teacher, of_student = (F.kl_div(m, s, reduction="sum", log_target=True) for s in (b, a))
    return beta * of_teacher + (1 - beta) * of_student


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_beta_is_that_of_trl(beta: float, temperature: float) -> None:
    x, t = normal(3, 50, dtype=torch.float64).requires_grad_(), normal(3, 50, seed=1, dtype=torch.float64)
    found = M.distillation_loss(x, t, "jsd", beta, temperature, reduction="sum") / temperature**2
    expected = of_trl(x, t, beta, temperature)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


def test_the_limits_of_beta() -> None:
    x, t = normal(3, 50, dtype=torch.float64), normal(3, 50, seed=1, dtype=torch.float64)
    for beta, share, limit in ((1e-6, 1e-6, "forward_kl"), (1 - 1e-6, 1e-6, "reverse_kl")):
        torch.testing.assert_close(
            M.distillation_loss(x, t, "jsd", beta) / share, M.distillation_loss(x, t, limit), rtol=1e-5, atol=0
        )


@of_each
def test_gradients_keep_their_size_as_the_temperature_grows(divergence: str) -> None:
    """The factor T^2, of Hinton et al.; total variation is not a square, and grows like T."""
    x, t = normal(3, 50, dtype=torch.float64).requires_grad_(), normal(3, 50, seed=1, dtype=torch.float64)
    cool, hot = (torch.autograd.grad(M.distillation_loss(x, t, divergence, 0.5, T), x)[0].norm() for T in (1e2, 1e3))
    assert float(hot / cool) == pytest.approx(10 if divergence == "tv" else 1, rel=0.01)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "sequence"])
def test_masks_and_reductions(reduction: str) -> None:
    x, t = normal(2, 5, 9), normal(2, 5, 9, seed=1)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    each = M.distillation_loss(x, t, reduction="none") * mask
    expected = {
        "none": each,
        "sum": each.sum(),
        "mean": each.sum() / mask.sum(),
        "sequence": (each.sum(1) / mask.sum(1)).mean(),
    }[reduction]
    x = torch.where(mask[..., None] == 0, torch.nan, x).requires_grad_()
    found = M.distillation_loss(x, t, mask=mask, reduction=reduction)
    torch.testing.assert_close(found, expected)
    (dx,) = torch.autograd.grad(found.sum(), x)
    assert dx.isfinite().all() and not dx[mask == 0].any()


@of_each
def test_normalizer(divergence: str) -> None:
    x, t = normal(4, 9, dtype=torch.bfloat16), normal(4, 9, seed=1, dtype=torch.bfloat16)
    total = M.distillation_loss(x.double(), t.double(), divergence, reduction="sum")
    for mask in (None, torch.ones(4)):
        for normalizer in (7, torch.tensor(7.0)):
            found = M.distillation_loss(x, t, divergence, mask=mask, normalizer=normalizer)
            torch.testing.assert_close(found, (total / 7).to(torch.bfloat16))


def test_autocast_gives_float32_without_a_wide_copy() -> None:
    x, t = normal(4, 50, dtype=torch.bfloat16).requires_grad_(), normal(4, 50, seed=1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = M.distillation_loss(x, t)
        b, y = t.float().log_softmax(-1).topk(5)
        topk = M.topk_distillation_loss(x, b, y)
    assert found.dtype is topk.dtype is torch.float32
    assert_within(found.detach()[None], exactly(x.detach(), t, "forward_kl", 0.5, 1.0)[0].mean()[None], 4)
    (found + topk).backward()
    assert x.grad.dtype is torch.bfloat16


@of_each
@pytest.mark.parametrize("kernels", [True, False])
def test_compiled_whole(kernels: bool, divergence: str) -> None:
    x, t = normal(3, 7).requires_grad_(), normal(3, 7, seed=1)
    b, y = t.log_softmax(-1).topk(2)

    def loss(x: Tensor, temperature: float) -> Tensor:
        return M.distillation_loss(x, t, divergence, 0.3, temperature) + M.topk_distillation_loss(x, b, y, divergence)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    with switched(kernels):
        for temperature in (1.0, 0.5):
            found, expected = (torch.autograd.grad(f(x, temperature), x) for f in (compiled, loss))
            torch.testing.assert_close(found, expected)


# a teacher's top-k


def given(t: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    b, y = log_softmax(t.double(), temperature).topk(k)
    return b.to(t.dtype), y


@of_each
def test_all_classes_as_the_top_k(divergence: str) -> None:
    x, t = normal(3, 9, dtype=torch.float64).requires_grad_(), normal(3, 9, seed=1, dtype=torch.float64)
    found = M.topk_distillation_loss(x, *given(t, 9, 1.5), divergence, 0.3, 1.5)
    whole = M.distillation_loss(x, t, divergence, 0.3, 1.5)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(whole, x))


@of_each
def test_more_classes_tell_more(divergence: str) -> None:
    """Merging categories cannot increase a divergence, and the smallest, 0, is that of none."""
    x, t = normal(5, 40, dtype=torch.float64), normal(5, 40, seed=1, dtype=torch.float64)
    found = [M.topk_distillation_loss(x, *given(t, k), divergence, reduction="none") for k in (0, 1, 4, 16, 40)]
    for fewer, more in pairwise(found):
        assert (fewer <= more + 1e-15).all()
    assert not found[0].any()


@of_each
@pytest.mark.parametrize("gap", [0.0, 10.0, 20.0, 40.0, 80.0])
def test_a_teacher_without_digits_for_its_tail(gap: float, divergence: str) -> None:
    """log_softmax of float32 gives a sure leader the log-probability 0, which leaves nothing to the others."""
    x, t = normal(64, 100).requires_grad_(), normal(64, 100, seed=1)
    t[:, 0] += gap
    b, y = t.log_softmax(-1).topk(8)
    value = M.topk_distillation_loss(x, b, y, divergence, reduction="none")
    (dx,) = torch.autograd.grad(value.sum(), x)
    assert (value >= 0).all() and value.isfinite().all() and dx.isfinite().all()
    whole = M.distillation_loss(x, t, divergence, reduction="none")
    if divergence != "reverse_kl":  # of which that tail is a large part
        assert (value <= whole * (1 + 1e-5)).all()


@of_each
def test_the_gradient_of_a_row_sums_to_zero_and_the_tail_shares(divergence: str) -> None:
    x, t = normal(4, VOCABULARY).requires_grad_(), normal(4, VOCABULARY, seed=1)
    b, y = given(t, 16)
    (dx,) = torch.autograd.grad(M.topk_distillation_loss(x, b, y, divergence, reduction="sum"), x)
    assert (dx.double().sum(-1).abs() <= VOCABULARY**0.5 * EPS * dx.abs().amax(-1)).all()
    tail = torch.ones_like(x, dtype=torch.bool).scatter(-1, y, False)
    share = (dx.double() / x.detach().double().softmax(-1))[tail].view(4, -1)
    torch.testing.assert_close(share, share[:, :1].expand_as(share), rtol=4 * EPS, atol=0)


def test_indices_out_of_range() -> None:
    x, b = normal(3, 9), torch.full((3, 2), -2.0)
    for kernels in (True, False):
        with switched(kernels), pytest.raises(IndexError, match="teacher_indices: index 9 is out of bounds"):
            M.topk_distillation_loss(x, b, torch.tensor([[0, 1], [3, 9], [10, 0]]))


# hidden states

N, C, D, E = 37, 23, 5, 7


def models(dtype: torch.dtype = torch.float64, teachers: torch.dtype | None = None) -> list[Tensor]:
    """Hidden states, weights and biases, of the student and then of the teacher."""
    shapes = (N, D), (C, D), (C,), (N, E), (C, E), (C,)
    dtypes = [dtype] * 3 + [teachers or dtype] * 3
    return [normal(*s, seed=i, dtype=d).requires_grad_() for i, (s, d) in enumerate(zip(shapes, dtypes, strict=True))]


def by_parts(x: Tensor, W: Tensor, b: Tensor, x_t: Tensor, W_t: Tensor, b_t: Tensor, **options: object) -> Tensor:
    return M.linear_distillation_loss(x, W, x_t, W_t, bias=b, teacher_bias=b_t, **options)


def whole(x: Tensor, W: Tensor, b: Tensor, x_t: Tensor, W_t: Tensor, b_t: Tensor, **options: object) -> Tensor:
    return M.distillation_loss(x @ W.mT + b, x_t @ W_t.mT + b_t, **options)


def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCORES", "SCORES_OF_FORMULAS"):
        monkeypatch.setattr(linear, name, 2 * 8 * C)


@of_each
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_hidden_states(reduction: str, kernels: bool, divergence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks(monkeypatch)
    of, mask = models(), torch.arange(N) % 3
    options = dict(divergence=divergence, beta=0.3, temperature=1.5, mask=mask, reduction=reduction)
    with switched(kernels):
        found, expected = by_parts(*of, **options), whole(*of, **options)
        torch.testing.assert_close(found, expected)
        g = torch.linspace(1, 2, found.numel(), dtype=torch.float64).view_as(found)
        torch.testing.assert_close(torch.autograd.grad(found, of, g), torch.autograd.grad(expected, of, g))


@pytest.mark.parametrize("frozen", ["teacher", "student", "weights"])
def test_nothing_is_computed_for_what_needs_no_gradient(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[Tensor | None]] = []
    gradients = linear.Products.gradients
    monkeypatch.setattr(linear.Products, "gradients", lambda self: kept.append(self.sums) or gradients(self))
    of = models()
    for i in {"teacher": (3, 4, 5), "student": (0, 1, 2), "weights": (1, 4)}[frozen]:
        of[i].requires_grad_(False)
    by_parts(*of).backward()
    assert [d is not None for sums in kept for d in sums] == [t.requires_grad for t in of]
    assert [t.grad is not None for t in of] == [t.requires_grad for t in of]


def test_what_does_not_count_does_not_reach_the_weights() -> None:
    of, mask = models(), torch.ones(N)
    mask[3] = 0
    expected = torch.autograd.grad(by_parts(*of, mask=mask), of)
    for i in (0, 3):
        of[i].data[3] = torch.nan
    found = torch.autograd.grad(by_parts(*of, mask=mask), of)
    torch.testing.assert_close(found, expected)


def test_a_teacher_of_another_dtype() -> None:
    of = models(torch.float32, torch.bfloat16)
    found = by_parts(*of, divergence="jsd")
    wide = [t.detach().double() for t in of]
    assert found.dtype is torch.float32
    torch.testing.assert_close(found.double(), whole(*wide, divergence="jsd"), rtol=0.05, atol=0)  # bfloat16 products
    found.backward()
    assert [t.grad.dtype for t in of] == [torch.float32] * 3 + [torch.bfloat16] * 3


def test_float32_parameters_under_autocast() -> None:
    of = models(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = by_parts(*of)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, whole(*of), rtol=0.05, atol=0)  # as above
    found.backward()
    assert all(t.grad.dtype is torch.float32 for t in of)


def test_second_derivatives_of_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks(monkeypatch)
    of = models()
    v = [normal(*t.shape, seed=9 + i, dtype=torch.float64) for i, t in enumerate(of)]

    def along(loss: Callable[..., Tensor], divergence: str) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(loss(*of, divergence=divergence, temperature=1.5), of, create_graph=True)
        return torch.autograd.grad(sum((a * b).sum() for a, b in zip(first, v, strict=True)), of)

    for divergence in ("forward_kl", "reverse_kl", "jsd"):
        torch.testing.assert_close(along(by_parts, divergence), along(whole, divergence))


def test_the_memory_of_blocks() -> None:
    """Beside inputs and gradients, at most 64 MB, where the scores of either model would take 131 MB."""
    rows, classes = 2048, 16000
    x, x_t, W, W_t = (normal(n, 8, seed=i) for i, n in enumerate((rows, rows, classes, classes)))
    x.requires_grad_(), W.requires_grad_()
    held: list[int] = []
    empty = Tensor.new_empty

    def recorded(self: Tensor, *args: object, **options: object) -> Tensor:
        result = empty(self, *args, **options)
        held.append(result.numel() * result.element_size())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "new_empty", recorded)
        M.linear_distillation_loss(x, W, x_t, W_t).backward()
    gradients = sum(t.numel() * t.element_size() for t in (x, W))
    assert sum(held) <= (64 << 20) + gradients


@pytest.mark.parametrize("divergence", NAMES)
def test_a_class_that_both_rule_out_has_no_part_in_a_second_derivative(divergence: str) -> None:
    """Among the teacher's most probable classes there may be one of probability 0, for the student, too."""

    def second(scores: list[float], log_probs: list[float], along: list[float]) -> Tensor:
        x, v = (torch.tensor([u], dtype=torch.float64) for u in (scores, along))
        x.requires_grad_()
        b, y = torch.tensor([log_probs], dtype=torch.float64), torch.arange(len(log_probs)).unsqueeze(0)
        loss = M.topk_distillation_loss(x, b, y, divergence, temperature=2.0)
        (d,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(d, x, v)[0][0]

    ours = second([0.5, -1.0, -math.inf, 2.0], [-0.5, -1.5, -math.inf], [1.0, 2.0, 5.0, 3.0])
    without = second([0.5, -1.0, 2.0], [-0.5, -1.5], [1.0, 2.0, 3.0])
    torch.testing.assert_close(ours, torch.cat([without[:2], torch.zeros(1), without[2:]]))
