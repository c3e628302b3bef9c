"""What an element costs each kernel, and the time that this leaves for tensors larger than the cache.

A kernel is called directly, as the engine calls it, on one thread and on data in the cache. The cost of a call itself
cancels, because each figure is the difference between two sizes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import json
import math
import mmap
import platform
import re
import time
import timeit
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.bounds import ports, trace
from benchmarks.bounds.ports import Instruction
from benchmarks.cases import Case, advise_huge_pages
from benchmarks.scaling.questions import Swept, in_dtype, loss_of, require_right
from benchmarks.timing import Result, take_turns
from manual_grad.catalogue import BY_NAME

SHAPES: dict[str, Callable[[int], tuple[int, ...]]] = {  # by family, n times 4,096 elements
    "pointwise": lambda n: (4096 * n,),
    "rowwise": lambda n: (n, 4096),
    "pairwise": lambda n: (16 * n, 256),
    "path": lambda n: (64, n, 64),
}
TRACED, TIMED = (1, 3), (1, 4)  # pairs of n
TURN = 2e-4  # seconds; short enough that most turns are not interrupted
NEW, PAGE = 8 << 20, 1 << 10  # floats: of the large size, and of a page
# each multiplication of integers waits for the last; that takes three cycles on AMD since Zen and on Intel
MULTIPLICATIONS, ROUNDS, LATENCY = 16, 1000, 3

Run = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """What an element of the first input costs: value and gradients together."""

    loss: str
    variant: str
    dtype: str
    instructions: float
    vector: float  # of which calculate with vectors
    divisions: float  # and square roots, also of vectors
    stack: float  # vectors written to the stack and read from it
    ports: float | None  # the least cycles in which the ports issue these instructions, if the processor's are known
    nanoseconds: float
    clock: float  # GHz
    written: float  # bytes of gradients

    @property
    def name(self) -> str:
        dtype = "" if self.dtype == "float32" else self.dtype
        return ", ".join(filter(None, (self.loss, self.variant, dtype)))

    @property
    def cycles(self) -> float:
        return self.nanoseconds * self.clock


@dataclass(frozen=True)
class Costs:
    """The costs on one machine."""

    machine: dict[str, str]
    faults: float  # nanoseconds per byte of new memory, on one thread
    costs: list[Cost]


@dataclass(frozen=True)
class Bound:
    """Nanoseconds per element of a large tensor, with all threads."""

    sweep: float
    arithmetic: float
    faults: float

    @property
    def least(self) -> float:
        """Reads and writes overlap with arithmetic. Page faults do not, but the sweep has them too."""
        return max(self.sweep, self.arithmetic + self.faults)


def bound(cost: Cost, faults: float, large: Result, threads: int) -> Bound:
    return Bound(large.nanoseconds("sweep"), cost.nanoseconds / threads, cost.written * faults / threads)


def covered(case: Case) -> bool:
    """Whether a kernel of ours does the work. That of linear losses is torch's, which multiplies matrices."""
    return BY_NAME[case.loss].family in SHAPES


def measure(case: Case, dtype: torch.dtype, seconds: float) -> Cost:
    """Raises :exc:`Red` for a loss that is wrong."""
    require_right(case, dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        counts = instructions(case, dtype)
        small, large = TIMED
        fastest = minima({**{n: kernel(case, dtype, n) for n in TIMED}, 0: chain()}, seconds)
    finally:
        torch.set_num_threads(threads)
    known = ports.of(processor(), trace.library().instruction_set)
    inputs = in_dtype(case.inputs("small"), dtype)
    return Cost(
        loss=case.loss,
        variant=case.variant,
        dtype=str(dtype).removeprefix("torch."),
        instructions=sum(counts.values()),
        vector=sum(count for i, count in counts.items() if i.calculates),
        divisions=sum(count for i, count in counts.items() if i.divides),
        stack=sum(count for i, count in counts.items() if i.is_on_stack),
        ports=None if known is None else ports.least_cycles(counts, known),
        nanoseconds=(fastest[large] - fastest[small]) / elements(case, TIMED) * 1e9,
        clock=MULTIPLICATIONS * ROUNDS * LATENCY / fastest[0] / 1e9,
        written=sum(t.nbytes for t in inputs if t.requires_grad) / inputs[0].numel(),
    )


def kernel(case: Case, dtype: torch.dtype, n: int) -> Run:
    """A call that computes the loss and its gradients, as the engine makes it."""
    inputs = in_dtype(case.inputs(shape(case, n)), dtype)
    return Swept(loss_of(case)(*inputs, **case.options)).in_one


def shape(case: Case, n: int) -> tuple[int, ...]:
    return SHAPES[BY_NAME[case.loss].family](n)


def elements(case: Case, pair: tuple[int, int]) -> int:
    """By how many elements two sizes differ."""
    small, large = (math.prod(shape(case, n)) for n in pair)
    return large - small


def instructions(case: Case, dtype: torch.dtype) -> dict[Instruction, float]:
    """How many of each instruction an element takes."""
    runs = [kernel(case, dtype, n) for n in TRACED]
    for run in runs:
        run()  # so that nothing is loaded or resolved while counting
    library = trace.library()
    small, large = (trace.executed(run, library.addresses) for run in runs)
    return per_element(small, large, _disassembled(library), elements(case, TRACED))


def per_element(
    small: Counter[int], large: Counter[int], texts: Mapping[int, str], elements: int
) -> dict[Instruction, float]:
    found: Counter[Instruction] = Counter()
    for offset in small | large:
        found[Instruction(texts[offset])] += large[offset] - small[offset]
    return {instruction: count / elements for instruction, count in found.items()}


_disassembled = functools.cache(trace.disassemble)


def minima(runs: Mapping[int, Run], seconds: float) -> dict[int, float]:
    """The shortest time per call of each, in turns."""
    for run in runs.values():
        run()
    calls = {name: max(1, round(TURN / timeit.timeit(run, number=1))) for name, run in runs.items()}
    fastest = dict.fromkeys(runs, math.inf)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or math.inf in fastest.values():
        for name, run in runs.items():
            fastest[name] = min(fastest[name], timeit.timeit(run, number=calls[name]) / calls[name])
    return fastest


@functools.cache
def chain() -> Run:
    """A chain of dependent multiplications, to measure the clock."""
    multiply = b"\x48\x0f\xaf\xc0" * MULTIPLICATIONS  # imul rax, rax
    again = b"\x48\xff\xcf\x75" + (-len(multiply) - 5).to_bytes(1, "little", signed=True)  # dec rdi; jnz
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(multiply + again + b"\xc3")
    start = ctypes.addressof(ctypes.c_char.from_buffer(code))
    function = ctypes.CFUNCTYPE(None, ctypes.c_long)(start)
    return lambda: function(ROUNDS) if code else None  # holds the memory


def faults(seconds: float) -> float:
    """Nanoseconds that a byte of new memory costs besides being written, as large gradients are: page faults.

    Huge pages are requested as the kernels request them. Included is what it takes to return the memory.
    """
    kept = torch.zeros(NEW)

    def touch(x: Tensor) -> None:
        x[::PAGE].zero_()  # few enough floats that torch writes them on one thread

    def new() -> None:
        x = torch.empty(NEW)
        advise_huge_pages(x)
        touch(x)

    timings = take_turns({"new": new, "kept": functools.partial(touch, kept)}, seconds)
    return (timings["new"].median - timings["kept"].median) / kept.nbytes * 1e9


def processor() -> str:
    """The maker, family and model, by which the ports are known: a guest may see no more of a name than its maker."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    fields = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    known = len(fields) == 3
    return "{vendor_id}, family {cpu family}, model {model}".format(**fields) if known else platform.machine()


def write_json(found: Costs, path: Path) -> None:
    path.write_text(json.dumps(dataclasses.asdict(found), indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Costs:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Costs(content["machine"], content["faults"], [Cost(**cost) for cost in content["costs"]])
