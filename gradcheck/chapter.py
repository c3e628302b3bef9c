"""A chapter: a docstring, taken apart into prose and numbered equations."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_EQUATION = re.compile(r"^\.\. math::\n((?:\n|[ \t]+.*(?:\n|$))+)", re.MULTILINE)
_TAG = re.compile(r"\s*\\tag\{(\w+)\}\s*$")


@dataclass(frozen=True)
class Equation:
    """A displayed equation: its number, empty if it has none, and its LaTeX on one line."""

    label: str
    latex: str


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
    # split gives prose and the content of the equations in turn
    pieces = _EQUATION.split(inspect.cleandoc(text) + "\n")
    blocks: list[str | Equation] = []
    for prose, content in zip(pieces[::2], [*pieces[1::2], None], strict=True):
        blocks += [paragraph.strip("\n") for paragraph in re.split(r"\n{2,}", prose) if paragraph.strip()]
        if content is not None:
            blocks.append(_equation(content))
    title, *rest = blocks or [""]
    return Chapter(str(title), tuple(rest))


def _equation(content: str) -> Equation:
    latex = " ".join(content.split())
    tag = _TAG.search(latex)
    return Equation(tag.group(1), latex[: tag.start()]) if tag else Equation("", latex)
