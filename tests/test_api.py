"""The public names: torch's signatures, Modules interchangeable with torch's, torch's protocols."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from typing import ClassVar

import pytest
import torch

import manual_grad
import manual_grad.functional as M
from manual_grad import kernels
from manual_grad.engine.function import LossFunction

F = torch.nn.functional
MODULES = [name for name in manual_grad.__all__ if name.endswith("Loss")]


def all_functions(base: type = LossFunction) -> list[type]:
    return [leaf for child in base.__subclasses__() for leaf in (all_functions(child) or [child])]


def example(name: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    x, t = torch.randn(4, 6, dtype=dtype), torch.rand(4, 6, dtype=dtype)
    return {
        "cross_entropy": (x, torch.tensor([0, 5, 2, 3])),
        "cosine_embedding_loss": (x, t, torch.tensor([1, -1, 1, -1])),
        "ctc_loss": (
            torch.randn(7, 2, 5, dtype=dtype).log_softmax(-1),
            torch.tensor([[1, 2, 3], [4, 4, 0]]),
            torch.tensor([7, 6]),
            torch.tensor([3, 2]),
        ),
    }.get(name, (x, t))


@pytest.mark.parametrize("name", M.__all__)
def test_signature_is_torchs(name: str) -> None:
    ours, torchs = inspect.signature(getattr(M, name)), inspect.signature(getattr(F, name))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in torchs.parameters.values()
    ]


@pytest.mark.parametrize("name", M.__all__)
def test_functional_is_backed_by_a_function(name: str) -> None:
    functions = [f for f in all_functions() if f.__module__ == f"manual_grad.losses.{name}"]
    assert len(functions) == 1
    assert issubclass(functions[0], torch.autograd.Function)


@pytest.mark.parametrize("name", MODULES)
def test_module_is_interchangeable_with_torchs(name: str) -> None:
    ours, torchs = getattr(manual_grad, name)(), getattr(torch.nn, name)()
    assert repr(ours) == repr(torchs)
    assert inspect.signature(type(ours)) == inspect.signature(type(torchs))
    assert {k: v for k, v in vars(ours).items() if not k.startswith("_")} == {
        k: v for k, v in vars(torchs).items() if not k.startswith("_")
    }
    torchs.load_state_dict(ours.state_dict())
    ours.load_state_dict(torchs.state_dict())
    assert repr(pickle.loads(pickle.dumps(ours))) == repr(copy.deepcopy(ours)) == repr(ours)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "BCEWithLogitsLoss"])
def test_weights_travel_in_the_state_dict(name: str) -> None:
    saved = io.BytesIO()
    torch.save(getattr(torch.nn, name)(weight=torch.arange(6.0)).state_dict(), saved)
    saved.seek(0)
    ours = getattr(manual_grad, name)(weight=torch.zeros(6))
    ours.load_state_dict(torch.load(saved))
    assert torch.equal(ours.weight, torch.arange(6.0))


@pytest.mark.parametrize("name", MODULES)
def test_module_calls_the_functional(name: str) -> None:
    forward = {"L1Loss": "l1_loss", "MSELoss": "mse_loss", "HuberLoss": "huber_loss", "CTCLoss": "ctc_loss"}
    forward |= {"BCEWithLogitsLoss": "binary_cross_entropy_with_logits", "CrossEntropyLoss": "cross_entropy"}
    forward |= {"CosineEmbeddingLoss": "cosine_embedding_loss"}
    inputs = example(forward[name])
    for reduction in ("none", "mean", "sum"):
        module = getattr(manual_grad, name)(reduction=reduction)
        expected = getattr(M, forward[name])(*inputs, reduction=reduction)
        assert torch.equal(module(*inputs), expected)


LEGACY = [name for name in M.__all__ if "size_average" in inspect.signature(getattr(M, name)).parameters]


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize(
    ("size_average", "reduce", "reduction"),
    [(None, True, "mean"), (True, None, "mean"), (False, None, "sum"), (False, True, "sum"), (True, False, "none")],
)
def test_legacy_reduction_arguments(name: str, size_average: bool, reduce: bool, reduction: str) -> None:
    inputs = example(name)
    with pytest.warns(UserWarning, match=f"please use reduction='{reduction}' instead"):
        legacy = getattr(M, name)(*inputs, size_average=size_average, reduce=reduce)
    assert torch.equal(legacy, getattr(M, name)(*inputs, reduction=reduction))


@pytest.mark.parametrize("name", M.__all__)
def test_reduction_names(name: str) -> None:
    inputs = example(name)
    with pytest.raises(ValueError, match="bogus is not a valid value for reduction"):
        getattr(M, name)(*inputs, reduction="bogus")
    with pytest.warns(UserWarning, match="elementwise_mean"):
        old = getattr(M, name)(*inputs, reduction="elementwise_mean")
    assert torch.equal(old, getattr(M, name)(*inputs))


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss", "huber_loss"])
def test_broadcasting_warns_where_the_call_is_made(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = getattr(M, name)(torch.ones(3, 4), torch.zeros(4))
    assert [w.category for w in caught] == [UserWarning]
    assert caught[0].filename == __file__
    assert "different to the input size" in str(caught[0].message)
    assert torch.equal(loss, getattr(F, name)(torch.ones(3, 4), torch.zeros(3, 4)))


@pytest.mark.parametrize("name", M.__all__)
def test_tensor_subclasses(name: str) -> None:
    class Tagged(torch.Tensor):
        seen: ClassVar[list[object]] = []

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            cls.seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    first, *rest = example(name)
    result = getattr(M, name)(first.as_subclass(Tagged), *rest)
    assert type(result) is Tagged
    assert Tagged.seen[0] is getattr(M, name)


@pytest.mark.parametrize("name", M.__all__)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_computes_and_returns_float32(name: str, low: torch.dtype) -> None:
    first, *rest = example(name)
    rest = [t.to(low) if t.is_floating_point() else t for t in rest]
    x = first.to(low).requires_grad_()
    with torch.autocast("cpu", dtype=low):
        loss = getattr(M, name)(x, *rest)
    loss.backward()
    assert loss.dtype is torch.float32
    assert x.grad is not None
    assert x.grad.dtype is low


@pytest.mark.parametrize("name", M.__all__)
def test_kernels_can_be_switched_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = example(name, torch.float64)
    with_kernels = getattr(M, name)(*inputs)
    monkeypatch.setattr(kernels, "enabled", False)
    torch.testing.assert_close(getattr(M, name)(*inputs), with_kernels, rtol=1e-14, atol=0)


def test_show_config_names_the_kernels() -> None:
    assert "CPU kernels" in manual_grad.show_config()
