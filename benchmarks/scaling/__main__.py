"""``python -m benchmarks.scaling``: measure, and print the tables as Markdown."""

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
    """Return the exit status: 0; 1 if a loss is wrong; 2 for bad usage."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description="Measure how time and memory scale, and the effect of dtype and threads.",
    )
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"one of {', '.join(QUESTIONS)}; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="a quick run at smaller sizes")
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
        if args.json:  # after every question, because a run takes minutes and may be interrupted
            tables.write_json(answers, machine, args.json)
    print(tables.markdown(answers, machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
