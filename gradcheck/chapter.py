"""Split a chapter, the docstring of a loss file, into prose, numbered equations and figures."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

# the content is on the line of the directive, or indented below it
_DIRECTIVE = re.compile(r"^([ \t]*)\.\. (math|figure)::(.*\n(?:[ \t]*\n|\1[ \t]+.*\n)*)", re.MULTILINE)
_ALT = re.compile(r":alt:\s*(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
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
class Figure:
    """A picture: its description, for whoever does not see it, and its caption."""

    alt: str
    caption: str

    @property
    def words(self) -> str:
        """What stands for it where it cannot be shown."""
        return f"[Figure: {self.alt}] {self.caption}"


Block = str | Equation | Figure


@dataclass(frozen=True)
class Chapter:
    """A title, followed by paragraphs in reStructuredText, equations and figures, in order."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def equations(self) -> tuple[Equation, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Equation))


def read(text: str) -> Chapter:
    """Parse a docstring."""
    # split returns, in turn, prose, and the indentation, the name and the content of a directive
    pieces = _DIRECTIVE.split(inspect.cleandoc(text) + "\n")
    blocks: list[Block] = []
    for prose, name, content in zip(pieces[::4], [*pieces[2::4], ""], [*pieces[3::4], ""], strict=True):
        blocks += [paragraph.strip("\n") for paragraph in re.split(r"\n{2,}", prose) if paragraph.strip()]
        if name:
            blocks.append(equation(content) if name == "math" else figure(content))
    title, *rest = blocks or [""]
    return Chapter(str(title), tuple(rest))


def equation(content: str) -> Equation:
    r"""Parse the content of a directive: LaTeX, ``\tag{number}`` and optionally ``\unexecuted{reason in words}``."""
    latex = " ".join(content.split())
    end = _END.search(latex)
    return Equation(end[1] or "", latex[: end.start()], end[2] or "")


def figure(content: str) -> Figure:
    """Parse the content of a directive: the file, ``:alt:``, and after an empty line the caption."""
    alt = _ALT.search(content)
    return Figure(" ".join(alt[1].split()) if alt else "", " ".join(content[alt.end() :].split()) if alt else "")
