"""Do its Modules compute the same: every option kept, every argument passed on, every tensor in a buffer?

A Module that passes arguments on in another order, or fixes an option, has no gradient of its own to be wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from gradcheck.checks import second
from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, expect, failed
from gradcheck.conditioning import judge, scales
from gradcheck.modules import NotTaken, as_function, bind, described
from gradcheck.spec import Case, Draw, Module, Settings, Spec, named

BOUND = 64.0  # the same function, perhaps of tensors laid out otherwise
METHOD = 256.0  # as of any function against its definition


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    for module in map(described, spec.modules):
        yield from _labelled(module.name, like_the_function(spec, module, settings))
        for method, definition in module.methods.items():
            derived = replace(spec, fn=as_function(module, tuple(spec.by_name), method), definition=definition)
            yield from _labelled(f"{module.name}.{method}", like_its_definition(derived, settings))


def _labelled(label: str, results: Iterator[Result]) -> Iterator[Result]:
    for result in results:
        yield result._replace(what=f"{label}: {result.what}")


def like_the_function(spec: Spec, module: Module, settings: Settings) -> Iterator[Result]:
    """Every params, sample, regime and pin at least once, and no option at all, but what the Module does not take.

    What an option does may show only at an edge.
    """
    fn, inputs, compared = as_function(module, tuple(spec.by_name)), tuple(spec.by_name), False

    def body(case: Case) -> Iterator[Result]:
        nonlocal compared
        try:
            bound = bind(module, inputs, case.arguments)
        except NotTaken:
            return
        compared = True
        kept = {id(t) for t in (*bound.module.buffers(), *bound.module.parameters())}
        for name, t in bound.made_with.items():
            if isinstance(t, Tensor):
                yield expect(f"{name} in a buffer", id(t) in kept, "is not, so that it would not move with the Module")
        value, gradient = case.differentiate()
        found = named(*case.differentiate(fn))
        size = functools.cache(functools.partial(scales, case, case.upstream(value)))
        for what, wanted in named(value, gradient).items():
            result = compare(what, found[what], wanted, BOUND, nan=True)
            exact = spec.definition is None or not case.differentiable  # of integers there is nothing to judge
            yield result if exact else judge(result, found[what], wanted, case.dtype, size, what)

    cases = [spec.case(settings, params=params) for params in spec.params]
    cases += [*without_options(cases[0]), *(spec.case(settings, name) for name in (*spec.samples, *spec.regimes))]
    cases += [spec.pinned(pin, Draw(0, spec.dtype, settings.device)) for pin in spec.pins]
    yield from each(cases, body)
    if not compared:
        yield failed("call", "takes no sample as it is: nothing was compared")


def without_options(case: Case) -> Iterator[Case]:
    """The call with its tensors alone, if the function needs no more: the defaults are the same."""
    bare = Case(case.spec, f"{case.sample}, by default", case.tensors)
    try:
        bare.call()
    except TypeError:
        return
    yield bare


def like_its_definition(spec: Spec, settings: Settings) -> Iterator[Result]:
    """A method, which is a function of its own: value, gradient and, if promised, second derivatives."""
    floating = True

    def body(case: Case) -> Iterator[Result]:
        nonlocal floating
        value, gradient = case.differentiate()
        expected, expected_gradient = case.differentiate(spec.definition)
        floating = value.is_floating_point()
        if not floating:
            yield expect("value", torch.equal(value, expected), f"is {value.tolist()}, expected {expected.tolist()}")
            return
        size = functools.cache(functools.partial(scales, case, case.upstream(value)))
        wanted = named(expected, expected_gradient)
        for what, t in named(value, gradient).items():
            yield judge(compare(what, t, wanted[what], METHOD), t, wanted[what], case.dtype, size, what)

    yield from each(spec.covering(settings), body)
    if floating and spec.order >= 2:
        yield from second.check(replace(spec, order=2), settings)
