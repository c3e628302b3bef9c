"""``python -m benchmarks.bounds``: measure, and print the table as Markdown."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.bounds import costs
from benchmarks.bounds.costs import Cost, Costs
from benchmarks.bounds.trace import Unsupported
from benchmarks.cases import CASES, Case
from benchmarks.report import digits
from benchmarks.scaling.questions import Red

IN_BFLOAT16 = (
    "l1_loss",
    "mse_loss",
    "gaussian_nll_loss",
    "poisson_nll_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
    "soft_margin_loss",
    "cross_entropy, class indices",
)
HEAD = ("loss", "instructions", "vector", "divisions", "stack", "cycles by ports", "cycles", "ns")
NOTE = (
    "Per element, on one thread, with all data in the cache: instructions executed; of which calculate with vectors; "
    "of which divide or take roots; vectors written to the stack and read from it; the least cycles in which the "
    "processor's ports issue these instructions; the cycles and nanoseconds measured. Not covered: "
    "linear_cross_entropy, most of whose work is torch's matrix products."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0; 1 if a loss is wrong or instructions cannot be counted here; 2 for bad usage."""
    covered = [case for case in CASES if costs.covered(case)]
    losses = tuple(dict.fromkeys(case.loss for case in covered))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bounds",
        description="Count the instructions of each kernel, and measure its cycles beside those that its ports need.",
    )
    parser.add_argument("losses", nargs="*", metavar="LOSS", help=f"one of {', '.join(losses)}; all by default")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to measure each row (%(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, machine-readable")
    args = parser.parse_args(argv)
    for name in args.losses:
        if name not in losses:
            parser.error(f"no loss named {name!r}; there are: {', '.join(losses)}")
    if args.json and not args.json.parent.is_dir():
        parser.error(f"{args.json}: no such folder")

    rows = [(case, torch.float32) for case in covered]
    rows += [(case, torch.bfloat16) for case in covered if case.name in IN_BFLOAT16]
    try:
        found = measure([row for row in rows if not args.losses or row[0].loss in args.losses], args.seconds)
    except (Unsupported, Red) as reason:
        print(reason, file=sys.stderr)
        return 1
    if args.json:
        costs.write_json(found, args.json)
    print(markdown(found))
    return 0


def measure(rows: Sequence[tuple[Case, torch.dtype]], seconds: float) -> Costs:
    measured = []
    for case, dtype in rows:
        print(f"{case.name}, {str(dtype).removeprefix('torch.')}", file=sys.stderr, flush=True)
        measured.append(costs.measure(case, dtype, seconds))
    clock = statistics.median(cost.clock for cost in measured)
    machine = {**report.machine(), "processor": costs.processor(), "clock": f"{clock:.2f} GHz"}
    return Costs(machine, costs.faults(seconds), measured)


def markdown(found: Costs) -> str:
    lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), *(row(cost) for cost in found.costs)]
    faults = f"A byte of new memory costs {digits(found.faults)} ns, on one thread, besides being written."
    return "\n\n".join([report.described(found.machine), report.grid(lines), f"{NOTE} {faults}"])


def row(cost: Cost) -> tuple[str, ...]:
    ports = "–" if cost.ports is None else digits(cost.ports)
    counts = (cost.instructions, cost.vector, cost.divisions, cost.stack)
    return (cost.name, *map(digits, counts), ports, digits(cost.cycles), digits(cost.nanoseconds))


if __name__ == "__main__":
    sys.exit(main())
