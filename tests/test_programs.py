"""manual_grad.patch("transformers", "trl") beside the real programs, where they are installed."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import manual_grad

pytestmark = pytest.mark.filterwarnings("ignore")  # the programs' own

os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    REASON = "{0} is not installed: pip install transformers trl accelerate datasets"
    transformers = pytest.importorskip("transformers", reason=REASON.format("transformers"))
    trl = pytest.importorskip("trl", reason=REASON.format("trl"))
    import transformers.loss.loss_utils as transformers_losses
    import trl.trainer.utils as trl_utils
    from transformers import trainer as transformers_trainer
    from trl import kernels as trl_kernels
    from trl.experimental.cpo import cpo_trainer  # imports a loss by name, and is imported before the patch

    from benchmarks import programs

# Ours of float32 are within a few eps; theirs lose digits to the size of the logits, here at most 8, and of sums.
CLOSE = {
    torch.float64: dict(rtol=1e-12, atol=1e-12),
    torch.float32: dict(rtol=2e-5, atol=2e-6),
    torch.bfloat16: dict(rtol=3e-2, atol=3e-2),
    torch.float16: dict(rtol=4e-3, atol=4e-3),
}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = dict(vars(trl_utils)), dict(transformers_losses.LOSS_MAPPING)
    yield
    assert (dict(vars(trl_utils)), dict(transformers_losses.LOSS_MAPPING)) == before


def outcome(call: Callable[..., Any], *tensors: Tensor | None, **options: Any) -> tuple[list[Any], list[Any]]:
    """The results, and the gradients that a sum of them with weights of their own has."""
    leaves = [t.detach().clone().requires_grad_() if t is not None and t.is_floating_point() else t for t in tensors]
    results = call(*leaves, **options)
    results = list(results) if isinstance(results, tuple) else [results]
    total = sum(
        (r.float() * torch.linspace(1, 2, r.numel()).view(r.shape)).sum()
        for r in results
        if r is not None and r.requires_grad
    )
    wanted = [t for t in leaves if t is not None and t.requires_grad]
    return results, list(torch.autograd.grad(total, wanted))


def assert_same(ours: tuple[list[Any], list[Any]], theirs: tuple[list[Any], list[Any]], **close: float) -> None:
    for mine, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert mine.requires_grad == other.requires_grad
            torch.testing.assert_close(mine, other, equal_nan=True, **close)  # shape and dtype, too


def compare(
    name: str, find: Callable[[], Callable[..., Any]], *tensors: Tensor | None, close: Any, **options: Any
) -> None:
    """``find`` looks the loss up as the program does."""
    theirs = outcome(find(), *tensors, **options)
    with manual_grad.patch(name):
        ours = outcome(find(), *tensors, **options)
    assert_same(ours, theirs, **close)


def logits(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return (2 * torch.randn(*shape)).to(dtype)


# -- transformers

LABELS = torch.tensor([[3, 0, -100, 10, 4], [-100, 2, 7, -100, 1]])


def causal_lm(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return transformers_losses.LOSS_MAPPING["ForCausalLM"](logits, labels, vocab_size=11, **options)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_items_in_batch": 7},
        {"num_items_in_batch": torch.tensor(7)},
        {"ignore_index": 4},
        {"shift_labels": LABELS.flip(1)},
        {"unknown": "ignored"},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_causal_lm_loss(dtype: torch.dtype, options: dict[str, Any]) -> None:
    labels = LABELS.clamp(min=0) if "ignore_index" in options else LABELS
    close = CLOSE[dtype if dtype is not torch.float64 else torch.float32]  # theirs rounds float64 logits to float32
    compare("transformers", lambda: causal_lm, logits(2, 5, 11, dtype=dtype), labels, close=close, **options)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_masked_lm_loss(dtype: torch.dtype) -> None:
    def find() -> Callable[..., Any]:
        return transformers_losses.LOSS_MAPPING["ForMaskedLM"]

    close = CLOSE[dtype if dtype is not torch.float64 else torch.float32]
    compare("transformers", find, logits(2, 5, 11, dtype=dtype), LABELS, close=close, vocab_size=11)


def test_causal_lm_loss_of_no_labels() -> None:
    labels = torch.full((2, 5), -100)
    compare("transformers", lambda: causal_lm, logits(2, 5, 11), labels, close=CLOSE[torch.float32])  # nan
    compare("transformers", lambda: causal_lm, logits(2, 5, 11), labels, close={}, num_items_in_batch=3)  # 0


def test_causal_lm_loss_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        x = logits(2, 5, 11, dtype=torch.bfloat16)
        compare("transformers", lambda: causal_lm, x, LABELS, close=CLOSE[torch.bfloat16])


def test_causal_lm_loss_refuses_bad_labels() -> None:
    with manual_grad.patch("transformers"), pytest.raises(IndexError, match="11"):
        causal_lm(logits(1, 3, 11), torch.tensor([[0, 11, 1]]))


def test_the_logits_are_not_copied() -> None:
    x = logits(64, 2048, dtype=torch.bfloat16)
    labels = torch.randint(2048, (64,))
    sizes = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
                sizes.append(result.numel())
            return result

    with Largest(), manual_grad.patch("transformers"):
        transformers_losses.LOSS_MAPPING["ForCausalLM"](x, None, 2048, shift_labels=labels)
    assert max(sizes) < x.numel() / 64
    sizes.clear()
    with Largest():
        transformers_losses.LOSS_MAPPING["ForCausalLM"](x, None, 2048, shift_labels=labels)
    assert max(sizes) == x.numel()


# -- TRL


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("shape", [(6, 11), (2, 3, 11), (2, 1, 3, 11)], ids=str)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}], ids=str)
def test_selective_log_softmax(dtype: torch.dtype, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    index = torch.arange(6).view(shape[:-1])
    x = logits(*shape, dtype=dtype)
    for row_mask in (None, index != 2, (index != 2).long()):
        chosen = dict(options, row_mask=row_mask)
        compare("trl", lambda: trl_utils.selective_log_softmax, x, index, close=CLOSE[dtype], **chosen)
        for gradient in (True, False):
            chosen["entropy_requires_grad"] = gradient
            compare("trl", lambda: trl_utils.selective_log_softmax_and_entropy, x, index, close=CLOSE[dtype], **chosen)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("shape", [(6, 11), (2, 3, 11)], ids=str)
def test_entropy_from_logits(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = logits(*shape, dtype=dtype)
    compare("trl", lambda: trl_utils.entropy_from_logits, x, close=CLOSE[dtype], chunk_size=4)


def test_several_classes_of_a_row_are_left_to_theirs() -> None:
    index = torch.arange(12).view(2, 3, 2) % 11
    compare("trl", lambda: trl_utils.selective_log_softmax, logits(2, 3, 11), index, close=dict(rtol=0, atol=0))


def test_logits_under_autocast() -> None:
    x, index = logits(2, 3, 11, dtype=torch.bfloat16), torch.arange(6).view(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        compare("trl", lambda: trl_utils.selective_log_softmax, x, index, close=CLOSE[x.dtype])
        compare("trl", lambda: trl_utils.entropy_from_logits, x, close=CLOSE[x.dtype])


def test_only_a_mask_ignores_rows() -> None:
    with manual_grad.patch("trl"), pytest.raises(IndexError, match="-100"):
        trl_utils.selective_log_softmax(logits(2, 3, 11), torch.full((2, 3), -100))


def test_a_temperature_of_zero_is_refused_by_theirs() -> None:
    with manual_grad.patch("trl"), pytest.raises(ValueError, match="temperature must be positive"):
        trl_utils.selective_log_softmax(logits(2, 3, 11), torch.zeros(2, 3, dtype=torch.int64), temperature=0.0)


def head(dtype: torch.dtype = torch.float32, bias: bool = False) -> tuple[Tensor | None, ...]:
    torch.manual_seed(0)
    return torch.randn(6, 8).to(dtype), torch.randn(11, 8).to(dtype), torch.randn(11).to(dtype) if bias else None


def chunked(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *options: Any) -> tuple[Any, ...]:
    return trl_utils._ChunkedLogProbFunction.apply(hidden, weight, bias, targets, *options)


OUTPUTS = [
    ("log_probs",),
    ("log_probs", "entropy", "is_top1"),
    ("log_probs", "entropy", "mean_logits", "is_top1"),
    ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("outputs", OUTPUTS, ids=len)
@pytest.mark.parametrize("options", [(1.0, 4), (0.7, 4, None, 0.5), (0.7, 4, 3.0, 0.5), (1.0, 4, None, -1.0)], ids=str)
def test_chunked_log_prob(dtype: torch.dtype, bias: bool, outputs: tuple[str, ...], options: tuple[Any, ...]) -> None:
    options = (*options, None, 1.0)[:4] if len(options) < 4 else options
    close = CLOSE[torch.float32 if dtype is torch.float64 else dtype]  # theirs is float32 at most
    targets = torch.tensor([0, 3, 10, 3, 9, 1])

    def call(*tensors: Tensor) -> tuple[Any, ...]:
        return chunked(*tensors, targets, *options, outputs)

    compare("trl", lambda: call, *head(dtype, bias), close=close)


def test_chunked_log_prob_under_autocast() -> None:
    hidden, weight, _ = head()
    targets = torch.tensor([0, 3, 10, 3, 9, 1])

    def call(*tensors: Tensor) -> tuple[Any, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            return chunked(*tensors, targets, 1.0, 4, None, 1.0, OUTPUTS[2])

    compare("trl", lambda: call, hidden, weight, None, close=CLOSE[torch.bfloat16])


def test_a_head_of_another_dtype_is_left_to_theirs() -> None:
    (hidden, _, _), (_, weight, _) = head(), head(torch.bfloat16)
    targets = torch.tensor([0, 3, 10, 3, 9, 1])
    call = lambda *tensors: chunked(*tensors, targets, 1.0, 4)  # noqa: E731
    compare("trl", lambda: call, hidden, weight, None, close=dict(rtol=0, atol=0))


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _ = head()
    with manual_grad.patch("trl"):
        log_prob, *_ = chunked(hidden.requires_grad_(), weight, None, torch.zeros(6, dtype=torch.int64), 1.0, 4)
        log_prob.sum().backward()
    assert hidden.grad is not None and weight.grad is None


def test_results_may_be_changed_in_place() -> None:
    x, index = logits(2, 3, 11).requires_grad_(), torch.zeros(2, 3, dtype=torch.int64)
    with manual_grad.patch("trl"):
        trl_utils.selective_log_softmax(x, index).mul_(2)
        trl_utils.entropy_from_logits(x).mul_(2)
        for outputs in OUTPUTS[:2]:
            found = chunked(x[0], torch.randn(5, 11), None, index[0], 1.0, 4, None, 1.0, outputs)
            for result in found[:2]:
                if result is not None:
                    result.mul_(2)


# -- where the names are


def test_every_name_of_the_programs_is_replaced() -> None:
    def names() -> list[Any]:
        return [
            trl_utils.selective_log_softmax,
            cpo_trainer.selective_log_softmax,
            trl_utils._ChunkedLogProbFunction,
            trl_kernels.ChunkedLogProbFunction,
            transformers_trainer.ForCausalLMLoss,
            *(transformers_losses.LOSS_MAPPING[key] for key in ("ForCausalLM", "ForConditionalGeneration")),
        ]

    theirs = names()
    with manual_grad.patch("trl", "transformers"):
        assert not any(mine is other for mine, other in zip(names(), theirs, strict=True))
    assert all(mine is other for mine, other in zip(names(), theirs, strict=True))


# -- training


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_training_is_the_same(name: str) -> None:
    setting = programs.Setting(vocabulary=1000)
    theirs, ours = (programs.train(name, setting, losses) for losses in ("theirs", "ours"))
    assert programs.curves_apart(ours, theirs) <= programs.ROUNDING
    assert len(theirs.curves["loss"]) == setting.steps
    assert len(set(theirs.curves["grad_norm"])) == setting.steps  # something was learned in each of them


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_a_wrong_factor_parts_the_curves(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    name, setting = "TRL, SFTTrainer", programs.Setting(vocabulary=1000, steps=5)
    theirs = programs.train(name, setting, "theirs")
    right = manual_grad.integrations.trl.linear_log_prob

    def wrong(*args: Any, **kwargs: Any) -> Any:
        found = right(*args, **kwargs)
        value = found.log_prob
        return found._replace(log_prob=value.detach() + factor * (value - value.detach()))

    monkeypatch.setattr(manual_grad.integrations.trl, "linear_log_prob", wrong)
    assert programs.curves_apart(programs.train(name, setting, "ours"), theirs) > programs.ROUNDING
