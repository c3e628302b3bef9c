"""``python -m gradcheck``: audit the functions of every installed package that brings specs, such as manual_grad."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from gradcheck import html, report, sources, terminal
from gradcheck.checks import CHECKS
from gradcheck.compare import Result
from gradcheck.run import Listener, Report, audit, audit_in_processes
from gradcheck.spec import Settings

DTYPES = {str(d).removeprefix("torch."): d for d in Settings.dtypes}


def main(argv: Sequence[str] | None = None, fresh: bool = False) -> int:
    """The exit status: 0 if everything passed, 1 if something failed, 2 for bad usage, 130 if interrupted.

    ``fresh`` says that this process has done nothing yet, so that others may be forks of it.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        losses = tuple(dict.fromkeys(map(sources.find, args.losses))) or sources.names()
    except ValueError as error:
        parser.error(str(error))
    for name in args.check or ():
        if name not in CHECKS:
            parser.error(f"no check named {name!r}; there are: {', '.join(CHECKS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: there is no CUDA device here; what needs none runs on the CPU", file=sys.stderr)
        args.device = "cpu"
    for path in filter(None, (args.json, args.html)):
        if not path.parent.is_dir():
            parser.error(f"{path}: no such folder")
    dtypes = tuple(DTYPES[name] for name in args.dtype or DTYPES)
    settings = Settings(args.device, dtypes, args.quick, args.seed, args.inductor)
    checks = tuple(args.check or CHECKS)
    progress = _progress(losses, checks)
    jobs = min(args.jobs, len(losses))
    if jobs > 1:
        found = audit_in_processes(losses, checks, settings, progress, jobs, fresh)
    else:
        with progress as listen:
            found = audit([sources.load(name) for name in losses], checks, settings, listen)
    _show(found)
    if args.json:
        report.write_json(found, args.json)
    if args.html:
        args.html.write_text(html.page(found), encoding="utf-8")
    return 130 if found.interrupted else int(not found.ok)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gradcheck",
        description="Audit every hand-written rule: value, gradient, second derivative, forward mode, digits.",
    )
    losses = f"of {', '.join(sources.names())}, or its Module; all by default"
    parser.add_argument("losses", nargs="*", metavar="LOSS", help=losses)
    parser.add_argument("--check", nargs="+", action="extend", metavar="NAME", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", nargs="+", action="extend", choices=DTYPES, help="of the oracle and of parity")
    parser.add_argument("--quick", action="store_true", help="fewer combinations, no torch.compile")
    parser.add_argument("--inductor", action="store_true", help="also the code of torch.compile, for a minute more")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--jobs", type=int, default=_cores(), help="processes; by default as many as there are cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every result, machine-readable")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page, with the error by regime beside torch's")
    return parser


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress(losses: Sequence[str], checks: Sequence[str]) -> Iterator[Listener]:
    """A live bar in a terminal with rich, else a line as each function begins."""
    if terminal.console() is None:

        def tell(loss: str, check: str, result: Result | None) -> None:
            if result is None and check == checks[0]:
                print(f"auditing {loss}", file=sys.stderr, flush=True)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("", total=len(losses) * len(checks))
        counts = {"begun": 0, "compared": 0, "failed": 0}

        def listen(loss: str, check: str, result: Result | None) -> None:
            counts["begun"] += result is None
            counts["compared"] += result is not None
            counts["failed"] += result is not None and not result.ok
            told = f"[red]{counts['failed']} failed[/] " if counts["failed"] else ""
            text = f"{loss} / {check}  {counts['compared']} comparisons {told}"
            bar.update(task, completed=counts["begun"] - 1, description=text)

        yield listen


def _show(found: Report) -> None:
    console = terminal.console()
    if console is None:
        print(report.plain(found))
        return
    from rich.text import Text

    lines = [*report.verdicts(found), *report.table(found, console.width), "", *report.remarks(found)]
    for line in lines:
        text = Text(line)
        text.highlight_regex(r"^WRONG|FAIL( \d+)?", "bold red")
        text.highlight_regex(r"all passed", "bold green")
        console.print(text)
