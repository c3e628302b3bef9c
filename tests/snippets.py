"""Run the Python blocks of a Markdown file in order, and compare their output."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import torch

FIGURE = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
# what must be the same in a report on any machine: verdicts and words, but not errors, positions or times
PASSED = rf"(?:{FIGURE}|ok)"
PIECE = re.compile(
    rf"(?P<verdict>(?<=  )FAIL \d+|(?<=  ){PASSED}(?=  |\n))|(?P<figure>(?<![\w.]){FIGURE}(?!\w))"
    r"|(?P<anything>\.\.\.\n)|(?P<space> +)|.",
    re.DOTALL,
)


class Checker(doctest.OutputChecker):
    """Compares only the verdicts and the words of a gradcheck report.

    The size and position of an error, the number of failures and the notes depend on how torch's ops round on this
    machine.
    """

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if "errors in eps" not in want:
            return super().check_output(want, got, optionflags)
        return re.fullmatch(_pattern(_without_notes(want)), _without_notes(got), re.DOTALL) is not None


def _without_notes(report: str) -> str:
    lines = report.replace("<BLANKLINE>", "").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("note "))


def _pattern(report: str) -> str:
    def of(piece: re.Match[str]) -> str:
        if piece.lastgroup == "verdict":
            return r"FAIL \d+" if piece[0].startswith("FAIL") else PASSED
        by_kind = {"figure": FIGURE, "anything": "(?:.*\n)?", "space": " +"}
        return by_kind.get(str(piece.lastgroup), re.escape(piece[0]))

    return "".join(map(of, PIECE.finditer(report)))


def run(path: Path) -> int:
    """Run every block in one namespace, and return the number of blocks."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for i, block in enumerate(blocks):
        name = f"{path.name}, block {i + 1}"
        if ">>>" not in block:
            exec(compile(block, name, "exec"), names)
            continue
        names.update(check(block, names, name, str(path), Checker()))
    return len(blocks)


def check(
    text: str, names: dict[str, Any], name: str, file: str, checker: doctest.OutputChecker | None = None
) -> dict[str, Any]:
    """Run the examples in a text, compare their output, and return the names that they have defined."""
    test = doctest.DocTestParser().get_doctest(text, names, name, file, 0)
    failures: list[str] = []
    doctest.DocTestRunner(checker, optionflags=doctest.ELLIPSIS).run(test, out=failures.append, clear_globs=False)
    assert not failures, "".join(failures)
    return test.globs
