"""Split a chapter, the docstring of a loss file, into prose and numbered equations."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

# the content is on the line of the directive, or indented below it
_EQUATION = re.compile(r"^([ \t]*)\.\. math::(.*\n(?:[ \t]*\n|\1[ \t]+.*\n)*)", re.MULTILINE)
_END = re.compile(r"\s*(?:\\tag\{(\w+)\})?\s*(?:\\unexecuted\{\s*([^{}]*[^{}\s])\s*\})?\s*$")


@dataclass(frozen=True)
class Equation:
    """A displayed equation.

    Attributes:
        label: Its number, or "" if it has none.
        latex: Its LaTeX, on one line.
        unexecuted: The reason why no check executes it, or "" if one does.
    """

    label: str
    latex: str
    unexecuted: str = ""

    @property
    def remark(self) -> str:
        """The remark that is shown with an equation that is not executed."""
        return f"Not executed: {self.unexecuted}." if self.unexecuted else ""


@dataclass(frozen=True)
class Chapter:
    """A title, followed by paragraphs in reStructuredText and equations, in order."""

    title: str
    blocks: tuple[str | Equation, ...]

    @property
    def equations(self) -> tuple[Equation, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Equation))


def read(text: str) -> Chapter:
    """Parse a docstring."""
    # split returns, in turn, prose, the indentation of an equation and its content
    pieces = _EQUATION.split(inspect.cleandoc(text) + "\n")
    blocks: list[str | Equation] = []
    for prose, content in zip(pieces[::3], [*pieces[2::3], None], strict=True):
        blocks += [paragraph.strip("\n") for paragraph in re.split(r"\n{2,}", prose) if paragraph.strip()]
        if content is not None:
            blocks.append(equation(content))
    title, *rest = blocks or [""]
    return Chapter(str(title), tuple(rest))


def equation(content: str) -> Equation:
    r"""Parse the content of a directive: LaTeX, ``\tag{number}`` and optionally ``\unexecuted{reason in words}``."""
    latex = " ".join(content.split())
    end = _END.search(latex)
    return Equation(end[1] or "", latex[: end.start()], end[2] or "")
