"""``python -m benchmarks``: time the losses of manual_grad."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import cuda, report, runs
from benchmarks.cases import CASES, SIZES

LOSSES = tuple(dict.fromkeys(case.loss for case in CASES))


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0; 1 if a loss was not timed because it is wrong; 2 for bad usage."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.table:
        print(report.markdown(*report.read_json(args.table)))
        return 0
    for name in args.losses:
        if name not in LOSSES:
            parser.error(f"no loss named {name!r}; there are: {', '.join(LOSSES)}")
    for path in filter(None, (args.json, args.plot)):
        if not path.parent.is_dir():
            parser.error(f"{path}: no such folder")
    if args.device == "cuda":
        return cuda.main(args.losses, args.json, args.quick)
    if args.threads:
        torch.set_num_threads(args.threads)
    machine = report.machine()
    for name, value in machine.items():
        print(f"{name:11} {value}")
    if args.runs > 1:
        results, machine["runs"] = runs.in_fresh_processes(args), str(args.runs)
    else:
        results = runs.once(args)
    print("\n" + textwrap.fill(report.NOTE + " Quartiles are in brackets.", width=120))

    if args.json:
        report.write_json(results, machine, args.json)
    if args.plot and any(not r.red for r in results):
        report.plot(results, machine, args.plot)
    return int(any(r.red for r in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time forward plus backward of each loss against torch eager and torch.compile, in turns.",
    )
    parser.add_argument("losses", nargs="*", metavar="LOSS", help=f"one of {', '.join(LOSSES)}; all by default")
    parser.add_argument("--size", nargs="+", action="extend", choices=SIZES, help="all by default")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads, of torch and of the kernels")
    parser.add_argument("--seconds", type=float, default=4.0, help="time to measure each row (%(default)g)")
    parser.add_argument(
        "--runs", type=int, default=1, metavar="N", help="repeat in N fresh processes and take medians over them"
    )
    parser.add_argument(
        "--grad-output", action="store_true", help="time the large size also with an upstream gradient of 0.5"
    )
    parser.add_argument("--quick", action="store_true", help="a quick run: medium and small, no torch.compile")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda has its own cases, see cuda.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, machine-readable")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the speed-ups as bars")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the results in a JSON file as Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
