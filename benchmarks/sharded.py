"""``python -m benchmarks.sharded``: losses whose classes are spread over processes.

Measured here, on processes that gloo connects: forward and backward with a fixed number of rows, and of classes in each
process, so that the work of a process stays the same. They share the cores, so that the processor's seconds of all of
them are beside those on the clock. Beside ours is torch's ``loss_parallel``; and, for the digits of a sure row, the
usual all-reduces of the maximum and of the sum of all exponentials. Computed, not measured: what the messages take on
many GPUs. ``--json FILE`` also writes the results; ``--table FILE`` prints those of a file.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn import functional as F

import manual_grad.functional as M
from benchmarks import report

SCALE = {"large": (512, 256, 16384), "small": (8, 16, 64)}  # rows, features, classes of each process
SIZES = (1, 2, 4)  # numbers of processes
LEAST_TURNS = 5
OURS, TORCHS, USUAL, ALONE = "manual_grad", "loss_parallel", "usual", "manual_grad without group"
TASKS = ("cross_entropy", "linear_cross_entropy")

Program = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """Medians of a step: seconds on the clock, until the last process is done, and of all processes' threads."""

    task: str
    program: str
    processes: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Sure:
    """Errors, in eps, of the loss of a row that is sure by a margin, and of its gradient by the label's score."""

    program: str
    margin: float
    value: float
    gradient: float


# -- what is sent


def lanes(per_class: bool = False, weight: bool = False) -> int:
    """How many numbers of each row the processes add up.

    Always: rho, the number of leaders and tau, how far the label is behind, and whether it leads. ``per_class``: delta,
    Q and q-bar, for label smoothing and probabilities. ``weight``: that of the label, where classes have weights.
    """
    return 3 + 2 + 3 * per_class + weight


def bytes_per_row(**options: bool) -> int:
    """Of the maximum and of the sum, in float64, as each process hands them over."""
    return 8 + 8 * lanes(**options)


# -- programs


class Inputs:
    """Scores, or hidden states and a weight, of which this process has some classes; every process has the labels."""

    def __init__(self, scale: str) -> None:
        rows, features, classes = SCALE[scale]
        size, rank = dist.get_world_size(), dist.get_rank()
        shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1 + rank)
        self.mesh = init_device_mesh("cpu", (size,))
        self.index = torch.randint(size * classes, (rows,), generator=shared)
        self.hidden = torch.randn(rows, features, generator=shared).requires_grad_()
        self.logits = torch.randn(rows, classes, generator=own).requires_grad_()
        weight = torch.randn(classes, features, generator=own) / features**0.5
        self.weight = weight.requires_grad_()

    def whole(self, task: str) -> Tensor:
        """The exact loss, of all scores in float64."""
        with torch.no_grad():
            z = self.logits.double() if task == "cross_entropy" else self.hidden.double() @ self.weight.double().mT
            parts = [torch.empty_like(z) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, z.contiguous())
            return F.cross_entropy(torch.cat(parts, 1), self.index)

    def losses(self, task: str) -> dict[str, Callable[[], Tensor]]:
        world, by_class = dist.group.WORLD, [Shard(1)]

        def of_scores() -> Tensor:
            return M.cross_entropy(self.logits, self.index, group=world)

        def of_hidden() -> Tensor:
            return M.linear_cross_entropy(self.hidden, self.weight, self.index, group=world)

        def torchs_of_scores() -> Tensor:
            logits = DTensor.from_local(self.logits, self.mesh, by_class, run_check=False)
            return F.cross_entropy(logits, self.index).to_local()

        def torchs_of_hidden() -> Tensor:
            hidden = DTensor.from_local(self.hidden, self.mesh, [Replicate()], run_check=False)
            weight = DTensor.from_local(self.weight, self.mesh, [Shard(0)], run_check=False)
            return F.cross_entropy(hidden @ weight.mT, self.index).to_local()

        def alone() -> Tensor:
            if task == "cross_entropy":
                return M.cross_entropy(self.logits, self.index)
            return M.linear_cross_entropy(self.hidden, self.weight, self.index)

        found = {OURS: of_scores, TORCHS: torchs_of_scores}
        if task == "linear_cross_entropy":
            found = {OURS: of_hidden, TORCHS: torchs_of_hidden}
        if dist.get_world_size() == 1:
            found[ALONE] = alone
        return found

    def step(self, loss: Callable[[], Tensor]) -> Program:
        def run() -> None:
            with loss_parallel():  # which backward needs, too; ours does not look at it
                loss().backward()
            self.hidden.grad = self.logits.grad = self.weight.grad = None

        return run


def usual(x: Tensor, index: Tensor) -> Tensor:
    """Cross entropy of rows whose classes are spread, by the maximum and the sum of all exponentials.

    Writes its gradient, p less 1 at the label, too, as the libraries do that sum so.
    """
    most, here = x.detach().amax(1, keepdim=True), index // x.shape[1] == dist.get_rank()
    dist.all_reduce(most, dist.ReduceOp.MAX)
    z = x.detach() - most
    own = torch.where(here, z.gather(1, index.unsqueeze(1) % x.shape[1]).squeeze(1), 0)
    total = z.exp().sum(1)
    dist.all_reduce(total)
    dist.all_reduce(own)
    x.grad = z.exp() / total.unsqueeze(1)
    x.grad[here, index[here] % x.shape[1]] -= 1
    return total.log() - own


# -- measuring, in each process


def timed(rank: int, scale: str, seconds: float) -> list[tuple[str, str, list[float], list[float]]]:
    """The seconds of each turn, on the clock and of this process's threads, by task and program."""
    inputs, found = Inputs(scale), []
    for task in TASKS:
        losses, exact = inputs.losses(task), inputs.whole(task)
        with loss_parallel():
            for loss in losses.values():
                torch.testing.assert_close(loss().detach().double(), exact, rtol=1e-5, atol=0)
        turns = take_turns({name: inputs.step(loss) for name, loss in losses.items()}, seconds)
        found += [(task, name, *turn) for name, turn in turns.items()]
    return found


def take_turns(programs: dict[str, Program], seconds: float) -> dict[str, tuple[list[float], list[float]]]:
    """All processes in the same random order, until the first says that the time is up."""
    for run in programs.values():
        run()
    turns: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in programs}
    shuffled, deadline, go_on = random.Random(0), time.perf_counter() + seconds, torch.ones(())
    while go_on:
        for name in shuffled.sample(list(programs), len(programs)):
            dist.barrier()
            clock, cpu = time.perf_counter(), time.process_time()
            programs[name]()
            for taken, since, now in zip(
                turns[name], (clock, cpu), (time.perf_counter(), time.process_time()), strict=True
            ):
                taken.append(now - since)
        go_on.fill_(time.perf_counter() < deadline or len(turns[name][0]) < LEAST_TURNS)
        dist.broadcast(go_on, 0)
    return turns


def sure(rank: int, margin: float) -> list[Sure]:
    """Of a row whose first class leads all others by ``margin``."""
    size, classes = dist.get_world_size(), 4
    index, mesh = torch.tensor([0]), init_device_mesh("cpu", (size,))

    def torchs(x: Tensor, index: Tensor) -> Tensor:
        logits = DTensor.from_local(x, mesh, [Shard(1)], run_check=False)
        return F.cross_entropy(logits, index, reduction="none").to_local()

    def ours(x: Tensor, index: Tensor) -> Tensor:
        return M.cross_entropy(x, index, reduction="none", group=dist.group.WORLD)

    others = (size * classes - 1) * math.exp(-margin)
    exact = math.log1p(others), -others / (1 + others)  # the loss, and p − 1
    found = []
    for name, loss in {OURS: ours, TORCHS: torchs, USUAL: usual}.items():
        x = torch.zeros(1, classes)
        if rank == 0:
            x[0, 0] = margin
        x.requires_grad_()
        with loss_parallel():
            value = loss(x, index)
            if value.requires_grad:
                value.sum().backward()
        pairs = zip((value.item(), x.grad[0, 0].item()), exact, strict=True)
        found.append(Sure(name, margin, *(abs(u / v - 1) / torch.finfo(torch.float32).eps for u, v in pairs)))
    return found


def on_processes(function: Callable[..., Any], size: int, *args: Any) -> list[Any]:
    """What ``function(rank, *args)`` returns in each of ``size`` processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed.tensor.parallel", "manual_grad.functional"])
    with tempfile.TemporaryDirectory() as folder, context.Pool(size) as pool:
        store = str(Path(folder) / "store")
        return pool.starmap(_work, [(function, rank, size, store, args) for rank in range(size)], 1)


def _work(function: Callable[..., Any], rank: int, size: int, store: str, args: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    where = dict(store=dist.FileStore(store, size), rank=rank, world_size=size)
    dist.init_process_group("gloo", timeout=timedelta(seconds=300), **where)
    try:
        found = function(rank, *args)
        dist.barrier()  # nobody leaves while others still need it
        return found
    finally:
        dist.destroy_process_group()


def measure(size: int, scale: str, seconds: float) -> list[Row]:
    everywhere = on_processes(timed, size, scale, seconds)
    rows = []
    for of_each in zip(*everywhere, strict=True):
        (task, program, *_), *_ = of_each
        clock = [max(turn) for turn in zip(*(found[2] for found in of_each), strict=True)]
        cpu = [sum(turn) for turn in zip(*(found[3] for found in of_each), strict=True)]
        rows.append(Row(task, program, size, statistics.median(clock), statistics.median(cpu)))
    return rows


# -- computing what many GPUs need

GPUS_OF_NODE = 8  # https://docs.nvidia.com/dgx/dgxh100-user-guide: a node of H100 or H200
# https://www.nvidia.com/en-us/data-center/h200: 900 GB/s for both directions, 4.8 TB/s, 1979 TFLOPS of bfloat16 with
# sparsity, so half of that without
NVLINK = 450e9  # bytes a second, each way
HBM = 4.8e12  # bytes a second
PRODUCTS = 989e12  # floating-point operations a second, bfloat16
# DGX H100/H200 datasheet: a ConnectX-7 of 400 Gb/s for each GPU
INFINIBAND = 50e9  # bytes a second, each way
# NCCL's model of itself, src/graph/tuning.cc at 01afd20, for a tree and the protocol LL128: seconds of any call, of a
# step over NVLink and of one over the network. LL has half of these; sums in the switches need fewer steps.
CALL, NVLINK_STEP, NETWORK_STEP = 4.4e-6, 1.2e-6, 8.5e-6

ROWS, VOCABULARY, FEATURES = 8192, 128_256, 4096
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)


def all_reduce_seconds(gpus: int, size: int) -> float:
    """Of ``size`` bytes: α for each step and β for each byte, along a chain in each node and a tree between nodes.

    In a node each GPU sends 2 (g − 1) / g of the bytes over NVLink; between nodes, where every GPU has a g-th of them,
    2 (n − 1) / n of that.
    """
    g = min(gpus, GPUS_OF_NODE)
    n = gpus // g
    steps = 2 * (g - 1) * NVLINK_STEP + 2 * math.log2(n) * NETWORK_STEP
    return CALL + steps + 2 * (g - 1) / g * size / NVLINK + 2 * (n - 1) / n * size / g / INFINIBAND


def computed(gpus: int) -> tuple[float, float, float, float]:
    """Seconds of the maximum, of the sum, of a sweep over the bfloat16 scores here, and of the four products."""
    classes = VOCABULARY / gpus
    most = all_reduce_seconds(gpus, 8 * ROWS + 8 * gpus)  # each writes its number of classes beside
    total = all_reduce_seconds(gpus, 8 * lanes() * ROWS)
    return most, total, 2 * ROWS * classes / HBM, 4 * 2 * ROWS * classes * FEATURES / PRODUCTS


# -- tables


def table(rows: Sequence[Row], digits: Sequence[Sure], machine: dict[str, str]) -> str:
    return "\n\n".join([measured(rows), of_sure(digits), of_messages(), of_gpus(), report.described(machine)])


def summary(rows: Sequence[Row], digits: Sequence[Sure], machine: dict[str, str]) -> str:
    """The paragraph of the README."""

    def of(task: str, program: str) -> str:
        return ", ".join(f"{r.cpu_seconds * 1e3:.0f}" for r in rows if (r.task, r.program) == (task, program))

    sizes = ", ".join(str(size) for size in sorted({row.processes for row in rows}))
    times = "; ".join(f"`{task}` {of(task, OURS)} ms (`{TORCHS}` {of(task, TORCHS)})" for task in TASKS)
    count, _, classes = SCALE["large"]
    errors = {d.program: _eps(d.value) for d in digits}
    most, total, sweep, products = (u * 1e6 for u in computed(GPUS_OF_NODE))
    return (
        f"Measured on {sizes} processes, each with {count} rows and {classes:,} classes, forward and backward, CPU "
        f"time of all together: {times}. The loss of a row that is sure by {digits[0].margin:g} is off by "
        f"{errors[OURS]} eps, that of `{TORCHS}` and that by the usual maximum and sum by {errors[TORCHS]}, where no "
        f"digit is correct. Computed, not measured, for {GPUS_OF_NODE} H200s, {ROWS:,} rows and a vocabulary of "
        f"{VOCABULARY:,}: {most + total:.0f} µs of messages, beside {3 * sweep:.0f} µs of memory traffic from scores, "
        f"or {products:,.0f} µs of products from hidden states. {report.described(machine)}"
    )


def measured(rows: Sequence[Row]) -> str:
    by_task: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        by_task.setdefault((row.task, row.program), {})[row.processes] = row
    sizes = sorted({row.processes for row in rows})
    lines = [("task", "program", *(f"{size}: clock, CPU" for size in sizes)), ("---", "---", *("---:" for _ in sizes))]
    for (task, program), found in by_task.items():
        cells = (found.get(size) for size in sizes)
        shown = (f"{c.seconds * 1e3:.1f}, {c.cpu_seconds * 1e3:.1f} ms" if c else "–" for c in cells)
        lines.append((task, program, *shown))
    return "Forward and backward by number of processes, CPU of all together.\n\n" + report.grid(lines)


def of_sure(digits: Sequence[Sure]) -> str:
    lines = [("program", "margin", "loss", "gradient"), ("---", "---:", "---:", "---:")]
    lines += [(d.program, f"{d.margin:g}", _eps(d.value), _eps(d.gradient)) for d in digits]
    return "Errors of a sure row, in eps of float32; at 8.4e6 no digit is correct.\n\n" + report.grid(lines)


def _eps(error: float) -> str:
    return f"{error:.1e}".replace("e+0", "e") if error >= 1000 else f"{error:.2g}"


def of_messages() -> str:
    options = {"plain": {}, "weights of classes": {"weight": True}, "smoothing or probabilities": {"per_class": True},
               "smoothing and weights": {"per_class": True, "weight": True}}  # fmt: skip
    lines = [("options", "numbers added up", "bytes a row"), ("---", "---:", "---:")]
    lines += [(name, str(lanes(**how)), str(bytes_per_row(**how))) for name, how in options.items()]
    return "What the two messages have for each row, whatever the number of classes.\n\n" + report.grid(lines)


def of_gpus() -> str:
    head = ("GPUs", "classes each", "maximum", "sum", "sweep", "four products", "messages / three sweeps", "/ products")
    lines = [head, ("---:",) * len(head)]
    for gpus in GPUS:
        most, total, sweep, products = computed(gpus)
        shown = (f"{report.digits(u * 1e6)} µs" for u in (most, total, sweep, products))
        ratios = (report.digits((most + total) / least) for least in (3 * sweep, products))
        lines.append((f"{gpus}", f"{VOCABULARY / gpus:,.0f}", *shown, *ratios))
    return (
        f"Computed, not measured: {ROWS:,} rows and a vocabulary of {VOCABULARY:,} on H200s, by datasheets and NCCL's "
        "model of its latencies. A sweep reads a GPU's bfloat16 scores once; from scores, forward and backward need "
        f"three. From hidden states of {FEATURES:,} features they need four products.\n\n" + report.grid(lines)
    )


def read_json(file: Path) -> tuple[list[Row], list[Sure], dict[str, str]]:
    saved = json.loads(file.read_text(encoding="utf-8"))
    return [Row(**row) for row in saved["rows"]], [Sure(**row) for row in saved["sure"]], saved["machine"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharded", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small inputs, at most 2 processes")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each task and number of processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to a file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the results of a file instead of measuring")
    args = parser.parse_args(arguments)
    if args.table:
        print(table(*read_json(args.table)))
        return 0
    rows: list[Row] = []
    for size in SIZES[:2] if args.quick else SIZES:
        print(f"{size} processes", file=sys.stderr, flush=True)
        rows += measure(size, "small" if args.quick else "large", 0.0 if args.quick else args.seconds)
    digits, *_ = on_processes(sure, 2, 20.0)
    machine = {**report.machine(), "threads": "1 of each process"}
    if args.json:
        saved = {"machine": machine, "rows": [asdict(row) for row in rows], "sure": [asdict(row) for row in digits]}
        args.json.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    print(table(rows, digits, machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
