"""PyTorch's own tests of its loss Modules, run on ours.

``torch.testing._internal`` ships with torch. Its ModuleInfo lists, for each Module, constructor arguments, inputs,
reference functions and errors; its common_nn has whole test cases, which run under :func:`manual_grad.patch`.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

import manual_grad
from calls import MODULES, SHARED_MODULES
from closeness import assert_no_further_than_torch

WHY = "this torch does not ship it, or its dependency expecttest is missing"
common_modules = pytest.importorskip("torch.testing._internal.common_modules", reason=WHY)
common_nn = pytest.importorskip("torch.testing._internal.common_nn", reason=WHY)

INFOS = {info.module_cls.__name__: info for info in common_modules.module_db}
INFOS = {name: INFOS[name] for name in MODULES if name in INFOS}
CASES = [(name, dtype) for name, info in INFOS.items() for dtype in sorted(info.supported_dtypes("cpu"), key=str)]
MANY, FEW = 60, 8  # limits on the cases per Module: LinearCrossEntropyLoss has 857; FEW are differentiated numerically
FEWER = {"CTCLoss": 3}  # its 50 frames are differentiated one by one, by the formulas

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated",
    "ignore:Using a target size",
    "ignore:reduction. 'mean' divides",
    "ignore:.*options.. ignored",
    # in PyTorch's own code
    "ignore:Possible nested set",
    "ignore:Converting a tensor with requires_grad=True to a scalar",
)


def cases_of(name: str, dtype: torch.dtype, at_most: int = MANY, requires_grad: bool = True) -> list[Any]:
    torch.manual_seed(0)
    cases = INFOS[name].module_inputs_func(INFOS[name], "cpu", dtype, requires_grad=requires_grad, training=True)
    return cases if len(cases) <= at_most else random.Random(0).sample(cases, at_most)


def pair(name: str, case: Any, dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Our Module and torch's, with the same parameters."""
    arguments = case.constructor_input
    ours, torchs = (
        getattr(package, name)(*arguments.args, **arguments.kwargs).to(dtype) for package in (manual_grad, torch.nn)
    )
    ours.load_state_dict(torchs.state_dict())
    return ours, torchs


def call(module: torch.nn.Module, *args: Any) -> Tensor:
    """CTCLoss after a log_softmax: torch's gradient is that of the scores, so it can be compared only there."""
    if isinstance(module, torch.nn.CTCLoss):
        args = (args[0].log_softmax(-1), *args[1:])
    return module(*args)


def value_and_gradients(module: torch.nn.Module, *args: Any) -> list[Tensor | None]:
    loss = call(module, *args)
    leaves = [t for t in (*args, *module.parameters()) if isinstance(t, Tensor) and t.requires_grad]
    g = torch.linspace(0.5, 1.5, loss.numel(), dtype=torch.float64).reshape(loss.shape).to(loss.dtype)
    return [loss.detach(), *torch.autograd.grad(loss, leaves, g, allow_unused=True)]


def leaves(case: Any, dtype: torch.dtype) -> list[Any]:
    """The inputs as leaves, because some are results of operations, or the same tensor twice."""
    assert not case.forward_input.kwargs
    return [
        t.detach().to(dtype).clone().requires_grad_(t.requires_grad)
        if isinstance(t, Tensor) and t.is_floating_point()
        else t
        for t in case.forward_input.args
    ]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_value_and_gradient(name: str, dtype: torch.dtype) -> None:
    cases = cases_of(name, dtype)
    for case in cases:
        ours, torchs = pair(name, case, dtype)
        args = leaves(case, dtype)
        exact = value_and_gradients(copy.deepcopy(torchs).double(), *leaves(case, torch.float64))
        for trio in zip(value_and_gradients(ours, *args), value_and_gradients(torchs, *args), exact, strict=True):
            assert_no_further_than_torch(*trio)
    assert cases


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", INFOS)
def test_reference_functions(name: str, dtype: torch.dtype) -> None:
    cases = [case for case in cases_of(name, dtype, requires_grad=False) if case.reference_fn is not None]
    for case in cases:
        ours, _ = pair(name, case, dtype)
        args = case.forward_input.args
        torch.testing.assert_close(ours(*args), case.reference_fn(ours, *args), check_dtype=False, equal_nan=True)
    assert cases


def function_of(module: torch.nn.Module) -> Callable[..., Tensor]:
    """The Module as a function of its parameters and inputs."""
    names = [name for name, _ in module.named_parameters()]

    def function(*values: Any) -> Tensor:
        return functional_call(module, dict(zip(names, values, strict=False)), values[len(names) :])

    return function


@pytest.mark.parametrize("name", INFOS)
def test_first_and_second_derivatives(name: str) -> None:
    """Check every Module, even where PyTorch has no second derivative and skips it."""
    cases, differentiated = cases_of(name, torch.float64, at_most=FEWER.get(name, FEW)), 0
    for case in cases:
        ours, _ = pair(name, case, torch.float64)
        function, values = function_of(ours), (*ours.parameters(), *leaves(case, torch.float64))
        if function(*values).isfinite().all():  # skip the mean of only ignored rows, and logarithms of negative numbers
            assert gradcheck(function, values, fast_mode=True, check_batched_grad=True)
            assert gradgradcheck(function, values, fast_mode=True, check_batched_grad=True)
            differentiated += 1
    assert differentiated


WITH_ERRORS = [name for name, info in INFOS.items() if info.module_error_inputs_func is not None]


@pytest.mark.parametrize("name", WITH_ERRORS)
def test_error_inputs(name: str) -> None:
    errors = INFOS[name].module_error_inputs_func(INFOS[name], "cpu", torch.float32, requires_grad=False, training=True)
    for error in errors:
        made, given = error.module_error_input.constructor_input, error.module_error_input.forward_input
        make = partial(getattr(manual_grad, name), *made.args, **made.kwargs)
        on_construction = error.error_on is common_modules.ModuleErrorEnum.CONSTRUCTION_ERROR
        refused = make if on_construction else partial(make(), *given.args)
        with pytest.raises(error.error_type, match=re.compile(error.error_regex)):
            refused()
    assert errors


class Runner(common_nn.NNTestCase):
    """The interface that common_nn's test cases need."""

    def runTest(self) -> None: ...

    def _forward(self, module: torch.nn.Module, input: Any) -> Tensor:
        return module(*input) if isinstance(input, tuple) else module(input)

    def _forward_criterion(self, module: torch.nn.Module, input: Any, target: Tensor, extra_args: tuple) -> Tensor:
        return module(*(input if isinstance(input, tuple) else (input,)), target, *extra_args)

    def _backward(self, module: torch.nn.Module, input: Tensor, output: Tensor, grad_output: Tensor) -> Tensor:
        output.backward(grad_output, retain_graph=True)
        return input.grad

    def _get_parameters(self, module: torch.nn.Module) -> tuple[list[Tensor], list[Tensor | None]]:
        return list(module.parameters()), [p.grad for p in module.parameters()]

    def _zero_grad_parameters(self, module: torch.nn.Module) -> None:
        module.zero_grad()


def module_of(test: dict[str, Any]) -> str | None:
    """Our Module for a test case of common_nn."""
    full = test.get("fullname", "").lower()
    return max((name for name in MODULES if full.startswith(name.lower())), key=len, default=None)


WHOLE = [(common_nn.CriterionTest, test) for test in common_nn.criterion_tests if module_of(test)]
WHOLE += [(common_nn.NewModuleTest, test) for test in common_nn.get_new_module_tests() if module_of(test)]

# check second derivatives and all modes, even where PyTorch cannot; in the dtype that resolves them
THOROUGHLY = {
    "check_gradgrad": True,
    "supports_forward_ad": True,
    "supports_fwgrad_bwgrad": True,
    "default_dtype": torch.float64,
}


@pytest.mark.parametrize(("kind", "test"), WHOLE, ids=[test["fullname"] for _, test in WHOLE])
def test_whole_cases(kind: type, test: dict[str, Any]) -> None:
    torch.manual_seed(0)
    with manual_grad.patch():
        kind(**{**test, **THOROUGHLY})(Runner())


def test_every_module_is_tested() -> None:
    """torch has neither for these two; test_torch_samples.py covers the function of one of them."""
    tested = {*INFOS, *(module_of(test) for _, test in WHOLE)}
    assert set(SHARED_MODULES) - tested <= {"AdaptiveLogSoftmaxWithLoss", "TripletMarginWithDistanceLoss"}
