"""Runs of the benchmarks: once, or in several fresh processes."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from benchmarks import report
from benchmarks.cases import CASES, SIZES
from benchmarks.timing import Result, measure, merge

QUICK = 0.2  # seconds


def once(args: argparse.Namespace) -> list[Result]:
    """Measure everything once, and print the table of each section."""
    sizes = args.size or (("medium", "small") if args.quick else SIZES)
    sections = [(size, g) for size in sizes for g in ((1.0, 0.5) if args.grad_output and size == "large" else (1.0,))]
    seconds = QUICK if args.quick else args.seconds
    cases = [case for case in CASES if not args.losses or case.loss in args.losses]

    results = []
    for size, upstream in sections:
        section = []
        with _progress(size, len(cases)) as begin:
            for case in cases:
                begin(case.name)
                section.append(measure(case, size, upstream, seconds, compiled=not args.quick))
        print("\n" + report.plain(section), flush=True)
        results += section
    return results


def in_fresh_processes(args: argparse.Namespace) -> list[Result]:
    """Measure everything in one new process after the other, merge the results, and print their tables."""
    runs, spawn, threads = [], multiprocessing.get_context("spawn"), (torch.get_num_threads(),)
    for run in range(args.runs):
        print(f"\nrun {run + 1} of {args.runs}", flush=True)
        with ProcessPoolExecutor(1, spawn, initializer=torch.set_num_threads, initargs=threads) as fresh:
            runs.append(fresh.submit(once, args).result())
    merged = merge(runs)
    for section in report.sections(merged).values():
        print("\n" + report.plain(section), flush=True)
    return merged


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
