"""Does it give the same, whatever the memory behind the tensors, and however backward is called?"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, expect, failed, passed
from gradcheck.conditioning import judge, scales
from gradcheck.spec import Case, Derivatives, Gradient, Settings, Spec

BOUND = 64.0  # other strides may be summed in another order


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    for body in (inputs, upstreams):
        yield from each(spec.cases(settings), body)
    for body in (backwards, empty):
        yield from each(spec.covering(settings), body)


def layouts(t: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same numbers, laid out otherwise."""
    if t.dim() >= 2:
        yield "transposed", t.mT.contiguous().mT
    if t.dim() == 4:
        yield "channels last", t.contiguous(memory_format=torch.channels_last)
    if t.dim() >= 1:
        yield "every other entry", torch.stack([t, torch.full_like(t, 7)], -1)[..., 0]
        if t.shape[0] > 1 and (t == t[:1]).all():
            yield "expanded", t[:1].expand(t.shape)
    yield "with an offset", torch.cat([t.new_full((3,), 7), t.flatten()])[3:].view(t.shape)


def inputs(case: Case) -> Iterator[Result]:
    """Every input in every layout, alone; and expanded from one sample, or one column where it has no samples.

    (Classes that are all the same would give a matrix of weights a gradient of zero, but for rounding.)
    """
    g = case.upstream(case.call())
    plain = case.differentiate(g=g)
    for name, t in case.tensors.items():
        for label, other in layouts(t):
            yield from same(f"{name} {label}", case, case.at({name: other}).differentiate(g=g), plain)
    for name, t in case.differentiable.items():
        dim = case.batch.get(name, -1)
        if t.dim() and t.shape[dim] > 1:
            expanded = t.narrow(dim, 0, 1).expand(t.shape)
            dense = case.at({name: expanded.contiguous()})
            try:
                repeated = dense.differentiate(g=g)
            except (RuntimeError, ValueError):
                continue  # it is no point of the function, such as a matrix without an inverse
            if repeated[0].isfinite().all():
                yield from same(f"{name} expanded", dense, case.at({name: expanded}).differentiate(g=g), repeated)


def same(label: str, case: Case, found: Derivatives, wanted: Derivatives) -> Iterator[Result]:
    result = compare(f"value, {label}", found[0], wanted[0], BOUND)
    g = case.upstream(wanted[0])
    yield judge(result, found[0], wanted[0], case.dtype, functools.partial(scales, case, g), "value")
    yield from same_gradient(label, case, found[1], wanted[1], g)


def same_gradient(label: str, case: Case, found: Gradient, wanted: Gradient, g: Tensor) -> Iterator[Result]:
    size = functools.cache(functools.partial(scales, case, g))
    for name, d in found.items():
        what = f"gradient of {name}"
        result = compare(f"{what}, {label}", d, wanted[name], BOUND)
        yield judge(result, d, wanted[name], case.dtype, size, what)


def upstreams(case: Case) -> Iterator[Result]:
    """Every layout of the upstream gradient, stride 0 among them; 1, by which one need not multiply; and 0."""

    def gradient(g: Tensor) -> Gradient:
        return case.differentiate(g=g)[1]

    value = case.call()
    g = case.upstream(value)
    plain = gradient(g)
    for label, other in layouts(g):
        yield from same_gradient(f"upstream {label}", case, gradient(other), plain, g)
    constant = gradient(torch.full_like(value, 0.75, memory_format=torch.contiguous_format))
    stride_0 = torch.full((), 0.75, dtype=value.dtype, device=value.device).expand(value.shape)
    yield from same_gradient("upstream of stride 0", case, gradient(stride_0), constant, stride_0)
    ones = {k: None if d is None else d / 0.75 for k, d in constant.items()}
    one = torch.ones_like(value)
    yield from same_gradient("upstream of ones", case, gradient(one), ones, one)
    for name, d in gradient(torch.zeros_like(value)).items():
        yield expect(f"gradient of {name}, upstream 0", d is None or not d.any(), "is not zero if the upstream is")


def backwards(case: Case) -> Iterator[Result]:
    """Two backwards through one graph, another upstream in between, a graph of the gradient, accumulation in .grad."""
    leaves = case.leaves()
    value = case.call(**leaves)
    if not value.requires_grad:
        return
    g = case.upstream(value)
    _, expected = case.differentiate(g=g)
    _, expected_other = case.differentiate(g=-3 * g)
    ways = {"first backward": (g, False), "another upstream": (-3 * g, False), "second backward": (g, False)}
    if case.spec.order >= 2:
        ways |= {"with create_graph": (g, True), "after create_graph": (g, False)}
    for label, (upstream, graph) in ways.items():
        found = torch.autograd.grad(
            value, list(leaves.values()), upstream, retain_graph=True, create_graph=graph, allow_unused=True
        )
        wanted = expected_other if label == "another upstream" else expected
        yield from same_gradient(label, case, dict(zip(leaves, found, strict=True)), wanted, upstream)
    value.backward(g, retain_graph=True)
    value.backward(g)
    for name, leaf in leaves.items():
        wanted = None if expected[name] is None else 2 * expected[name]
        yield compare(f".grad of {name}, accumulated", leaf.grad, wanted, BOUND)


def empty(case: Case) -> Iterator[Result]:
    """A batch of no samples, as the definition has it: refused, or with NaN for the mean of nothing."""
    if case.spec.definition is None or not case.batch:
        return
    case = case.at({k: case.tensors[k].narrow(d, 0, 0) for k, d in case.batch.items()})
    try:
        expected, expected_gradient = case.differentiate(case.spec.definition)
    except RuntimeError as refusal:
        yield refuses(case, type(refusal))
        return
    value, gradient = case.differentiate()
    yield compare("value, empty", value, expected, 0, nan=True)
    for name, d in gradient.items():
        shape = case.tensors[name].shape
        yield expect(f"shape of gradient of {name}, empty", d is None or d.shape == shape, f"is not {list(shape)}")
        yield compare(f"gradient of {name}, empty", d, expected_gradient[name], BOUND, nan=True)


def refuses(case: Case, error: type[Exception]) -> Result:
    try:
        case.call()
    except error:
        return passed("empty")
    return failed("empty", f"was accepted; the definition raises {error.__name__}")
