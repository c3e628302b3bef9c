"""Timing: in one process, in turns, reporting medians.

Machines are noisy: timing two programs one after the other compares two moments rather than two programs. Here
manual_grad, torch eager, torch.compile and the sweep take turns in random order until the time is up. A turn is one
call, or as many calls as fill a millisecond. A call does what a training step does: forward, backward into newly
allocated memory, gradients set to None.

A process may be lucky or not with its memory and its neighbours. So several fresh processes measure everything, one
after the other, and :func:`merge` takes medians over these runs: of the times, and of the ratios of each run.
"""

from __future__ import annotations

import math
import random
import statistics
import time
import timeit
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.cases import Case, Inputs, least_bytes, sweep
from benchmarks.check import TOLERANCE, error

TURN = 1e-3  # seconds
LEAST_TURNS = 5

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the quartiles over all turns, or over the medians of several runs."""

    lower: float
    median: float
    upper: float
    turns: int
    calls: int  # per turn
    runs: tuple[float, ...] = ()  # the median of each run


@dataclass(frozen=True)
class Result:
    loss: str
    variant: str
    size: str
    shape: tuple[int, ...]
    upstream: float
    bytes: int  # least_bytes
    error: float  # in eps
    timings: dict[str, Timing]  # empty if the loss is wrong

    @property
    def red(self) -> bool:
        return not self.timings

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.variant}" if self.variant else self.loss

    @property
    def section(self) -> str:
        """The section of the report; results of one section may be averaged."""
        return self.size if self.upstream == 1 else f"{self.size}, upstream {self.upstream:g}"

    def speedups(self, other: str) -> list[float]:
        """How many times faster manual_grad is than the other, in each run; empty if the other is not timed."""
        if other not in self.timings:
            return []
        ours, theirs = (self.timings[name] for name in ("manual_grad", other))
        return [b / a for a, b in zip(ours.runs or (ours.median,), theirs.runs or (theirs.median,), strict=True)]

    def speedup(self, other: str) -> float | None:
        """The median over the runs."""
        found = self.speedups(other)
        return statistics.median(found) if found else None

    @property
    def elements(self) -> int:
        """Of the first input."""
        return math.prod(self.shape)

    def nanoseconds(self, program: str = "manual_grad") -> float:
        """Per element."""
        return self.timings[program].median / self.elements * 1e9

    @property
    def bandwidth(self) -> float:
        return self.bytes / self.timings["manual_grad"].median

    @property
    def of_sweep(self) -> float:
        """The speed relative to the sweep; more than 1 is possible if not everything must be read."""
        return statistics.median(self.speedups("sweep"))


def merge(runs: Sequence[Sequence[Result]]) -> list[Result]:
    """One result from each row of several runs; a row that is wrong in one run is wrong."""
    merged = []
    for row in zip(*runs, strict=True):
        timings = {}
        for name in row[0].timings if all(not r.red for r in row) else ():
            if all(name in r.timings for r in row):
                timings[name] = _over_runs([r.timings[name] for r in row])
        merged.append(replace(row[0], error=max(r.error for r in row), timings=timings))
    return merged


def _over_runs(timings: Sequence[Timing]) -> Timing:
    medians = [t.median for t in timings]
    return replace(_timing(medians, timings[0].calls), turns=sum(t.turns for t in timings), runs=tuple(medians))


def measure(case: Case, size: str, upstream: float, seconds: float, compiled: bool = True) -> Result:
    inputs = case.inputs(size)
    off = error(case, inputs, case.ours, upstream)
    timings = {}
    if off <= TOLERANCE:
        runs = {
            "manual_grad": step(case, case.ours, inputs, upstream),
            "eager": step(case, case.theirs, inputs, upstream),
        }
        if compiled:
            torch.compiler.reset()
            compiled_step = torch.compile(dynamic=False)
            run = step(case, case.theirs, inputs, upstream, compiled_step)
            if fits_into_memory(run):
                runs["compiled"] = run
        runs["sweep"] = sweep(inputs)
        timings = take_turns(runs, seconds)
    shape = tuple(inputs[0].shape)
    return Result(case.loss, case.variant, size, shape, upstream, least_bytes(inputs), off, timings)


def step(
    case: Case,
    loss: Callable[..., Tensor],
    inputs: Inputs,
    upstream: float = 1.0,
    transform: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda call: call,
) -> Callable[[], None]:
    """Forward, backward, and setting the gradients to None, as an optimizer does."""

    @transform
    def call(*inputs: Tensor) -> Tensor:
        return loss(*inputs, **case.options)

    differentiable = [t for t in inputs if t.requires_grad]
    g = None if upstream == 1 else torch.tensor(upstream)

    def run() -> None:
        call(*inputs).backward(g)
        for x in differentiable:
            x.grad = None

    return run


def fits_into_memory(run: Callable[[], None]) -> bool:
    """Whether a call fits into memory: for multilabel_margin_loss, torch.compile allocates a tensor (N, C, C)."""
    try:
        run()
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        return False
    return True


def take_turns(runs: Mapping[Name, Callable[[], object]], seconds: float) -> dict[Name, Timing]:
    calls = {}
    for name, run in runs.items():
        run()  # warm up: compile, load, allocate
        calls[name] = _calls_in_a_turn(run)
    turns: dict[Name, list[float]] = {name: [] for name in runs}
    shuffled = random.Random(0)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or min(map(len, turns.values())) < LEAST_TURNS:
        for name in shuffled.sample(
            list(runs), len(runs)
        ):  # random order, because the second one finds the caches warm
            turns[name].append(timeit.timeit(runs[name], number=calls[name]) / calls[name])
    return {name: _timing(taken, calls[name]) for name, taken in turns.items()}


def _calls_in_a_turn(run: Callable[[], object]) -> int:
    taken = timeit.timeit(run, number=1)
    if taken < 10 * TURN:  # a longer call fills a turn in any case
        taken = min(taken, *timeit.repeat(run, number=1, repeat=2))
    return max(1, round(TURN / taken))


def _timing(turns: list[float], calls: int) -> Timing:
    lower, median, upper = statistics.quantiles(turns, n=4, method="inclusive")
    return Timing(lower, median, upper, len(turns), calls)
