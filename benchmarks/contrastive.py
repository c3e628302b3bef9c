"""``python -m benchmarks.contrastive``: losses of all pairs, in tiles, beside the dense computation in torch ops.

Every program runs forward and backward in float32. Memory is the peak beyond inputs and gradients, measured in a
process of its own. The four products are those that a loss cannot avoid without storing the scores. Of the ring, the
CPU time is that of all processes together, each with one thread, and the memory that of the one which needs most.
``--large`` is for minutes, with as many vectors as people train with. ``--json FILE`` also writes the results;
``--table FILE`` prints those of a file.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

import manual_grad.functional as M
from benchmarks import report
from benchmarks.scaling.memory import measurable, reset_peak, resident_peak

OURS, DENSE, PRODUCTS = "manual_grad", "dense", "the four products"
SIZES = {"quick": (64, 8), "usual": (4096, 512), "large": (65536, 512)}  # vectors of each kind, features
RING = {"quick": 64, "usual": 8192}
PROCESSES = (1, 2, 4)
HEAD = ("task", "vectors", "program", "time", "CPU time", "memory")

Program = Callable[[Tensor, Tensor, Tensor], Any]


def labels(x: Tensor) -> Tensor:
    return torch.arange(len(x)) % max(2, len(x) // 8)


def towards_own(z: Tensor) -> Tensor:
    return F.cross_entropy(z, torch.arange(len(z)))


def dense_clip(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    z = t * x @ y.mT
    return (towards_own(z) + towards_own(z.mT)) / 2


def dense_views(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    f = torch.cat([x, y])
    z = (t * f @ f.mT).masked_fill(torch.eye(len(f), dtype=torch.bool), -math.inf)
    return F.cross_entropy(z, torch.arange(len(f)).roll(len(x)))


def dense_labels(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    own = torch.eye(len(x), dtype=torch.bool)
    same = (labels(x).unsqueeze(1) == labels(x)) & ~own
    log_p = (t * x @ x.mT).masked_fill(own, -math.inf).log_softmax(1)
    return (-torch.where(same, log_p, 0).sum(1) / same.sum(1).clamp_min(1)).mean()


def dense_sigmoid(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return -F.logsigmoid((2 * torch.eye(len(x)) - 1) * (t * x @ y.mT - t)).sum() / len(x)


def products(x: Tensor, y: Tensor, t: Tensor) -> None:
    """Only the products, in blocks of rows: the scores, twice, and the gradients of both."""
    with torch.no_grad():
        total = torch.zeros_like(y)
        for rows in x.split(1024):
            for _ in range(2):
                z = rows @ y.mT
            torch.mm(z, y), total.addmm_(z.mT, rows)


TASKS: dict[str, dict[str, Program]] = {
    "info_nce_loss": {
        OURS: lambda x, y, t: M.info_nce_loss(x, y, 1 / t),
        DENSE: lambda x, y, t: towards_own(t * x @ y.mT),
    },
    "clip_loss": {OURS: M.clip_loss, DENSE: dense_clip, PRODUCTS: products},
    "nt_xent_loss": {OURS: lambda x, y, t: M.nt_xent_loss(x, y, 1 / t), DENSE: dense_views},
    "supervised_contrastive_loss": {
        OURS: lambda x, y, t: M.supervised_contrastive_loss(x, labels(x), 1 / t),
        DENSE: dense_labels,
    },
    "siglip_loss": {OURS: lambda x, y, t: M.siglip_loss(x, y, t, -t), DENSE: dense_sigmoid},
}


@dataclass(frozen=True)
class Row:
    task: str
    vectors: int
    program: str
    seconds: float
    cpu: float
    bytes: int | None  # the peak beyond inputs and gradients; None where it cannot be measured


def inputs(count: int, features: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x, y = (F.normalize(torch.randn(count, features, generator=draw), dim=1).requires_grad_() for _ in range(2))
    return x, y, torch.tensor(20.0, requires_grad=True)


def step(program: Program, given: Sequence[Tensor]) -> float:
    """Forward and backward; returns the loss."""
    loss = program(*given)
    if loss is None:
        return 0.0
    loss.backward()
    for x in given:
        x.grad = None
    return loss.item()


def measure(task: str, program: str, size: str, threads: int) -> Row:
    torch.set_num_threads(threads)
    run, (count, features) = TASKS[task][program], SIZES[size]
    if task == "nt_xent_loss" and size == "large":
        count //= 2  # there are two views
    given = inputs(count, features)
    step(run, [x[:1100].detach().requires_grad_() if x.dim() else x for x in given])  # loads code and starts threads
    return Row(task, count, program, *measured(lambda: step(run, given), given))


def measured(run: Callable[[], float], given: Sequence[Tensor]) -> tuple[float, float, int | None]:
    ctypes.CDLL(None).malloc_trim(0)
    before = reset_peak() if measurable() else 0
    start, cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resident_peak() - before - sum(x.nbytes for x in given if x.dim()) if measurable() else None
    return seconds, cpu, None if peak is None else max(0, peak)


def of_ring(rank: int, processes: int, count: int, features: int, store: str, results: Any) -> None:
    """One process of a ring, with its share of the rows."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, processes), rank=rank, world_size=processes)
    x, y, t = inputs(count, features)
    given = [*(u.detach().tensor_split(processes)[rank].clone().requires_grad_() for u in (x, y)), t]
    del x, y

    def program(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return M.clip_loss(x, y, t, group=dist.group.WORLD)

    step(program, [u[:16].detach().requires_grad_() if u.dim() else u for u in given])
    dist.barrier()
    results.put(measured(lambda: step(program, given), given))
    dist.barrier()
    dist.destroy_process_group()


def server() -> Any:
    """Processes are forked from one that has imported everything and started no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.contrastive"])
    return context


def ring(processes: int, size: str) -> Row:
    context, count = server(), RING[size]
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        shared = processes, count, SIZES[size][1], store, results
        running = [context.Process(target=of_ring, args=(rank, *shared)) for rank in range(processes)]
        for process in running:
            process.start()
        found = [results.get(timeout=600) for _ in running]
        for process in running:
            process.join()
    seconds, cpu, peaks = zip(*found, strict=True)
    most = None if None in peaks else max(peaks)
    return Row("clip_loss", count, f"ring of {processes}", max(seconds), sum(cpu), most)


def table(rows: Sequence[Row], machine: dict[str, str]) -> str:
    lines = [HEAD, ("---", "---:", "---", *("---:" for _ in HEAD[3:]))]
    for row in rows:
        memory = "–" if row.bytes is None else f"{row.bytes / 1e6:.0f} MB"
        lines.append((row.task, f"{row.vectors:,}", row.program, f"{row.seconds:.2f} s", f"{row.cpu:.2f} s", memory))
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", report.described(machine)])


def read_json(file: Path) -> tuple[list[Row], dict[str, str]]:
    saved = json.loads(file.read_text(encoding="utf-8"))
    return [Row(**row) for row in saved["rows"]], saved["machine"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contrastive", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few vectors")
    parser.add_argument("--large", action="store_true", help=f"also {SIZES['large'][0]:,} vectors: minutes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, outside the ring")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to a file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the results of a file instead of measuring")
    args = parser.parse_args(arguments)
    if args.table:
        print(table(*read_json(args.table)))
        return 0
    size = "quick" if args.quick else "usual"
    context = server()
    jobs = [(task, program, size, args.threads) for task, programs in TASKS.items() for program in programs]
    jobs += [(task, OURS, "large", args.threads) for task in TASKS if args.large]
    rows = []
    with context.Pool(1, maxtasksperchild=1) as pool:
        for job in jobs:
            print(*job[:3], file=sys.stderr, flush=True)
            rows.append(pool.apply(measure, job))
    for processes in PROCESSES:
        print("ring of", processes, file=sys.stderr, flush=True)
        rows.append(ring(processes, size))
    machine = report.machine()
    if args.json:
        saved = {"machine": machine, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    print(table(rows, machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
