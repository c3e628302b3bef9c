"""A chapter: a docstring, taken apart into prose and numbered equations."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

# content is on the line of the directive, or below it and further in
_EQUATION = re.compile(r"^([ \t]*)\.\. math::(.*\n(?:[ \t]*\n|\1[ \t]+.*\n)*)", re.MULTILINE)
_END = re.compile(r"\s*(?:\\tag\{(\w+)\})?\s*(?:\\unexecuted\{\s*([^{}]*[^{}\s])\s*\})?\s*$")


@dataclass(frozen=True)
class Equation:
    """A displayed equation: its number, empty if it has none, its LaTeX on one line, and why nothing executes it."""

    label: str
    latex: str
    unexecuted: str = ""

    @property
    def remark(self) -> str:
        """What a reader is told about it."""
        return f"Not executed: {self.unexecuted}." if self.unexecuted else ""


@dataclass(frozen=True)
class Chapter:
    """A title and, in their order, paragraphs in reStructuredText and equations."""

    title: str
    blocks: tuple[str | Equation, ...]

    @property
    def equations(self) -> tuple[Equation, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Equation))


def read(text: str) -> Chapter:
    """The chapter that a docstring holds."""
    # split gives prose, an indent and the content of the equation in turn
    pieces = _EQUATION.split(inspect.cleandoc(text) + "\n")
    blocks: list[str | Equation] = []
    for prose, content in zip(pieces[::3], [*pieces[2::3], None], strict=True):
        blocks += [paragraph.strip("\n") for paragraph in re.split(r"\n{2,}", prose) if paragraph.strip()]
        if content is not None:
            blocks.append(equation(content))
    title, *rest = blocks or [""]
    return Chapter(str(title), tuple(rest))


def equation(content: str) -> Equation:
    r"""What a directive holds: LaTeX, ``\tag{number}`` and perhaps ``\unexecuted{reason in plain words}``."""
    latex = " ".join(content.split())
    end = _END.search(latex)
    return Equation(end[1] or "", latex[: end.start()], end[2] or "")
