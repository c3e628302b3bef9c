"""The public API: torch's signatures, Modules interchangeable with torch's, torch's protocols."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import manual_grad
import manual_grad.functional as M
from calls import (
    FUNCTIONALS,
    LEGACY,
    MODULES,
    SHARED,
    SHARED_MODULES,
    constructor_arguments,
    example,
    functional_of,
    inputs,
    pair,
)
from gradcheck.checks.parity import KERNELS
from gradcheck.spec import Settings
from manual_grad import kernels, specs
from manual_grad.catalogue import LOSSES

F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings(
    "ignore:.NLLLoss2d. has been deprecated", "ignore:reduction. 'mean' divides the total loss"
)


def differentiable(name: str, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], torch.Tensor]:
    """The arguments of an ordinary call, and the first of them, a leaf that requires a gradient."""
    arguments = example(name, dtype)
    first = next(iter(arguments))
    arguments[first] = arguments[first].detach().requires_grad_()
    return arguments, arguments[first]


# -- functionals


@pytest.mark.parametrize("name", SHARED)
def test_signature_is_torchs(name: str) -> None:
    """What ours has besides comes last and is given by keyword."""
    ours, torchs = inspect.signature(getattr(M, name)), inspect.signature(getattr(F, name))
    shared = [(p.name, p.kind, p.default) for p in torchs.parameters.values()]
    mine = [(p.name, p.kind, p.default) for p in ours.parameters.values()]
    assert mine[: len(shared)] == shared
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in mine[len(shared) :])
    assert mine == shared or name in ("cross_entropy", "linear_cross_entropy")


def graph(loss: torch.Tensor) -> Iterator[Any]:
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [before for before, _ in node.next_functions if before is not None]


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_functional_is_backed_by_a_function(name: str) -> None:
    arguments, _ = differentiable(name)
    functions = (type(node) for node in graph(getattr(M, name)(**arguments)))
    ours = (f for f in functions if issubclass(f, torch.autograd.function.BackwardCFunction))
    assert any(f._forward_cls.__module__.startswith("manual_grad.") for f in ours)


WITH_LEGACY = [name for name in SHARED if "size_average" in inspect.signature(getattr(F, name)).parameters]


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
    """The type of the error, the messages of the warnings, and the result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, error = call(), None
        except Exception as e:
            result, error = None, type(e)
    return error, [str(w.message) for w in caught], result


@pytest.mark.parametrize("name", SHARED)
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


@pytest.mark.parametrize("name", FUNCTIONALS)
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


SAMPLES = [
    (name, sample) for name in SHARED for sample in ("typical", "weighted") if sample in specs.load(name).samples
]


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("others", ["low", "float32"])
def test_autocast(name: str, sample: str, low: torch.dtype, others: str) -> None:
    """Under autocast, outputs of a layer are in the low dtype; weights and targets are mostly in float32."""
    case = specs.load(name).case(Settings(), sample, dtype=torch.float32)
    arguments = {**case.tensors, **case.arguments}
    first = next(iter(arguments))
    lowered = {k: t.to(low) for k, t in case.tensors.items() if t.is_floating_point() and others == "low"}
    arguments |= {**lowered, first: arguments[first].to(low).requires_grad_()}
    with torch.autocast("cpu", dtype=low):
        loss, torchs = getattr(M, name)(**arguments), getattr(F, name)(**arguments)
    assert loss.dtype is torchs.dtype
    rounds = name in ("linear_cross_entropy", "multilabel_soft_margin_loss")  # torch rounds an intermediate result
    eps = torch.finfo(low if rounds else loss.dtype).eps
    torch.testing.assert_close(loss, torchs, rtol=16 * eps, atol=16 * eps)
    loss.sum().backward()
    assert arguments[first].grad.dtype is low


class TestOrdinaryArguments:
    """Arguments that torch accepts, and that ours once rejected."""

    def test_numbers_from_numpy_and_from_tensors(self) -> None:
        x, t = torch.tensor([0.5, 3.0]), torch.zeros(2)
        for delta in (np.float32(0.5), np.int64(2), torch.tensor(0.5), True):
            assert M.huber_loss(x, t, delta=delta) == M.huber_loss(x, t, delta=float(delta))
        z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
        for ignored in (np.int64(1), torch.tensor(1)):
            assert M.cross_entropy(z, y, ignore_index=ignored) == M.cross_entropy(z, y, ignore_index=1)
        assert torch.equal(
            M.poisson_nll_loss(x, t, log_input=np.bool_(False)), M.poisson_nll_loss(x, t, log_input=False)
        )

    @pytest.mark.parametrize("target", [0.5, 1, np.float32(0.25)])
    def test_a_number_as_target(self, target: float) -> None:
        x, var = torch.tensor([[0.5, 3.0]]), torch.tensor([[1.0, 2.0]])
        torch.testing.assert_close(M.gaussian_nll_loss(x, target, var), F.gaussian_nll_loss(x, target, var))
        torch.testing.assert_close(M.multilabel_soft_margin_loss(x, target), F.multilabel_soft_margin_loss(x, target))

    def test_a_target_is_not_rounded_to_the_inputs_dtype(self) -> None:
        """The result has the dtype of the input."""
        x, t = torch.tensor([1.0, -2.0], dtype=torch.bfloat16), torch.tensor([1.0 / 3, 1.1])
        for loss in (M.huber_loss, M.soft_margin_loss):
            found = loss(x, t, reduction="none")
            assert found.dtype is torch.bfloat16
            torch.testing.assert_close(found, loss(x.float(), t, reduction="none").to(torch.bfloat16), rtol=0, atol=0)
        x.requires_grad_()
        (dx,) = torch.autograd.grad(M.huber_loss(x, t, reduction="sum", delta=5.0), x)
        torch.testing.assert_close(dx, (x.detach().float() - t).to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("name", FUNCTIONALS)
@pytest.mark.parametrize("wrong", [None, "sum", 2, [1.0, 2.0], np.ones(3)], ids=repr)
def test_wrong_kinds_of_arguments_are_named(name: str, wrong: object) -> None:
    """Each tensor of the call in turn, as a positional argument and by keyword."""
    arguments = example(name)
    signature = inspect.signature(getattr(M, name))
    for argument in [k for k, v in arguments.items() if isinstance(v, torch.Tensor)]:
        annotation = signature.parameters[argument].annotation
        if (wrong is None and "None" in annotation) or (isinstance(wrong, int) and "float" in annotation):
            continue
        with pytest.raises(TypeError, match=f"'{argument}'"):
            getattr(M, name)(**{**arguments, argument: wrong})
        bound = signature.bind(**{**arguments, argument: wrong})
        with pytest.raises(TypeError, match=f"'{argument}'"):
            getattr(M, name)(*bound.args, **bound.kwargs)


def test_a_reduction_in_the_place_of_a_weight() -> None:
    with pytest.raises(TypeError, match="'weight' must be Tensor or None, not str; did you mean reduction='sum'"):
        M.cross_entropy(torch.randn(2, 3), torch.tensor([0, 1]), "sum")


@pytest.mark.parametrize("name", SHARED)
def test_complex_numbers_are_torchs(name: str) -> None:
    """Each tensor in turn gives torch's result or torch's error, also while torch is patched."""
    arguments = example(name)
    for argument, t in list(arguments.items()):
        if not isinstance(t, torch.Tensor):
            continue
        wrong = {**arguments, argument: torch.complex(t.float(), t.float())}
        expected, result = outcome(lambda wrong=wrong: getattr(F, name)(**wrong))[::2]
        with manual_grad.patch():
            found, ours = outcome(lambda wrong=wrong: getattr(F, name)(**wrong))[::2]
        assert (found is None) == (expected is None)
        if expected is None:
            torch.testing.assert_close(ours, result)
        else:
            assert issubclass(found, RuntimeError) == issubclass(expected, RuntimeError)


@pytest.mark.parametrize("name", SHARED)
def test_functionalize_takes_torchs_loss_apart(name: str) -> None:
    arguments, _ = differentiable(name)
    names = [k for k, v in arguments.items() if isinstance(v, torch.Tensor)]

    def outcome_of(module: object) -> tuple[type | None, list[str], torch.Tensor | None]:
        def loss(*tensors: torch.Tensor) -> torch.Tensor:
            return getattr(module, name)(**{**arguments, **dict(zip(names, tensors, strict=True))})

        return outcome(lambda: torch.func.functionalize(loss)(*(arguments[k].detach() for k in names)))

    ours, torchs = outcome_of(M), outcome_of(F)
    assert ours[0] is torchs[0]
    assert ours[2] is None or torch.equal(ours[2], torchs[2])


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_a_graph_shows_the_loss_by_name(name: str) -> None:
    arguments, _ = differentiable(name)
    names = {type(node).__name__ for node in graph(getattr(M, name)(**arguments))}
    camel = "".join(part.title() for part in name.split("_"))  # of a loss without a Module
    module = next((m for m in MODULES if functional_of(m) == name), camel)
    assert names & {f"{m}Backward" for m in (module, "TripletMarginLoss")}


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_kernels_can_be_switched_off(name: str) -> None:
    arguments = example(name, torch.float64)
    with_kernels = getattr(M, name)(**arguments)
    with kernels.switched(False):
        formulas = getattr(M, name)(**arguments)
    rtol = KERNELS[torch.float64] * torch.finfo(torch.float64).eps  # gradcheck's bound for kernels
    torch.testing.assert_close(formulas, with_kernels, rtol=rtol, atol=0)


def test_show_config_names_the_kernels() -> None:
    assert "CPU kernels" in manual_grad.show_config()


# -- Modules


def test_every_functional_has_a_module() -> None:
    assert {functional_of(module) for module in MODULES} >= {
        loss.name for loss in LOSSES if loss.functional and loss.modules
    }


@pytest.mark.parametrize("name", SHARED_MODULES)
def test_signatures_of_a_module_are_torchs(name: str) -> None:
    ours, torchs = getattr(manual_grad, name), getattr(torch.nn, name)
    assert issubclass(
        ours, torch.nn.NLLLoss if name == "NLLLoss2d" else torchs
    )  # torch's own NLLLoss2d warns when it is subclassed
    for f, g in ((ours, torchs), (ours.forward, torchs.forward)):
        mine, shared = (inspect.signature(h).parameters for h in (f, g))
        assert list(mine)[: len(shared)] == list(shared)
        assert [mine[p].default for p in shared] == [p.default for p in shared.values()]
        assert len(mine) == len(shared) or name in ("CrossEntropyLoss", "LinearCrossEntropyLoss")


@pytest.mark.parametrize("name", [name for name in MODULES if name not in SHARED_MODULES and functional_of(name)])
def test_defaults_of_a_module_are_its_functionals(name: str) -> None:
    module, function = (
        {k: p.default for k, p in inspect.signature(f).parameters.items()}
        for f in (getattr(manual_grad, name), getattr(M, functional_of(name)))
    )
    shared = module.keys() & function.keys()
    assert shared
    assert {k: module[k] for k in shared} == {k: function[k] for k in shared}


def public(module: torch.nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if not k.startswith("_")}


def saved(module: torch.nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("required_only", [True, False], ids=["default", "other"])
@pytest.mark.parametrize("name", SHARED_MODULES)
class TestInterchangeable:
    """Our Module and torch's, made with the same arguments: all defaults, or no default."""

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
    taken = set(inspect.signature(getattr(manual_grad, name).__init__).parameters) - set(LEGACY)
    options = {k: v for k, v in arguments.items() if k in taken and not isinstance(v, torch.Tensor)}
    module = getattr(manual_grad, name)(**{**constructor_arguments(name, required_only=True), **options})
    if "linear_weight" in arguments:
        arguments["linear_weight"] = module.linear.weight
    assert torch.equal(module(*inputs(name)), getattr(M, functional)(**arguments))


def takes_legacy(name: str) -> bool:
    return set(LEGACY) <= set(inspect.signature(getattr(torch.nn, name).__init__).parameters)


@pytest.mark.parametrize("name", [name for name in SHARED_MODULES if takes_legacy(name)])
@pytest.mark.parametrize(("size_average", "reduce"), [(False, None), (None, True), (None, False)])
def test_legacy_arguments_of_a_module(name: str, size_average: bool, reduce: bool) -> None:
    legacy = {"size_average": size_average, "reduce": reduce}
    ours = outcome(lambda: getattr(manual_grad, name)(**legacy))
    torchs = outcome(lambda: getattr(torch.nn, name)(**legacy))
    assert ours[0] is torchs[0] is None
    assert len(ours[1]) == len(torchs[1])
    assert ours[1][-1] == torchs[1][-1]  # "… args will be deprecated", after NLLLoss2d's own warning
    assert public(ours[2]) == public(torchs[2])
