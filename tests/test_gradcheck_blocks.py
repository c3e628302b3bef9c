"""Loops over blocks: the auditor shrinks them, and finds what is wrong only from the second block on."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import gradcheck
from gradcheck.spec import Settings
from manual_grad import kernels, specs
from manual_grad.engine import linear, softmax
from manual_grad.losses.linear import linear_cross_entropy

QUICK = Settings(quick=True)
SPEC = specs.load("linear_cross_entropy")
FEW = dataclasses.replace(SPEC, params=SPEC.params[:1], order=2, promises=("forward", "nested"), modules=())


@pytest.mark.parametrize("name", SPEC.blocks)
def test_every_loop_has_several_blocks(name: str) -> None:
    found: dict[str, list[int]] = {}  # by the function that has the loop: the number of blocks, of rows first
    blocks = linear.blocks

    def counting(total: int, most: int) -> list[slice]:
        made = blocks(total, most)
        found.setdefault(inspect.stack()[1].function, []).append(len(made))
        return made

    case = SPEC.case(QUICK)
    with SPEC.blocks[name](), mock.patch.object(linear, "blocks", counting):
        leaves = case.leaves()
        gradient = torch.autograd.grad(case.call(**leaves), list(leaves.values()), create_graph=True)
        torch.autograd.grad(sum(d.sum() for d in gradient), list(leaves.values()))
    rows, classes = found["__init__"][::2], found["__init__"][1::2]
    assert min(rows) >= 2 and min(found["by_blocks"]) >= 2
    assert min(classes) >= (2 if name.endswith("class") else 1)


def rewritten(function: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    """The function with one change of its text."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, source
    made: dict[str, Callable[..., Any]] = {}
    exec(compile(source.replace(old, new), "rewritten", "exec"), function.__globals__, made)
    return made[function.__name__]


FAULTS: dict[str, tuple[Any, str, str, str]] = {
    "the sign of a gap": (softmax.State, "union", "a.m - b.m)", "b.m - a.m)"),
    "the wrong side": (softmax.State, "union", "self.m > other.m", "self.m < other.m"),
    "the last block alone, of the rest": (softmax.State, "union", "a.rest + shrink", "shrink"),
    "the gradient of the weights, by kernel": (linear_cross_entropy._Sweep, "by_kernel", "self.dw += dw", "pass"),
    "the gradient of the weights, by formula": (
        linear_cross_entropy._Sweep, "by_formula", "self.dw[c] += ", "self.dw[c] = ",
    ),
    "a sum begun again": (linear, "_add_product", "beta=int(begun)", "beta=0"),
    "the sum of the bias": (linear, "_add", "total.add_(part) if begun", "total.copy_(part) if begun"),
    "the first rows of the other blocks": (linear.Products, "scores", "x[i], W[c]", "x[: i.stop - i.start], W[c]"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_from_the_second_block_on(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault.endswith("by kernel") and not kernels.loaded():
        pytest.skip("no kernels here")
    owner, name, old, new = FAULTS[fault]
    monkeypatch.setattr(owner, name, rewritten(getattr(owner, name), old, new))
    whole = gradcheck.audit([dataclasses.replace(FEW, blocks={})], ["definition"], QUICK)
    assert whole, whole
    report = gradcheck.audit([FEW], ["definition"], QUICK)
    assert not report and all("blocks of" in r.case for r in report.failures), report


@pytest.mark.parametrize(("old", "new"), [("a + b for", "b for"), ("torch.cat(c)", "torch.cat(c[::-1])")])
def test_a_fault_of_the_second_derivative(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "by_blocks", rewritten(linear.by_blocks, old, new))
    typical = dataclasses.replace(FEW, samples={"typical": FEW.samples["typical"]})
    report = gradcheck.audit([typical], ["second"], QUICK)
    assert not report and all("blocks of" in r.case for r in report.failures), report


# a function of another's own, with the size of its blocks in a module


def in_blocks(module: SimpleNamespace | ModuleType) -> Callable[[Tensor], Tensor]:
    class Squares(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return sum(part.square().sum() for part in x.split(module.BLOCK))

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            dx = 2 * g * x
            if module.FAULT:
                dx[module.BLOCK :] *= 0.5
            return dx

    return Squares.apply


@pytest.mark.parametrize(("fault", "block", "said"), [
    (False, 2, "all passed"),
    (True, 2, "WRONG squares: the gradient of x is wrong: "),
    (False, 64, "the spec's halves are no other blocks"),
])  # fmt: skip
def test_blocks_of_ones_own(fault: bool, block: int, said: str) -> None:
    module = SimpleNamespace(BLOCK=64, FAULT=fault)
    fn = in_blocks(module)
    spec = gradcheck.Spec(
        fn=lambda x: fn(x),
        name="squares",
        inputs=(gradcheck.Input("x"),),
        samples={"typical": lambda draw: dict(x=draw.normal(4, 3))},
        definition=lambda x: x.square().sum(),
        order=1,
        promises=(),
        blocks={"halves": functools.partial(mock.patch.object, module, "BLOCK", block)},
    )
    report = gradcheck.audit([spec], settings=QUICK)
    assert said in str(report), report
    assert not fault or all("halves" in r.case for r in report.failures), report
