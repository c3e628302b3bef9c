"""Runs the Python blocks of a Markdown file in order, and compares what they show."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import torch

NUMBER = r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)"
TIME = r"in \d+\.\d+ s\b"
PIECE = re.compile(rf"(?P<time>{TIME})|(?P<number>{NUMBER})|(?P<anything>\.\.\.)|(?P<space> +)|.", re.DOTALL)
PATTERN = {"time": TIME, "number": f"({NUMBER})", "anything": ".*", "space": " +"}


class Checker(doctest.OutputChecker):
    """In a report of gradcheck the numbers agree to a factor of 10: rounding and counts vary, and times by more."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if "eps of float" not in want and "errors in eps" not in want:
            return super().check_output(want, got, optionflags)
        pieces = list(PIECE.finditer(want.replace("<BLANKLINE>", "")))
        pattern = "".join(PATTERN.get(str(piece.lastgroup), re.escape(piece[0])) for piece in pieces)
        found = re.fullmatch(pattern, got, re.DOTALL)
        wanted = (float(piece[0]) for piece in pieces if piece.lastgroup == "number")
        return found is not None and all(map(_alike, wanted, map(float, found.groups())))


def _alike(a: float, b: float) -> bool:
    return a == b or (a * b > 0 and 0.1 <= a / b <= 10)


def run(path: Path) -> int:
    """Runs every block, in one namespace; returns how many there were."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for i, block in enumerate(blocks):
        name = f"{path.name}, block {i + 1}"
        if ">>>" not in block:
            exec(compile(block, name, "exec"), names)
            continue
        test = doctest.DocTestParser().get_doctest(block, names, name, str(path), 0)
        failures: list[str] = []
        runner = doctest.DocTestRunner(Checker(), optionflags=doctest.ELLIPSIS)
        runner.run(test, out=failures.append, clear_globs=False)
        assert not failures, "".join(failures)
        names.update(test.globs)
    return len(blocks)
