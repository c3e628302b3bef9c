"""``python -m benchmarks``: time the losses of manual_grad."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks import cuda, report
from benchmarks.cases import CASES, SIZES
from benchmarks.timing import Result, measure, merge

LOSSES = tuple(dict.fromkeys(case.loss for case in CASES))
QUICK = 0.2  # seconds
ROOT = Path(__file__).parents[1]


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
    if args.runs > 1:
        results, machine = _in_fresh_processes(args.runs, sys.argv[1:] if argv is None else argv)
        return _report(results, machine, args.json, args.plot)
    sizes = args.size or (("medium", "small") if args.quick else SIZES)
    sections = [(size, g) for size in sizes for g in ((1.0, 0.5) if args.grad_output and size == "large" else (1.0,))]
    seconds = QUICK if args.quick else args.seconds
    cases = [case for case in CASES if case.loss in (args.losses or LOSSES)]

    machine = report.machine()
    for name, value in machine.items():
        print(f"{name:11} {value}")
    results = []
    for size, upstream in sections:
        section = []
        with _progress(size, len(cases)) as begin:
            for case in cases:
                begin(case.name)
                section.append(measure(case, size, upstream, seconds, compiled=not args.quick))
        print("\n" + report.plain(section), flush=True)
        results += section
    return _report(results, machine, args.json, args.plot)


def _in_fresh_processes(count: int, argv: Sequence[str]) -> tuple[list[Result], dict[str, str]]:
    """Run the same command several times, one run after the other, and merge the results."""
    runs: list[list[Result]] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(count):
            print(f"\nrun {run + 1} of {count}", flush=True)
            file = Path(folder, f"{run}.json")
            once = [*argv, "--runs", "1", "--json", str(file)]  # the last of an option counts
            subprocess.run([sys.executable, "-m", "benchmarks", *once], cwd=ROOT)
            results, machine = report.read_json(file)
            runs.append(results)
    merged = merge(runs)
    for section in report.sections(merged).values():
        print("\n" + report.plain(section), flush=True)
    return merged, machine | {"runs": str(count)}


def _report(results: list[Result], machine: dict[str, str], table: Path | None, plot: Path | None) -> int:
    print("\n" + textwrap.fill(report.NOTE + " Quartiles are in brackets.", width=120))
    if table:
        report.write_json(results, machine, table)
    if plot and any(not r.red for r in results):
        report.plot(results, machine, plot)
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


@contextmanager
def _progress(size: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show progress: a live line if the output is a terminal and rich is installed, else one line per loss."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda name: print(f"{size}: {name}", file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.progress import Progress

    # without auto_refresh, whose thread would draw while something is being timed
    with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)
        begun = iter(range(total))
        yield lambda name: bar.update(task, completed=next(begun), description=f"{size}: {name}", refresh=True)


if __name__ == "__main__":
    sys.exit(main())
