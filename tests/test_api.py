"""The public names: torch's signatures, Modules interchangeable with torch's, torch's protocols."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch

import manual_grad
import manual_grad.functional as M
from calls import LEGACY, MODULES, constructor_arguments, example, functional_of, inputs, pair
from gradcheck.checks.parity import KERNELS
from manual_grad import kernels

F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings(
    "ignore:.NLLLoss2d. has been deprecated", "ignore:reduction. 'mean' divides the total loss"
)


def differentiable(name: str, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], torch.Tensor]:
    """The arguments of an ordinary call, of which the first, a leaf, requires a gradient; and that one."""
    arguments = example(name, dtype)
    first = next(iter(arguments))
    arguments[first] = arguments[first].detach().requires_grad_()
    return arguments, arguments[first]


# -- functionals


@pytest.mark.parametrize("name", M.__all__)
def test_signature_is_torchs(name: str) -> None:
    ours, torchs = inspect.signature(getattr(M, name)), inspect.signature(getattr(F, name))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in torchs.parameters.values()
    ]


def graph(loss: torch.Tensor) -> Iterator[Any]:
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [before for before, _ in node.next_functions if before is not None]


@pytest.mark.parametrize("name", M.__all__)
def test_functional_is_backed_by_a_function(name: str) -> None:
    arguments, _ = differentiable(name)
    functions = (type(node) for node in graph(getattr(M, name)(**arguments)))
    ours = (f for f in functions if issubclass(f, torch.autograd.function.BackwardCFunction))
    assert any(f._forward_cls.__module__.startswith("manual_grad.") for f in ours)


WITH_LEGACY = [name for name in M.__all__ if "size_average" in inspect.signature(getattr(F, name)).parameters]


@pytest.mark.parametrize("name", WITH_LEGACY)
@pytest.mark.parametrize(
    ("size_average", "reduce", "reduction"),
    [(None, True, "mean"), (True, None, "mean"), (False, None, "sum"), (False, True, "sum"), (True, False, "none")],
)
def test_legacy_reduction_arguments(name: str, size_average: bool, reduce: bool, reduction: str) -> None:
    arguments = example(name)
    with pytest.warns(UserWarning, match=f"please use reduction='{reduction}' instead"):
        legacy = getattr(M, name)(**arguments, size_average=size_average, reduce=reduce)
    assert torch.equal(legacy, getattr(M, name)(**{**arguments, "reduction": reduction}))


def outcome(call: Callable[[], torch.Tensor]) -> tuple[type | None, list[str], torch.Tensor | None]:
    """The type of what is raised, the messages of what is warned, and the result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, error = call(), None
        except Exception as e:
            result, error = None, type(e)
    return error, [str(w.message) for w in caught], result


@pytest.mark.parametrize("name", M.__all__)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "batchmean", "elementwise_mean", "average", None, 1])
def test_names_of_reductions_are_torchs(name: str, reduction: object) -> None:
    arguments = {**example(name), "reduction": reduction}
    error, warned, result = outcome(lambda: getattr(M, name)(**arguments))
    assert (error, warned) == outcome(lambda: getattr(F, name)(**arguments))[:2]
    if reduction == "elementwise_mean" and error is None:
        assert torch.equal(result, getattr(M, name)(**{**arguments, "reduction": "mean"}))


WARNING = [n for n in ("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss") if n in M.__all__]


@pytest.mark.parametrize("name", WARNING)
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

    arguments = example(name)
    first = next(iter(arguments))
    result = getattr(M, name)(**{**arguments, first: arguments[first].as_subclass(Tagged)})
    assert type(result) is Tagged
    assert Tagged.seen[0] is getattr(M, name)


@pytest.mark.parametrize("name", M.__all__)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_returns_the_dtype_that_torch_returns(name: str, low: torch.dtype) -> None:
    arguments, first = differentiable(name, low)
    with torch.autocast("cpu", dtype=low):
        loss, torchs = getattr(M, name)(**arguments), getattr(F, name)(**arguments)
    loss.sum().backward()
    assert loss.dtype is torchs.dtype
    assert first.grad is not None
    assert first.grad.dtype is low


@pytest.mark.parametrize("name", M.__all__)
def test_kernels_can_be_switched_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = example(name, torch.float64)
    with_kernels = getattr(M, name)(**arguments)
    monkeypatch.setattr(kernels, "enabled", False)
    rtol = KERNELS[torch.float64] * torch.finfo(torch.float64).eps  # what gradcheck allows them
    torch.testing.assert_close(getattr(M, name)(**arguments), with_kernels, rtol=rtol, atol=0)


def test_show_config_names_the_kernels() -> None:
    assert "CPU kernels" in manual_grad.show_config()


# -- Modules


def test_every_functional_has_a_module() -> None:
    assert {functional_of(module) for module in MODULES} >= set(M.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_signatures_of_a_module_are_torchs(name: str) -> None:
    ours, torchs = getattr(manual_grad, name), getattr(torch.nn, name)
    assert issubclass(ours, torch.nn.NLLLoss if name == "NLLLoss2d" else torchs)  # which warns when it is subclassed
    assert inspect.signature(ours) == inspect.signature(torchs)
    assert list(inspect.signature(ours.forward).parameters) == list(inspect.signature(torchs.forward).parameters)


def public(module: torch.nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if not k.startswith("_")}


def saved(module: torch.nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("required_only", [True, False], ids=["default", "other"])
@pytest.mark.parametrize("name", MODULES)
class TestInterchangeable:
    """Our Module and torch's, made with the same arguments: the defaults, or none of them."""

    def test_representation_and_attributes(self, name: str, required_only: bool) -> None:
        ours, torchs = pair(name, **constructor_arguments(name, required_only))
        assert repr(ours) == repr(torchs)
        assert public(ours) == public(torchs)
        for kind in ("_buffers", "_parameters", "_modules"):
            assert list(vars(ours)[kind]) == list(vars(torchs)[kind])

    def test_state_dicts(self, name: str, required_only: bool) -> None:
        ours, torchs = pair(name, **constructor_arguments(name, required_only))
        for source, other in ((ours, torchs), (torchs, ours)):
            with torch.no_grad():
                for value in source.state_dict().values():
                    value.add_(1)
            other.load_state_dict(saved(source))
            assert list(other.state_dict()) == list(source.state_dict())
            for name, value in source.state_dict().items():
                assert torch.equal(other.state_dict()[name], value)

    def test_pickles_and_copies(self, name: str, required_only: bool) -> None:
        ours, torchs = pair(name, **constructor_arguments(name, required_only))
        expected = ours(*inputs(name))
        copies = pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours), copy.copy(ours)
        for copied in copies:
            assert type(copied) is type(ours)
            assert repr(copied) == repr(ours)
            torch.testing.assert_close(copied(*inputs(name)), expected, rtol=0, atol=0, equal_nan=True)

    def test_pickled_state_of_one_makes_the_other(self, name: str, required_only: bool) -> None:
        ours, torchs = pair(name, **constructor_arguments(name, required_only))
        for source, kind in ((ours, type(torchs)), (torchs, type(ours))):
            made = kind.__new__(kind)
            made.__setstate__(vars(pickle.loads(pickle.dumps(source))))
            torch.testing.assert_close(made(*inputs(name)), source(*inputs(name)), equal_nan=True)

    def test_results(self, name: str, required_only: bool) -> None:
        ours, torchs = (m.double() for m in pair(name, **constructor_arguments(name, required_only)))
        arguments = inputs(name, torch.float64)
        torch.testing.assert_close(ours(*arguments), torchs(*arguments), rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", [name for name in MODULES if functional_of(name)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_module_calls_the_functional(name: str, reduction: str) -> None:
    functional = functional_of(name)
    arguments = {**example(functional), "reduction": reduction}
    module = getattr(manual_grad, name)(**constructor_arguments(name, required_only=True), reduction=reduction)
    if "linear_weight" in arguments:
        arguments["linear_weight"] = module.linear.weight
    assert torch.equal(module(*inputs(name)), getattr(M, functional)(**arguments))


def takes_legacy(name: str) -> bool:
    return set(LEGACY) <= set(inspect.signature(getattr(torch.nn, name).__init__).parameters)


@pytest.mark.parametrize("name", [name for name in MODULES if takes_legacy(name)])
@pytest.mark.parametrize(("size_average", "reduce"), [(False, None), (None, True), (None, False)])
def test_legacy_arguments_of_a_module(name: str, size_average: bool, reduce: bool) -> None:
    legacy = {"size_average": size_average, "reduce": reduce}
    ours = outcome(lambda: getattr(manual_grad, name)(**legacy))
    torchs = outcome(lambda: getattr(torch.nn, name)(**legacy))
    assert ours[0] is torchs[0] is None
    assert len(ours[1]) == len(torchs[1])
    assert ours[1][-1] == torchs[1][-1]  # "… args will be deprecated"; before it NLLLoss2d warns of itself
    assert public(ours[2]) == public(torchs[2])
