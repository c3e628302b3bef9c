r"""Parse LaTeX formulas into a syntax tree, for display and for computation.

:mod:`gradcheck.grammar` turns the tree into operations with precedence; the terminal renders it directly. The tree
records only what is written, not what it means, so it can hold any formula: an unknown command is an ordinary part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Row: TypeAlias = "tuple[Part, ...]"


@dataclass(frozen=True, eq=False)
class Part:
    r"""A letter, a number, a sign or a command, with its arguments and scripts.

    Args:
        token: The token: ``x``, ``12``, ``+``, ``\frac``, ``\mathrm{lse}``, an opening bracket, ``\begin{cases}``.
        latex: Its source, including the space before it and its scripts. The sources of the parts of a row, joined,
            are the source of the row.
        arguments: The rows in the braces after a command or a script, or inside a bracket. For an environment they are
            its lines, and each cell of a line is a part ``&``.
        closing: The closing bracket, of any kind. A bracket that is never closed is an ordinary sign.
        scripts: Parts ``_``, ``^`` and ``'``, in order.
    """

    token: str
    latex: str = ""
    arguments: tuple[Row, ...] = ()
    closing: str = ""
    scripts: Row = ()


SPACES = (r"\,", r"\;", r"\:", r"\ ", "~")
_WIDE = (r"\quad", r"\qquad")
ACCENTS = (r"\hat", r"\tilde", r"\bar", r"\dot", r"\ddot", r"\vec")
_OPENING = ("(", "[", r"\{", r"\langle", r"\lfloor", r"\lceil")
_CLOSING = (")", "]", r"\}", r"\rangle", r"\rfloor", r"\rceil")
_ENDS = ("", "}", "&", r"\\")
_ARGUMENTS = {r"\frac": 2, r"\tfrac": 2, **dict.fromkeys((r"\sqrt", r"\mathbb", "_", "^", *ACCENTS), 1)}
_ALIASES = {r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne", r"\rightarrow": r"\to", r"\dfrac": r"\frac",
            r"\lvert": "|", r"\rvert": "|"}  # fmt: skip
_TOKEN = re.compile(
    # space and sizes, a token, an optional length after \\
    r"(?:\s|\\!|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z]))*"
    r"(\\(?:text|textrm|mathrm|mathbf|mathit|mathcal|boldsymbol|operatorname|begin|end)\{[^}]*\}"
    r"|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|.|)(?:(?<=\\\\)\[[^\]]*\])?",
    re.DOTALL,
)


class Unreadable(ValueError):
    """LaTeX that this parser does not support."""


def read(latex: str) -> Row:
    """Parse a formula."""
    reader = _Reader(latex)
    row = reader.row()
    if reader.next:
        raise Unreadable(f"{reader.next} without a beginning: {latex}")
    return row


def source(row: Row) -> str:
    """The LaTeX of a row."""
    return "".join(part.latex for part in row).strip()


class _Reader:
    """Recursive descent."""

    def __init__(self, latex: str) -> None:
        self.latex, self.at = latex, 0
        self.unclosed: set[int] = set()  # positions of brackets that are never closed

    @property
    def next(self) -> str:
        (token,) = _TOKEN.match(self.latex, self.at).groups()
        return _ALIASES.get(token, token)

    def take(self, *expected: str) -> str:
        token = self.next
        if token == "" or (expected and token not in expected):
            raise Unreadable(f"something is missing {f'before {token}' if token else 'at the end'}: {self.latex}")
        self.at = _TOKEN.match(self.latex, self.at).end()
        return token

    def row(self, *ends: str) -> Row:
        """Parse up to one of ``ends`` or the end of a group or cell, which is not consumed."""
        parts: list[Part] = []
        while self.next not in (*_ENDS, *ends) and not self.next.startswith(r"\end{"):
            parts.append(self.part())
        return tuple(parts)

    def part(self, alone: bool = False) -> Part:
        """Parse one part. With ``alone``, as an argument without braces, it is a single sign without scripts."""
        start, token = self.at, self.take()
        arguments, closing, scripts = (), "", []
        if token == "{":
            arguments = (self.row(),)
            self.take("}")
        elif token in _OPENING and not alone and start not in self.unclosed:
            arguments = (self.row(*_CLOSING),)
            if self.next not in _CLOSING:
                self.unclosed.add(start)
                self.at = start
                return self.part()
            closing = self.take()
        elif token.startswith(r"\begin{"):
            arguments = tuple(self.lines(token.replace("begin", "end")))
        elif alone and token[0].isdigit():
            self.at, token = self.at - len(token) + 1, token[0]
        elif token in _ENDS:
            raise Unreadable(f"something is missing before {token}: {self.latex}")
        else:
            arguments = tuple(self.argument() for _ in range(_ARGUMENTS.get(token, 0)))
        while not alone and token not in (*SPACES, *_WIDE) and self.next in ("_", "^", "'"):
            scripts.append(self.part(alone=True))
        return Part(token, self.latex[start : self.at], arguments, closing, tuple(scripts))

    def argument(self) -> Row:
        part = self.part(alone=True)
        return part.arguments[0] if part.token == "{" else (part,)

    def lines(self, end: str) -> Iterator[Row]:
        line, token = [], ""
        while token != end:
            start, content = self.at, self.row()
            line.append(Part("&", self.latex[start : self.at], (content,)))
            token = self.take("&", r"\\", end)
            if token != "&":
                yield tuple(line)
                line = []
