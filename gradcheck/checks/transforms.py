"""Do torch.func's transforms and torch.compile see the same function?"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gradcheck.checks.cases import each
from gradcheck.checks.forward import curvature, flat
from gradcheck.compare import Result, compare, noted
from gradcheck.spec import Case, Derivatives, Settings, Spec

BOUND = 256.0  # the same formulas, batched or fused: another order of operations
TAKES = 3


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    vmap = "vmap" in spec.promises
    yield from each(spec.covering(settings), derivatives, vmap)
    yield from each(spec.covering(settings), functools.partial(batched, settings=settings), vmap)
    if "compile" in spec.promises and not settings.quick:
        yield from compiled(spec, settings)


def derivatives(case: Case) -> Iterator[Result]:
    """grad, jacrev and, over itself and below forward mode if that is promised, the Hessian against torch.autograd."""
    f, z = flat(case)
    leaf = z.detach().requires_grad_()
    (expected,) = torch.autograd.grad(f(leaf), leaf)
    yield compare("torch.func.grad", torch.func.grad(f)(z), expected, BOUND)
    yield compare("is_grads_batched", *by_batched_upstreams(f, z), BOUND)
    yield compare("torch.func.jacrev", torch.func.jacrev(f)(z), expected, BOUND)
    if case.spec.order >= 2:
        v, bent = curvature(f, z)
        yield compare("jacrev of jacrev", torch.func.jacrev(torch.func.jacrev(f))(z) @ v, bent, BOUND)
        if "forward" in case.spec.promises:
            yield compare("torch.func.hessian", torch.func.hessian(f)(z) @ v, bent, BOUND)


def by_batched_upstreams(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Several upstream gradients in one backward, which torch.autograd vectorises, and the same one by one."""
    leaf = z.detach().requires_grad_()
    value = f(leaf)
    upstreams = torch.tensor([1.0, -0.5, 3.0]).to(value)
    (together,) = torch.autograd.grad(value, leaf, upstreams, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(value, leaf, g, retain_graph=True)[0] for g in upstreams]
    return together, torch.stack(singly)


def batched(case: Case, settings: Settings) -> Iterator[Result]:
    """vmap and vmap of grad over several draws against a loop: of the differentiable tensors, and of all."""
    takes = [case.spec.case(settings, case.sample, case.params, take=k) for k in range(TAKES)]
    for names, label in {tuple(case.differentiable): "", tuple(case.tensors): ", all tensors"}.items():
        stacked = [torch.stack([take.tensors[k].detach() for take in takes]) for k in names]
        singly = [case.at({k: take.tensors[k] for k in names}).differentiate() for take in takes]
        value, slope = _of(case, names)
        yield compare(f"vmap{label}", torch.vmap(value)(*stacked), torch.stack([v for v, _ in singly]), BOUND)
        for i, name in enumerate(names):
            if all(gradient.get(name) is not None for _, gradient in singly):
                expected = torch.stack([gradient[name] for _, gradient in singly])
                found = torch.vmap(torch.func.grad(slope, argnums=i))(*stacked)
                yield compare(f"vmap of grad by {name}{label}", found, expected, BOUND)


def _of(case: Case, names: tuple[str, ...]) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The call as a function of the tensors ``names``, and the sum that ``Case.differentiate`` differentiates."""
    g = case.upstream(case.call())

    def value(*tensors: Tensor) -> Tensor:
        return case.call(**dict(zip(names, tensors, strict=True)))

    return value, lambda *tensors: (value(*tensors) * g).sum()


def compiled(spec: Spec, settings: Settings) -> Iterator[Result]:
    """Every parameter in a whole graph, with that of its backward; on request code for one of them, of any size."""
    cases = list(spec.covering(settings))
    # the number in a tensor without dimensions is a symbol at first: that graph is traced once more without it
    for holds_numbers in (False, True):
        some = [case for case in cases if any(not t.dim() for t in case.differentiable.values()) is holds_numbers]
        yield from in_graphs(some, backend="aot_eager")
    if settings.inductor:
        yield from generated(cases[0], settings)


def generated(case: Case, settings: Settings) -> Iterator[Result]:
    """By the code of torch.compile, for any size."""
    if settings.device == "cpu" and not (os.environ.get("CXX") or any(map(shutil.which, ("g++", "c++", "clang++")))):
        yield noted("inductor", "no C++ compiler for its code")
    else:
        yield from in_graphs([case], backend="inductor", dynamic=True)


def in_graphs(cases: Sequence[Case], **how: Any) -> Iterator[Result]:
    """All cases in one graph, which takes half the time; one by one where that fails, to tell which."""
    together: Iterator[Derivatives] | None = None
    if len(cases) > 1:
        with contextlib.suppress(Exception):
            together = iter(through_compile(cases, **how))

    def body(case: Case) -> Iterator[Result]:
        (value, gradient) = through_compile([case], **how)[0] if together is None else next(together)
        expected, expected_gradient = case.differentiate()
        yield compare(f"value by {how['backend']}", value, expected, BOUND)
        for name, d in gradient.items():
            yield compare(f"gradient of {name} by {how['backend']}", d, expected_gradient[name], BOUND)

    yield from each(cases, body)


def through_compile(cases: Sequence[Case], **how: Any) -> list[Derivatives]:
    torch.compiler.reset()
    run = torch.compile(
        lambda calls: [case.call(**tensors) for case, tensors in zip(cases, calls, strict=True)], fullgraph=True, **how
    )
    leaves = [case.leaves() for case in cases]
    values = run([{**case.tensors, **mine} for case, mine in zip(cases, leaves, strict=True)])
    g = [case.upstream(value) for case, value in zip(cases, values, strict=True)]
    found = iter(torch.autograd.grad(values, [t for mine in leaves for t in mine.values()], g, allow_unused=True))
    return [(value, {k: next(found) for k in mine}) for value, mine in zip(values, leaves, strict=True)]
