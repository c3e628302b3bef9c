"""``python -m gradcheck``: audit the functions of every installed package that brings specs, or one that is named."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gradcheck import api, html, report, sharded, sources, target, terminal
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
    if args.under:
        given = sys.argv[1:] if argv is None else argv
        return under(parser, args.under, without(given, "--under"))
    if args.watch:
        return watch([a for a in (sys.argv[1:] if argv is None else argv) if a != "--watch"], args.losses)
    if any(map(target.is_target, args.losses)):
        return _of_ones_own(parser, args)
    for option in ("like", "regime", "call", "definition", "promise", "params", "module", "shard"):
        if getattr(args, option):
            parser.error(f"--{option} describes a function of your own, named as file.py:Name or package.module:Name")
    for text in args.losses:
        if text.endswith(".py"):
            parser.error(f"{text}: which function in it? For example {text}:Name")
    try:
        losses = tuple(dict.fromkeys(map(sources.find, args.losses))) or sources.names()
    except ValueError as error:
        parser.error(str(error))
    checks = _checks(parser, args)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: there is no CUDA device here; what needs none runs on the CPU", file=sys.stderr)
        args.device = "cpu"
    for path in filter(None, (args.json, args.html)):
        if not path.parent.is_dir():
            parser.error(f"{path}: no such folder")
    dtypes = tuple(DTYPES[name] for name in args.dtype or DTYPES)
    settings = Settings(args.device, dtypes, args.quick, args.seed, args.inductor)
    progress = _progress(losses, checks)
    jobs = min(args.jobs, len(losses))
    if jobs > 1:
        found = audit_in_processes(losses, checks, settings, progress, jobs, fresh)
    else:
        with progress as listen:
            found = audit([sources.load(name) for name in losses], checks, settings, listen)
    return _finish(found, args)


def _finish(found: Report, args: argparse.Namespace) -> int:
    _show(found)
    if args.json:
        report.write_json(found, args.json)
    if args.html:
        args.html.write_text(html.page(found), encoding="utf-8")
    return 130 if found.interrupted else int(not found.ok)


def _checks(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[str, ...]:
    for name in args.check or ():
        if name not in CHECKS:
            parser.error(f"no check named {name!r}; there are: {', '.join(CHECKS)}")
    return tuple(args.check or CHECKS)


def _of_ones_own(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """A function that is named by its place, without a spec."""
    if len(args.losses) > 1:
        parser.error("one function of your own at a time")
    (text,) = args.losses
    checks = _checks(parser, args)
    try:
        module, value = target.load(text)
        definition, wrapper = (_beside(text, module, option, args) for option in ("definition", "module"))
        if args.call:
            found = target.recorded(text, args.call)
        elif args.like and args.like.startswith(":"):
            found = target.made(value, _maker(module, args.like, "--like"))
        elif args.like:
            found = target.described(value, args.like)
        else:
            names = target.argument_names(value) or ["x"]
            shapes = "; ".join(f"{name}: 3 4" for name in names)
            raise ValueError(f'{text}: what are its inputs like? For example --like "{shapes}"')
        regimes = dict(_regime(module, value, text) for text in args.regime or ())
        names = tuple(args.dtype or ("float64", "float32"))
        settings = Settings(args.device, tuple(DTYPES[n] for n in names), args.quick, args.seed, args.inductor)
        promises, name = tuple(args.promise or ()), text.rpartition(":")[2]
        if args.shard:
            return _finish(_sharded(text, definition, found, args), args)
        with _progress((name,), checks) as listen:
            made = api.check(
                found.fn, definition, found.inputs, domain=found.domain, regimes=regimes, order=args.order,
                promises=promises, params=target.params(args.params or ""),
                modules=[wrapper] if wrapper else (), checks=checks, settings=settings, name=name, listen=listen,
            )  # fmt: skip
    except (ValueError, AttributeError) as error:
        parser.error(str(error))
    return _finish(made, args)


def _maker(module: ModuleType, text: str, option: str) -> Callable[[], Any]:
    """The function that is named as ``:name``."""
    make = getattr(module, text[1:], None)
    if not callable(make):
        raise ValueError(f"{option}: there is no function {text[1:]} in {module.__name__}")
    return make


def _regime(module: ModuleType, value: Any, text: str) -> tuple[str, api.Regime]:
    """What ``name=inputs`` says."""
    name, equals, inputs = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f'--regime: expected NAME=INPUTS, such as "confident=x: [20,30] 3 4", got {text!r}')
    if inputs.startswith(":"):
        return name, _maker(module, inputs, "--regime")
    found = target.described(value, inputs)
    return name, lambda: {k: api.drawn(v, found.domain.get(k)) for k, v in found.inputs.items()}


def _sharded(text: str, definition: Any, found: target.Target, args: argparse.Namespace) -> Report:
    if definition is None:
        raise ValueError("--shard: a definition of the whole is needed, with --definition")
    given = target.params(args.params or "")
    if len(given) > 1:
        raise ValueError("--params: one set of them at a time with --shard")
    dtypes = tuple(DTYPES[n] for n in args.dtype or ("float64",))
    return sharded.check_sharded(
        text, definition, found.inputs, sharded.shards(args.shard), processes=args.processes, domain=found.domain,
        params=given[0], order=args.order, settings=Settings(dtypes=dtypes, seed=args.seed),
    )  # fmt: skip


def _beside(text: str, module: ModuleType, option: str, args: argparse.Namespace) -> Any:
    """What an option names in the module of the target."""
    name = getattr(args, option)
    if name and not hasattr(module, name):
        raise ValueError(f"--{option}: there is no {name} in {text.rpartition(':')[0]}")
    return getattr(module, name) if name else None


SANITIZER = ("compute-sanitizer", "--error-exitcode", "1", "--target-processes", "all")


def under(parser: argparse.ArgumentParser, tool: str, argv: Sequence[str]) -> int:
    """Run the same once more, under a tool that sees what no comparison does."""
    command, environment = [sys.executable, "-m", "gradcheck", *argv], dict(os.environ)
    if tool == "triton-interpreter":
        if importlib.util.find_spec("triton") is None:
            parser.error("--under triton-interpreter: triton is not installed")
        environment["TRITON_INTERPRET"] = "1"
    else:
        if shutil.which(SANITIZER[0]) is None:
            parser.error(f"--under {tool}: there is no {SANITIZER[0]} on the PATH; it comes with the CUDA toolkit")
        if not torch.cuda.is_available():
            parser.error(f"--under {tool}: there is no CUDA device here")
        # of what torch keeps in its own pools it would see no bounds
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        command = [*SANITIZER, *command]
    return subprocess.call(command, env=environment)


def without(argv: Sequence[str], option: str) -> list[str]:
    """The arguments but for an option, and its value."""
    left = list(argv)
    for i, argument in enumerate(argv):
        if argument == option:
            del left[i : i + 2]
        elif argument.startswith(f"{option}="):
            del left[i]
    return left


def watch(argv: Sequence[str], losses: Sequence[str]) -> int:
    """Run again whenever a Python file beside the target, or in this folder, changes; until it is interrupted."""
    places = [Path(text.rpartition(":")[0]) for text in losses if target.is_target(text)]
    folders = {place.parent for place in places if place.suffix == ".py"} or {Path()}

    def state() -> dict[Path, float]:
        return {path: path.stat().st_mtime for folder in folders for path in folder.rglob("*.py")}

    status = 0
    try:
        while True:
            before = state()
            status = subprocess.call([sys.executable, "-m", "gradcheck", *argv])
            print("waiting for a change ...", file=sys.stderr, flush=True)
            while state() == before:
                time.sleep(0.5)
    except KeyboardInterrupt:
        return status


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        """Only help needs the names: to look for them is to import the packages that bring them."""
        self.epilog = f"Functions of installed packages: {', '.join(sources.names()) or 'none'}."
        return super().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m gradcheck",
        description="Check hand-written gradients: value, gradient, second derivative, forward mode, digits.",
    )
    losses = (
        "one of your own, as path/to/file.py:Name or package.module:Name; or any of those that installed packages "
        "bring, listed below: all of them by default"
    )
    parser.add_argument("losses", nargs="*", metavar="FUNCTION", help=losses)
    like = 'shapes of its inputs, "x: 3 4; p: [0,1] 3 4; label: <10 3"; or :name of a function there that makes them'
    parser.add_argument("--like", metavar="INPUTS", help=like)
    hard = 'hard inputs by name, as NAME=INPUTS: "confident=x: [20,30] 3 4", or far=:name of a function'
    parser.add_argument("--regime", action="append", metavar="NAME=INPUTS", help=hard)
    parser.add_argument("--call", metavar="SCRIPT", help="or the inputs of the first call in a script that is run")
    parser.add_argument("--definition", metavar="NAME", help="the same function in torch ops, in the same module")
    parser.add_argument("--module", metavar="NAME", help="a Module that computes it, in the same module")
    options = 'keyword arguments of its calls, or options of the Module: "gamma=2 reduction=sum; gamma=0.5"'
    parser.add_argument("--params", metavar="VALUES", help=options)
    parser.add_argument("--order", type=int, default=1, help="the highest derivative that it has")
    promised = "which of forward, nested, vmap, compile, capture and asynchronous it also promises"
    parser.add_argument("--promise", nargs="+", action="extend", metavar="WHAT", help=promised)
    parts = 'on several processes: the dimension divided among them, or sum: "x: 0; weight: sum; return: 0"'
    parser.add_argument("--shard", metavar="PARTS", help=parts)
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="how many of them; 2 by default")
    parser.add_argument("--watch", action="store_true", help="run again whenever a file changes")
    tools = "run it under compute-sanitizer (needs a device), or Triton's kernels on the CPU in their interpreter"
    parser.add_argument("--under", choices=("compute-sanitizer", "triton-interpreter"), help=tools)
    parser.add_argument("--check", nargs="+", action="extend", metavar="NAME", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", nargs="+", action="extend", choices=DTYPES, help="of the checks oracle and parity")
    parser.add_argument("--quick", action="store_true", help="fewer combinations, no torch.compile")
    parser.add_argument("--inductor", action="store_true", help="also the code of torch.compile, for a minute more")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--jobs", type=int, default=_cores(), help="processes; by default as many as there are cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every result, machine-readable")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page: error by regime, kinks, failures by cause")
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
