"""``python -m manual_grad``: the losses, their derivations and plots, from the terminal."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from gradcheck import terminal
from manual_grad import catalogue, kernels, show_config
from manual_grad.study import explain, texts
from manual_grad.study.chapters import chapter


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0, or 1 if something is not installed. Bad usage exits with 2."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command != "plot":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if args.command == "plot":
            loss = catalogue.find(args.loss).name
            return _plot(loss, args.output or Path(f"{loss}.png"), _parameters(rest))
        if args.command == "explain":
            _explain(args.name)
        elif args.command == "list":
            _list()
        else:
            print(show_config())
    except ValueError as error:
        parser.error(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m manual_grad", description="The losses and guides, for reading.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="every loss by family, and whether it has kernels here")
    command = commands.add_parser("explain", help="the derivation of a loss, or a guide")
    command.add_argument("name", metavar="NAME", help="a loss, such as cross_entropy or BCELoss; or a guide: numerics")
    command = commands.add_parser(
        "plot",
        help="draw value, gradient and curvature of a loss",
        usage="%(prog)s LOSS [-o FILE] [--PARAMETER VALUE ...]",
        description="Draw value, gradient and curvature of a loss into a file.",
        epilog="Parameters depend on the loss, such as --delta 0.5; a wrong name lists the valid ones.",
    )
    command.add_argument("loss", metavar="LOSS", help="its name, such as huber_loss or HuberLoss")
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help=".png, .svg or .pdf; LOSS.png by default")
    commands.add_parser("config", help="versions, and the kernels in use")
    return parser


def _list() -> None:
    head = f"{'loss':{max(map(len, catalogue.BY_NAME))}}  CPU  CUDA  "
    rows = [(f"{head}what it is", "bold")]
    for family in catalogue.FAMILIES:
        rows += [("", ""), (family, "bold")]
        for loss in catalogue.of_family(family):
            served = loss.kernels()
            cpu, cuda = ("yes" if any(kernels.available(k, d) for k in served) else "no" for d in ("cpu", "cuda"))
            start = f"{loss.name.ljust(head.index('  CPU'))}  {cpu:3}  {cuda:4}  "
            title = chapter(loss.name).title.rstrip(".")
            width = max(terminal.columns(), len(head) + 20)
            rows.append((textwrap.fill(start + title, width, subsequent_indent=" " * len(head)), ""))
    rows += [
        ("", ""),
        ("guides", "bold"),
        *((f"{topic:{head.index('  CPU')}}  {texts.title(topic)}", "") for topic in texts.topics()),
    ]
    rows += [
        ("", ""),
        ("CPU, CUDA: whether a kernel is available here; see python -m manual_grad config.", ""),
    ]
    console = terminal.console()
    for row, style in rows:
        if console is None:
            print(row)
        else:
            console.print(row, style=style, markup=False, soft_wrap=True)


def _explain(name: str) -> None:
    width = terminal.columns()
    console = terminal.console(width)
    topics = texts.topics()
    if name in topics:
        guide = texts.guide(name)
        print(explain.markdown(guide, width)) if console is None else explain.show_guide(guide, console)
        return
    try:
        text = chapter(catalogue.find(name).name)
    except ValueError as error:
        raise ValueError(f"{error}; and the guides: {', '.join(topics)}") from None
    print(explain.plain(text, width)) if console is None else explain.show(text, console)


def _plot(loss: str, path: Path, params: dict[str, float]) -> int:
    try:
        from manual_grad.study.plot import plot

        plot(loss, path, **params)
    except ImportError as error:
        print(f"plot needs {error.name}: pip install 'manual_grad[study]'", file=sys.stderr)
        return 1
    except (OSError, RuntimeError) as error:  # a file that cannot be written, or a parameter that the loss rejects
        raise ValueError(error) from error
    print(path)
    return 0


def _parameters(arguments: Sequence[str]) -> dict[str, float]:
    """Parse --delta 0.5 or --delta=0.5."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    found = {}
    for name, value in zip_longest(words[::2], words[1::2], fillvalue=""):
        try:
            found[name.removeprefix("--").replace("-", "_")] = float(value)
        except ValueError:
            raise ValueError(f"expected a parameter as --NAME NUMBER, but got {name} {value}".rstrip()) from None
    return found


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # shows ? where the encoding lacks ∂
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head or less, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
