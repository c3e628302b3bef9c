"""The adaptive softmax against torch's Module: losses, gradients, log-probabilities, predictions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import manual_grad

FEATURES, CLASSES, CUTOFFS = 20, 30, [4, 9, 17]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pair(dtype: torch.dtype = torch.float64, **arguments: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Our Module and torch's, with the same parameters."""
    modules = [
        package.AdaptiveLogSoftmaxWithLoss(FEATURES, CLASSES, CUTOFFS, div_value=2.0, dtype=dtype, **arguments)
        for package in (manual_grad, torch.nn)
    ]
    modules[0].load_state_dict(modules[1].state_dict())
    return modules[0], modules[1]


TARGETS = {
    "every cluster": list(range(CLASSES)),
    "head alone": [0, 3, 1],
    "one cluster": [10, 16, 9, 10],
    "one row": [29],
    "one": 12,
}


@pytest.mark.parametrize("head_bias", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_output_loss_and_gradients(name: str, head_bias: bool) -> None:
    target = torch.tensor(TARGETS[name])
    x = torch.randn(*target.shape, FEATURES, dtype=torch.float64, requires_grad=True)
    results = []
    for module in pair(head_bias=head_bias):
        output, loss = module(x, target)
        total = 3 * loss + (output * torch.linspace(1, 2, output.numel()).view_as(output)).sum()
        leaves = [x, *module.parameters()]
        results.append((output, loss, *torch.autograd.grad(total, leaves, allow_unused=True)))
        assert type(module(x, target)).__name__ == "_ASMoutput"
    for ours, torchs in zip(*results, strict=True):
        assert (ours is None) == (torchs is None)  # a tail without targets has no gradient
        if ours is not None:
            assert_close(ours, torchs)


def test_no_rows() -> None:
    x, target = torch.randn(0, FEATURES, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    for ours, torchs in zip(*(module(x, target) for module in pair()), strict=True):
        assert_close(ours, torchs, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_log_prob_and_predict(dtype: torch.dtype) -> None:
    ours, torchs = pair(dtype)
    x = 3 * torch.randn(64, FEATURES, dtype=dtype)
    log_prob = ours.log_prob(x)
    assert log_prob.dtype is dtype
    assert_close(log_prob, torchs.log_prob(x), rtol=4 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)
    assert_close(log_prob.double().exp().sum(1), torch.ones(64).double(), rtol=0, atol=64 * torch.finfo(dtype).eps)
    predicted = log_prob.gather(1, ours.predict(x)[:, None]).squeeze(1)  # any of several classes that round to the same
    assert torch.equal(predicted, log_prob.amax(1))
    if dtype is torch.float64:
        assert torch.equal(ours.predict(x), torchs.predict(x))
        target = torch.randint(CLASSES, (64,))
        assert_close(ours(x, target).output, log_prob.gather(1, target[:, None]).squeeze(1))


@pytest.mark.parametrize("gap", [5, 20, 40])
def test_log_prob_of_a_leader_keeps_its_digits(gap: int) -> None:
    module = manual_grad.AdaptiveLogSoftmaxWithLoss(4, 4, [2])
    with torch.no_grad():
        module.head.weight.copy_(torch.eye(3, 4))
    x = torch.tensor([[float(gap), 0.0, 0.0, 0.0]])
    assert module.log_prob(x)[0, 0].item() == pytest.approx(-math.log1p(2 * math.exp(-gap)), rel=1e-6)


def test_vmap_and_compile_leave_no_row_out_and_agree() -> None:
    module, _ = pair()
    x, target = torch.randn(3, 8, FEATURES, dtype=torch.float64), torch.randint(CLASSES, (3, 8))
    expected = torch.stack([module(*pair).output for pair in zip(x, target, strict=True)])
    assert_close(torch.vmap(lambda x, target: module(x, target).output)(x, target), expected)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, target: module(x, target).output, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x[0], target[0]), expected[0])
    for bad in (CLASSES, -1, -100):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            compiled(x[0], target[0].index_fill(0, torch.tensor(2), bad))


def test_second_derivative() -> None:
    module, _ = pair(head_bias=True)
    target = torch.tensor([1, 5, 12, 25])
    names, values = zip(*module.named_parameters(), strict=True)

    def loss(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x, target)).loss

    x = torch.randn(4, FEATURES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (x, *values), fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (x, *values), fast_mode=True, check_fwd_over_rev=True)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_autocast_returns_the_inputs_dtype(dtype: torch.dtype, low: torch.dtype) -> None:
    """As in torch if no tail is used; with a tail, torch's dtypes do not match."""
    ours, torchs = pair(dtype)
    x = torch.randn(4, FEATURES, dtype=dtype)
    for target in (torch.tensor([1, 2, 0, 3]), torch.tensor([1, 5, 12, 25])):
        exact = torchs.double()(x.double(), target)
        with torch.autocast("cpu", dtype=low):
            found = ours(x, target)
        for result, expected in zip(found, exact, strict=True):
            assert result.dtype is dtype
            assert_close(result, expected.to(dtype), rtol=4 * torch.finfo(low).eps, atol=0)
    with torch.autocast("cpu", dtype=low):
        assert torchs.to(dtype)(x, torch.tensor([1, 2, 0, 3])).output.dtype is dtype


def test_state_dicts_and_reprs_are_torchs() -> None:
    ours, torchs = pair(head_bias=True)
    torchs.load_state_dict(ours.state_dict())
    assert repr(ours) == repr(torchs)
    assert list(ours.state_dict()) == list(torchs.state_dict())


def test_refusals_are_torchs() -> None:
    x = torch.randn(3, FEATURES, dtype=torch.float64)
    bad = {
        "should be in .0, 29.": (x, torch.tensor([0, 30, 1])),
        "values in range .-1, 7.": (x, torch.tensor([0, -1, 7])),
        "same size in the batch dimension": (x, torch.tensor([0, 1])),
        "0D target tensor expects 1D input": (x, torch.tensor(1)),
        "1D target tensor expects 2D input": (x[..., 0], torch.tensor([0, 1, 2])),
        "multi-target not supported": (x, torch.tensor([[0, 1, 2]])),
    }
    for module in pair():
        for match, arguments in bad.items():
            with pytest.raises(RuntimeError, match=match):
                module(*arguments)


class Watch(TorchDispatchMode):
    """Count how often a value is read on the host."""

    looks = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.looks += func in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default)
        return func(*args, **(kwargs or {}))


def test_nothing_is_looked_at_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """During capture, every tail is computed for every row."""
    (module, _), x, y = pair(), torch.randn(3, FEATURES, dtype=torch.float64), torch.tensor([0, 29, 5])
    with torch.no_grad(), Watch() as eager:
        expected = module(x, y)
    assert eager.looks > 0
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda t: True), raising=False)
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda t: False), raising=False)
    with (
        torch.no_grad(),
        manual_grad.kernels.switched(False),
        Watch() as captured,
    ):  # the CPU kernels do not run on a device
        found = module(x, y)
    assert captured.looks == 0
    monkeypatch.undo()
    assert_close(found, expected)
