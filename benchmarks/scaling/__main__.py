"""``python -m benchmarks.scaling``: ask, and show the answers as Markdown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.scaling import tables
from benchmarks.scaling.questions import FULL, QUESTIONS, QUICK, Red


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 1 if a loss is wrong, or 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description="How time and memory grow, and what a change of dtype or of threads costs.",
    )
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a glance, at smaller sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, machine-readable")
    args = parser.parse_args(argv)
    for question in args.questions:
        if question not in QUESTIONS:
            parser.error(f"no question named {question!r}; there are: {', '.join(QUESTIONS)}")
    if args.json and not args.json.parent.is_dir():
        parser.error(f"{args.json}: no such folder")

    scope = QUICK if args.quick else FULL
    machine, answers = {**report.machine(), "size": scope.size}, {}
    for question in args.questions or QUESTIONS:
        start = time.perf_counter()
        try:
            answers[question] = list(QUESTIONS[question](scope))
        except Red as red:
            print(f"{question}: {red}", file=sys.stderr)
            return 1
        taken = f"{time.perf_counter() - start:.0f} s" if answers[question] else "cannot be measured on this system"
        print(f"{question}: {taken}", file=sys.stderr, flush=True)
        if args.json:  # every time, since it takes minutes, and may be stopped
            tables.write_json(answers, machine, args.json)
    print(tables.markdown(answers, machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
