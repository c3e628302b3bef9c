"""torch.compile in a program: options that change between calls, batches of different sizes, Modules."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from typing import Any

import pytest
import torch

import manual_grad
import manual_grad.functional as M
from calls import FUNCTIONALS, MODULES, constructor_arguments, example, functional_of, inputs
from gradcheck.checks.transforms import generated
from gradcheck.spec import Settings
from manual_grad import specs

pytestmark = pytest.mark.filterwarnings(
    "ignore:.NLLLoss2d. has been deprecated", "ignore:reduction. 'mean' divides the total loss"
)


def real_options(name: str) -> list[str]:
    parameters = inspect.signature(getattr(M, name)).parameters.values()
    return [p.name for p in parameters if isinstance(p.default, (int, float)) and not isinstance(p.default, bool)]


OPTIONS = {name: options for name in FUNCTIONALS if (options := real_options(name))}
EACH = [(name, option) for name, options in OPTIONS.items() for option in options]
# valid values for integer options and for numbers with a domain
RANGES = {
    "ignore_index": (-1, -2, 7, 3),
    "blank": (0, 1, 2),
    ("multi_margin_loss", "p"): (1, 2),
    ("tweedie_loss", "power"): (1.25, 1.5, 2.0, 3.0),
}


def values(name: str, option: str) -> tuple[float, ...]:
    return RANGES.get((name, option), RANGES.get(option, (0.25, 0.375, 0.5, 0.75)))


def changes(name: str, options: Iterable[str]) -> list[dict[str, float]]:
    """These options in four calls, each with another value in each call."""
    every = {option: cycle(values(name, option)) for option in options}
    return [{option: next(v) for option, v in every.items()} for _ in range(4)]


def value_and_slope(loss: Any, arguments: Mapping[str, Any]) -> list[torch.Tensor]:
    first = next(iter(arguments))
    leaf = arguments[first].detach().clone().requires_grad_()
    value = loss(**{**arguments, first: leaf})
    return [value.detach(), *torch.autograd.grad(value.sum(), leaf)]


def compiled(loss: Any, **options: Any) -> Any:
    torch.compiler.reset()
    return torch.compile(loss, fullgraph=True, backend="aot_eager", **options)


def check_options_that_change(name: str, options: Iterable[str], dynamic: bool | None) -> None:
    """From the second values on, or from the first if it is dynamic, Dynamo passes symbols instead of numbers."""
    loss, arguments = getattr(M, name), example(name, torch.float64)
    run = compiled(lambda **arguments: loss(**arguments), dynamic=dynamic)
    for changed in changes(name, options):
        found, expected = (value_and_slope(f, {**arguments, **changed}) for f in (run, loss))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(("name", "option"), EACH)
def test_an_option_that_changes(name: str, option: str) -> None:
    check_options_that_change(name, [option], dynamic=None)


@pytest.mark.parametrize("name", OPTIONS)
def test_all_options_change(name: str) -> None:
    check_options_that_change(name, OPTIONS[name], dynamic=True)


@pytest.mark.parametrize("name", specs.NAMES)
def test_code_of_inductor(name: str) -> None:
    results = list(generated(specs.load(name).case(Settings()), Settings()))
    if results[0].note:
        pytest.skip(results[0].message)
    assert len(results) >= 2
    assert [r for r in results if not r.ok] == []


def test_options_that_change_are_seen() -> None:
    """Most options change the loss, so reusing the value of the first call would give a wrong result."""
    changing = set()
    for name, option in EACH:
        arguments = example(name, torch.float64)
        found = {getattr(M, name)(**{**arguments, option: v}).sum().item() for v in values(name, option)}
        changing |= {name} if len(found) > 1 else set()
    assert changing >= {
        "cosine_embedding_loss", "cross_entropy", "hinge_embedding_loss", "huber_loss", "linear_cross_entropy",
        "margin_ranking_loss", "multi_margin_loss", "smooth_l1_loss", "triplet_margin_loss",
        "triplet_margin_with_distance_loss",
    }  # fmt: skip


def batches(name: str) -> Iterator[dict[str, Any]]:
    """An ordinary call with one, two and three copies of its batch."""
    case = specs.load(name).case(Settings(), dtype=torch.float64)
    for times in (1, 2, 3):
        yield example(name, torch.float64) | {k: torch.cat([case.tensors[k]] * times, d) for k, d in case.batch.items()}


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_batches_of_other_sizes(name: str) -> None:
    loss = getattr(M, name)
    run = compiled(lambda **arguments: loss(**arguments), dynamic=True)
    for arguments in batches(name):
        found, expected = value_and_slope(run, arguments), value_and_slope(loss, arguments)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in MODULES if functional_of(name)])
def test_modules(name: str) -> None:
    module = getattr(manual_grad, name)(**constructor_arguments(name)).double()
    run = compiled(module)
    for _ in range(2):
        arguments = inputs(name, torch.float64)
        torch.testing.assert_close(run(*arguments), module(*arguments), rtol=1e-12, atol=1e-12, equal_nan=True)
        if hasattr(module, "margin"):
            module.margin *= 2
