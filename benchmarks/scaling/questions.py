"""The questions, and how each is measured.

===========  ===============================================================================================
size         time of pointwise losses from 2²⁰ to 2²⁷ elements
classes      time of cross entropy from 10 to 262,144 classes, at the same number of scores
threads      one thread against all, where arithmetic is the bottleneck
dtype        bfloat16 and float16 against float32
upstream     an upstream gradient of 0.5 against 1
sweeps       the gradient computed together with the value, against a separate sweep for each
allocator    fresh memory for every gradient against memory that malloc keeps
memory       the peak memory of forward and backward beyond their inputs
projection   the same for linear_cross_entropy, which must not grow with the number of scores
overhead     where the time of a small call goes
===========  ===============================================================================================

All settings of a loss, and torch eager, take turns in one process; see :mod:`benchmarks.timing`. A loss that is wrong
is not timed.
"""

from __future__ import annotations

import ctypes
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

import manual_grad.functional
from benchmarks import cases
from benchmarks.cases import ELEMENTS, Case, Inputs, pointwise
from benchmarks.check import TOLERANCE, error
from benchmarks.scaling import memory
from benchmarks.timing import Timing, step, take_turns
from manual_grad import kernels
from manual_grad.catalogue import BY_NAME
from manual_grad.engine import older_torch

CASES = tuple(case for case in cases.CASES if BY_NAME[case.loss].peer)  # those that torch has too
IMPLEMENTATIONS = ("manual_grad", "eager")
DTYPES = {  # no eager float16, in which torch multiplies matrices thirty times more slowly than in float32
    "manual_grad": (torch.float32, torch.bfloat16, torch.float16),
    "eager": (torch.float32, torch.bfloat16),
}
POINTWISE = ("mse_loss", "binary_cross_entropy_with_logits", "kl_div")
# a million numbers: inputs and gradient fit into the cache, and the overhead of a call is negligible
COMPUTE_BOUND = {
    "binary_cross_entropy_with_logits": (1 << 20,),
    "gaussian_nll_loss": (1 << 20,),
    "cross_entropy, class indices": (1024, 1024),
    "ctc_loss": (128, 64, 128),
}
SWEPT = (
    "mse_loss",
    "binary_cross_entropy_with_logits",
    "cross_entropy, class indices",
    "multilabel_soft_margin_loss",
    "cosine_embedding_loss",
)
FRESH = (*POINTWISE, "cross_entropy, class indices", "triplet_margin_loss")
OVERHEAD = ("nll_loss", "multi_margin_loss", "mse_loss")
NOTHING = "nothing"

Run = Callable[[], object]


@dataclass(frozen=True)
class Scope:
    """How much is measured."""

    seconds: float  # minimal time for each loss
    elements: tuple[int, ...]
    scores: int
    classes: tuple[int, ...]
    size: str  # where dtypes, upstream gradients, sweeps and memory are compared
    projections: tuple[tuple[int, int, int], ...]  # rows, features, classes


FULL = Scope(
    seconds=1.0,
    elements=tuple(1 << exponent for exponent in (20, 22, 24, 26, 27)),
    scores=1 << 24,
    classes=(10, 100, 1000, 32_000, 262_144),
    size="large",
    projections=((1024, 512, 16_000), (1024, 512, 64_000), (4096, 512, 16_000)),
)
QUICK = Scope(
    seconds=0.2,
    elements=(1 << 16, 1 << 18, 1 << 20),
    scores=1 << 20,
    classes=(10, 1000, 32_000),
    size="medium",
    projections=((256, 128, 1000), (1024, 128, 1000), (256, 128, 4000)),
)


@dataclass(frozen=True)
class Row:
    """The results of one implementation of a loss, by setting."""

    name: str
    by: str
    timings: dict[str, Timing] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)


class Red(Exception):
    """Raised for a loss that is wrong; it is not measured."""


def size(scope: Scope) -> Iterator[Row]:
    for name in POINTWISE:
        yield from _by_shape(named(name), [(n,) for n in scope.elements], scope)


def classes(scope: Scope) -> Iterator[Row]:
    yield from _by_shape(named("cross_entropy, class indices"), [(scope.scores // c, c) for c in scope.classes], scope)


def _by_shape(case: Case, shapes: Iterable[tuple[int, ...]], scope: Scope) -> list[Row]:
    require_right(case)
    every = {shape_name(shape): case.inputs(shape) for shape in shapes}
    runs = {
        (by, name): step(case, loss_of(case, by), inputs) for name, inputs in every.items() for by in IMPLEMENTATIONS
    }
    return _rows(case.name, runs, scope)


def threads(scope: Scope) -> Iterator[Row]:
    most = torch.get_num_threads()
    try:
        for name, shape in COMPUTE_BOUND.items():
            case = named(name)
            require_right(case)
            run = step(case, loss_of(case), case.inputs(shape))
            counts = {("manual_grad", str(n)): _with_threads(n, run) for n in (1, most)}
            yield from _rows(name, counts, scope)
    finally:
        torch.set_num_threads(most)


def _with_threads(count: int, run: Run) -> Run:
    def limited() -> None:
        torch.set_num_threads(count)
        run()

    return limited


def dtypes(scope: Scope) -> Iterator[Row]:
    for case in CASES:
        inputs, runs = case.inputs(scope.size), {}
        for dtype in DTYPES["manual_grad"]:
            require_right(case, dtype)
            converted = in_dtype(inputs, dtype)
            for by in IMPLEMENTATIONS:
                if dtype in DTYPES[by] and _takes(case, by, dtype):
                    runs[by, str(dtype).removeprefix("torch.")] = step(case, loss_of(case, by), converted)
        yield from _rows(case.name, runs, scope)


def in_dtype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return tuple(t.detach().to(dtype).requires_grad_(t.requires_grad) if t.is_floating_point() else t for t in inputs)


def _takes(case: Case, by: str, dtype: torch.dtype) -> bool:
    """Whether an implementation supports the dtype; torch has some losses for float32 and float64 only."""
    try:
        step(case, loss_of(case, by), in_dtype(case.inputs("small"), dtype))()
    except NotImplementedError:
        return False
    return True


def upstream(scope: Scope) -> Iterator[Row]:
    for case in CASES:
        require_right(case, upstream=0.5)
        inputs = case.inputs(scope.size)
        runs = {("manual_grad", f"{g:g}"): step(case, loss_of(case), inputs, g) for g in (1.0, 0.5)}
        yield from _rows(case.name, runs, scope)


def sweeps(scope: Scope) -> Iterator[Row]:
    """One sweep holds the gradient from forward to backward; two hold only the loss, but read the inputs twice."""
    if not kernels.loaded("cpu"):
        return
    for name in SWEPT:
        case = named(name)
        require_right(case)
        swept = Swept(loss_of(case)(*case.inputs(scope.size), **case.options))
        runs = {("manual_grad", "one"): swept.in_one, ("manual_grad", "two"): swept.in_two}
        held = {"one": _nbytes(*swept.together()), "two": _nbytes(swept.value())}
        (row,) = _rows(name, runs, scope)
        yield Row(name, row.by, row.timings, held)


class Swept:
    """The arguments of a call as its Function received them, to run it in one sweep or in two."""

    def __init__(self, value: Tensor) -> None:
        node: Any = value.grad_fn  # of manual_grad.engine.function.Eager
        self.call, self.inputs = node.call, node.saved_tensors
        self.loss, self.options, self.reduction, _ = self.call
        self.needs = tuple(t is not None and t.requires_grad for t in self.inputs)
        self.X = tuple(None if t is None else t.detach() for t in self.inputs)
        self.one = torch.ones_like(value, requires_grad=False)

    def apply(self) -> Tensor:
        return self.loss.eager(self.call, *self.inputs)

    def together(self) -> tuple[Tensor | None, ...]:
        value, gradients = self.loss.fused(self.X, self.options, self.reduction, self.needs, None, True)
        return value, *gradients

    def value(self) -> Tensor:
        return self.loss.fused(self.X, self.options, self.reduction, (False,) * len(self.X), None, True)[0]

    def gradient(self) -> list[Tensor | None]:
        return self.loss.fused(self.X, self.options, self.reduction, self.needs, self.one, False)[1]

    def in_one(self) -> None:
        self.together()

    def in_two(self) -> None:
        self.value()
        self.gradient()


def _nbytes(*tensors: Tensor | None) -> int:
    return sum(t.nbytes for t in tensors if t is not None)


def allocator(scope: Scope) -> Iterator[Row]:
    """malloc returns a large array to the system at once, by default, and the next one has to be faulted in again."""
    if not hasattr(_C, "mallopt"):  # only glibc's malloc is asked
        return
    try:
        for name in FRESH:
            case = named(name)
            require_right(case)
            inputs = case.inputs(scope.size)
            runs = {
                (by, setting): _with_malloc(setting, step(case, loss_of(case, by), inputs))
                for by in IMPLEMENTATIONS
                for setting in MALLOC
            }
            yield from _rows(name, runs, scope)
    finally:
        _set_malloc("returned")


_C = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt
MALLOC = {"returned": (128 << 10, 65536), "kept": (2**31 - 1, 0)}  # what these are; first glibc's defaults


def _set_malloc(setting: str) -> None:
    for parameter, value in zip((M_TRIM_THRESHOLD, M_MMAP_MAX), MALLOC[setting], strict=True):
        _C.mallopt(parameter, value)
    if setting == "returned":
        _C.malloc_trim(0)


def _with_malloc(setting: str, run: Run) -> Run:
    def run_so() -> None:
        _set_malloc(setting)
        run()

    return run_so


def peak_memory(scope: Scope) -> Iterator[Row]:
    yield from _peaks([(case, scope.size) for case in CASES])


def projection(scope: Scope) -> Iterator[Row]:
    yield from _peaks([(named("linear_cross_entropy"), shape) for shape in scope.projections])


def _peaks(of: list[tuple[Case, str | tuple[int, ...]]]) -> Iterator[Row]:
    if not memory.measurable():
        return
    tasks = [(case, loss_of(case, by), size) for case, size in of for by in IMPLEMENTATIONS]
    measured = iter(memory.peaks(tasks))
    for case, size in of:
        inputs = case.inputs(size)
        gradients = _nbytes(*(t for t in inputs if t.requires_grad))
        name = case.name if isinstance(size, str) else shape_name(size)
        for by in IMPLEMENTATIONS:
            yield Row(name, by, bytes={"gradients": gradients, "peak": next(measured)})


class Empty(Function):
    """A Function that computes nothing, to time what torch does around any Function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return x.new_empty(())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None


def overhead(scope: Scope) -> Iterator[Row]:
    """The parts of a small call, each with the one before: kernel, Function, forward, and forward and backward.

    The call that computes nothing is an op of which no result is wanted, in an empty Function; eager's is a view.
    """
    yield from _rows(NOTHING, dict(_nothing()), scope)
    for name in OVERHEAD:
        case = named(name)
        require_right(case)
        inputs = case.inputs("small")
        runs = {}
        if kernels.loaded("cpu"):
            swept = Swept(loss_of(case)(*inputs, **case.options))
            runs = {("manual_grad", "kernel"): swept.together, ("manual_grad", "Function"): swept.apply}
        for by in IMPLEMENTATIONS:
            runs[by, "forward"] = partial(loss_of(case, by), *inputs, **case.options)
            runs[by, "backward"] = step(case, loss_of(case, by), inputs)
        yield from _rows(name, runs, scope)


def _nothing() -> Iterator[tuple[tuple[str, str], Run]]:
    case = pointwise(BY_NAME["mse_loss"])
    x, t = case.inputs("small")
    if kernels.loaded("cpu"):
        op = kernels.op(case.loss)
        yield ("manual_grad", "kernel"), lambda: op(x, t, None, None, 1.0, True, *[False] * 4)
    yield ("manual_grad", "Function"), partial(Empty.apply, x, t)
    yield ("manual_grad", "backward"), step(Case(NOTHING, case.make, ELEMENTS), Empty.apply, (x, t))
    scalar = torch.zeros((), requires_grad=True)
    yield ("eager", "forward"), lambda: scalar.view(())
    yield ("eager", "backward"), step(Case(NOTHING, case.make, ELEMENTS), lambda x: x.view(()), (scalar,))


def named(name: str) -> Case:
    (case,) = (case for case in CASES if case.name == name)
    return case


def loss_of(case: Case, by: str = "manual_grad") -> Callable[..., Tensor]:
    return older_torch.loss(case.loss) if by == "eager" else getattr(manual_grad.functional, case.loss)


def require_right(case: Case, dtype: torch.dtype = torch.float32, upstream: float = 1.0) -> None:
    size = (
        "small" if dtype is torch.float16 else "medium"
    )  # with more elements, the float16 gradient of the mean would be subnormal
    off = error(case, in_dtype(case.inputs(size), dtype), loss_of(case), upstream)
    if not off <= TOLERANCE:
        raise Red(f"{case.name} in {dtype} is off by {off:.3g} eps, {TOLERANCE:g} allowed")


def shape_name(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape))


def numel(shape: str) -> int:
    return math.prod(map(int, shape.split("×")))


def _rows(name: str, runs: Mapping[tuple[str, str], Run], scope: Scope) -> list[Row]:
    timings: dict[str, dict[str, Timing]] = defaultdict(dict)
    for (by, setting), timing in take_turns(runs, scope.seconds).items():
        timings[by][setting] = timing
    return [Row(name, by, by_setting) for by, by_setting in timings.items()]


QUESTIONS: dict[str, Callable[[Scope], Iterator[Row]]] = {
    "size": size,
    "classes": classes,
    "threads": threads,
    "dtype": dtypes,
    "upstream": upstream,
    "sweeps": sweeps,
    "allocator": allocator,
    "memory": peak_memory,
    "projection": projection,
    "overhead": overhead,
}
