"""Does it give gradients to the inputs it promises, none to the others, and refuse bad calls by name?"""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from gradcheck.checks.cases import each, either_way, raised
from gradcheck.compare import Result, compare, expect, failed, passed
from gradcheck.spec import Case, Error, Settings, Spec

BOUND = 64.0  # with less to compute another kernel may run, or the same one be compiled to other roundings

MANY = 4  # inputs, of which not every subset is asked for


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    yield from each(spec.cases(settings), gradients_asked_for)
    yield from each(spec.cases(settings), gradients_not_promised)
    for error in spec.errors:
        if error.raises is IndexError and settings.device != "cpu":
            continue  # an index is range-checked on the CPU only: on a GPU the check would cost a synchronisation
        yield from either_way(spec.case(settings), functools.partial(refuses, error=error))


def gradients_asked_for(case: Case) -> Iterator[Result]:
    """Asked for the gradients of some inputs, it gives those that it gives when asked for all, and no other."""
    value, together = case.differentiate()
    g = case.upstream(value)
    with torch.no_grad():
        without = case.call(**case.leaves())
    yield expect("no_grad", not without.requires_grad, "the value requires a gradient")
    yield compare("value under no_grad", without, value, BOUND)
    plain = case.call()
    right = not plain.requires_grad or has_parameters(plain, case.call())
    yield expect("plain inputs", right, "the value requires a gradient, no input does")
    for name, leaf in case.leaves().items():
        t = case.tensors[name]
        found = case.call(**{name: leaf})
        alone = torch.autograd.grad(found, leaf, g, allow_unused=True)[0] if found.requires_grad else None
        yield compare(f"gradient of {name} alone", alone, together[name], BOUND)
        if alone is not None:
            right = alone.dtype is t.dtype and alone.device == t.device
            yield expect(f"type of gradient of {name}", right, f"got {_kind(alone)}, the input is {_kind(t)}")
    for some in subsets(tuple(case.differentiable)):
        leaves = {k: t for k, t in case.leaves().items() if k in some}
        found = torch.autograd.grad(case.call(**leaves), list(leaves.values()), g, allow_unused=True)
        for name, d in zip(leaves, found, strict=True):
            yield compare(f"gradient of {name} with {_others(name, some)} alone", d, together[name], BOUND)
    expected = case.spec.definition and case.call(case.spec.definition)
    if isinstance(expected, Tensor):
        right = expected.dtype is value.dtype and expected.shape == value.shape and expected.device == value.device
        yield expect("type of the value", right, f"got {_kind(value)}, the definition has {_kind(expected)}")


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every subset of two names or more but all; of many names only those that lack one."""
    sizes = range(2, len(names)) if len(names) <= MANY else (len(names) - 1,)
    for size in sizes:
        yield from itertools.combinations(names, size)


def _others(name: str, names: tuple[str, ...]) -> str:
    return " and ".join(other for other in names if other != name)


def has_parameters(value: Tensor, again: Tensor) -> bool:
    """Whether two calls lead to the same leaves, such as the parameters of a Module; one made in a call is another."""
    leaves = leaves_of(value)
    return bool(leaves) and {id(t) for t in leaves} == {id(t) for t in leaves_of(again)}


def leaves_of(value: Tensor) -> list[Tensor]:
    found, seen, waiting = [], set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            if hasattr(node, "variable"):
                found.append(node.variable)
    return found


def gradients_not_promised(case: Case) -> Iterator[Result]:
    """A floating point input without a promised gradient gets None, or is refused when it requires one."""
    for name, t in case.tensors.items():
        if name in case.differentiable or not t.is_floating_point():
            continue
        leaf = t.detach().requires_grad_()
        try:
            value = case.call(**case.leaves(), **{name: leaf})
            (d,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
        except RuntimeError:
            yield passed(f"no gradient of {name}")
            continue
        yield expect(f"no gradient of {name}", d is None, "it has one, though it is not declared differentiable")


def refuses(case: Case, error: Error) -> Iterator[Result]:
    made = {k: v(**case.arguments) if callable(v) else v for k, v in error.arguments.items()}
    shown = ", ".join(f"{k}={list(v.shape) if isinstance(v, Tensor) else v!r}" for k, v in made.items())
    what = f"refuses {shown}"
    try:
        with warnings.catch_warnings():
            if issubclass(error.raises, Warning):
                warnings.simplefilter("error", error.raises)
            case.at(made).call()
    except Exception as came:
        right = type(came) is error.raises and re.search(error.match, str(came))
        yield expect(what, right, f"{raised(came)}; expected {error.raises.__name__} matching {error.match!r}")
        return
    yield failed(what, f"was accepted; expected {error.raises.__name__}")


def _kind(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')} of shape {list(t.shape)} on {t.device}"
