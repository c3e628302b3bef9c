r"""LaTeX's mathematics in a terminal: ``∂e/∂x = max(−δ, min(r, δ))``, in one line or, displayed, in several.

Of the converters to plain text none keeps the meaning: :math:`e^{a - b}` becomes e^a - b, the lines of cases run
together, :math:`\tfrac12` is read as 12. This one reads what the chapters use, and leaves a command that it does not
know as it is.
"""

from __future__ import annotations

import re
import unicodedata

from manual_grad.study import box, symbols
from manual_grad.study.box import Box
from manual_grad.study.spacing import INDENT, Atom, join, pack
from manual_grad.study.symbols import KINDS

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\s+|.", re.DOTALL)


def inline(tex: str) -> str:
    """The formula in one line."""
    return join(_Reader(tex, flat=True).whole()).lines[0]


def display(tex: str, number: str = "", width: int = 80) -> str:
    """The formula in as many lines as it needs, its number at the right end."""
    end = f"({number})" if number else ""
    rows = pack(_Reader(tex, flat=False).whole(), width - INDENT - len(end) - 1)
    lines: list[str] = []
    for i, row in enumerate(rows):
        if i and max(len(row.lines), len(rows[i - 1].lines)) > 1:
            lines.append("")
        lines += [" " * INDENT + line for line in row.lines]
    last = len(lines) - len(rows[-1].lines) + rows[-1].base
    if box.width(lines[last].rstrip()) + len(end) >= width:
        last = len(lines)
        lines.append("")
    lines[last] = lines[last].rstrip()
    lines[last] += " " * (width - box.width(lines[last]) - len(end)) + end
    return "\n".join(line.rstrip() for line in lines)


class _Reader:
    """Recursive descent through the tokens of a formula."""

    def __init__(self, tex: str, flat: bool) -> None:
        self.tex = tex.strip()
        self.tokens = _TOKEN.findall(self.tex)
        self.at = 0
        self.flat = flat

    def whole(self) -> list[Atom]:
        atoms = self.row()
        if self.peek():
            raise ValueError(f"{self.peek()} without a beginning: {self.tex}")
        return atoms

    def peek(self) -> str:
        """The next token that is no white space, or nothing at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise ValueError(f"something is missing at the end: {self.tex}")
        self.at += 1
        return token

    def raw(self) -> str:
        """The text of an argument as it stands, spaces included."""
        if self.take() != "{":
            return self.tokens[self.at - 1]
        start = self.at
        self.at = self.tokens.index("}", start) + 1
        return "".join(self.tokens[start : self.at - 1])

    def row(self, *ends: str) -> list[Atom]:
        """Atoms up to one of ``ends``, which is left, or to the end of a group or cell."""
        atoms: list[Atom] = []
        bars = 0
        while (token := self.peek()) and token not in (*ends, "}", "&", r"\\", r"\end"):
            bars += token in symbols.SYMBOLS["bar"]
            atoms += self.atom(bar="open" if bars % 2 else "close")
        return atoms

    def atom(self, bar: str = "open") -> list[Atom]:
        token = self.take()
        kind, sign = KINDS.get(token, ("", ""))
        if kind == "none":
            return []
        if kind == "space":
            return [Atom(token[1:] if token.startswith(r"\q") else kind, box.text(sign))]
        if kind == "open":
            return [self.scripts(self.bracket(sign))]
        return [self.scripts(Atom(bar if kind == "bar" else kind, box.text(sign)) if kind else self.command(token))]

    def argument(self) -> list[Atom]:
        """A group, or what the next token alone stands for."""
        if self.peek() == "{":
            self.take()
            atoms = self.row()
            self.take()
            return atoms
        kind, sign = KINDS.get(token := self.take(), ("", ""))
        return [Atom(kind, box.text(sign)) if kind else self.command(token)]

    def line(self, tight: bool = False) -> tuple[list[Atom], str]:
        """An argument, and its text in one line."""
        outer, self.flat = self.flat, True
        atoms = self.argument()
        self.flat = outer
        return atoms, join(atoms, tight).lines[0]

    def command(self, token: str) -> Atom:
        if token == "{":
            self.at -= 1
            atoms = self.argument()
            return atoms[0] if len(atoms) == 1 else Atom("ord", join(atoms))
        if token in (r"\frac", r"\dfrac", r"\tfrac"):
            return self.fraction(small=token == r"\tfrac")
        if token in symbols.FUNCTIONS:
            return Atom("name", box.text(token[1:]))
        if token in symbols.NAMES:
            name = self.raw()
            return Atom("name" if len(name) > 1 and not token.startswith(r"\text") else "ord", box.text(name))
        if token in symbols.ACCENTS:
            _, letter = self.line()
            return Atom("letter", box.text(unicodedata.normalize("NFC", letter + symbols.ACCENTS[token])))
        if token == r"\mathbb":
            letter = self.raw()
            return Atom("letter", box.text(symbols.BLACKBOARD.get(letter, letter)))
        if token == r"\sqrt":
            return Atom("letter", box.text("√" + _factor(*self.line())))
        if token == r"\begin":
            return self.environment()
        sign = symbols.greek(token)
        return Atom("letter" if sign.isalpha() else "ord", box.text(sign))

    def bracket(self, opening: str) -> Atom:
        """All up to the closing bracket, of whatever form; without one the sign alone."""
        start = self.at
        content = join(self.row(*symbols.SYMBOLS["close"]))
        if self.peek() not in symbols.SYMBOLS["close"]:
            self.at = start
            return Atom("open", box.text(opening))
        return Atom("group", box.delimited(opening, content, KINDS[self.take()][1]))

    def fraction(self, small: bool) -> Atom:
        start = self.at
        (top, above), (bottom, below) = self.line(), self.line()
        if (above, below) in symbols.PARTS:
            return Atom("ord", box.text(symbols.PARTS[above, below]))
        if above.startswith("∂") and below.startswith("∂"):
            return Atom("fraction", box.text(f"{above}/{below.replace(' ', '')}"))
        if self.flat or small:
            above = f"({above})" if any(atom.kind == "bin" for atom in top) else above
            return Atom("fraction", box.text(f"{above}/{_factor(bottom, below)}"))
        self.at = start
        return Atom("fraction", box.fraction(join(self.argument()), join(self.argument())))

    def scripts(self, atom: Atom) -> Atom:
        below, above = "", ""
        while (token := self.peek()) in ("_", "^", "'"):
            self.take()
            if token == "_":
                _, below = self.line(tight=True)
            else:
                above += "′" if token == "'" else self.line(tight=True)[1]
        if not below and not above:
            return atom
        kind = "letter" if atom.kind == "prefix" and below else atom.kind
        if kind == "sum" and not self.flat:
            lines = [box.text(above)] * bool(above) + [atom.box] + [box.text(below)] * bool(below)
            return Atom(kind, box.stack(lines, base=bool(above), centred=True))
        index, exponent = self.in_line(below, "_"), self.in_line(above, "^")
        content = box.at_corner(box.at_corner(atom.box, index, top=False), exponent, top=True)
        return Atom(kind, box.with_scripts(content, "" if exponent else above, "" if index else below))

    def in_line(self, script: str, sign: str) -> str:
        """The script in small letters, or behind its sign where that reads well; else nothing."""
        small = symbols.small(script, symbols.SUBSCRIPTS if sign == "_" else symbols.SUPERSCRIPTS)
        if small or not script:
            return small
        if symbols.is_word(script):
            return sign + script if self.flat or sign == "_" else ""
        return f"{sign}({script})" if self.flat else ""

    def environment(self) -> Atom:
        opening, closing = symbols.BRACKETS.get(self.raw(), ("", ""))
        rows: list[list[Box]] = [[]]
        while True:
            rows[-1].append(join(self.row()))
            end = self.take()
            if end == r"\\":
                rows.append([])
                if self.tokens[self.at : self.at + 1] == ["["]:  # a length; behind a blank it is content
                    self.at = self.tokens.index("]", self.at) + 1
            elif end != "&":
                break
        self.raw()
        if self.flat:
            content = box.text("; ".join(" if ".join(cell.lines[0] for cell in row) for row in rows))
            return Atom("group", box.delimited(opening, content, closing or (opening and "}")))
        return Atom("group", box.delimited(opening, box.beside(box.text(" "), box.grid(rows, gap=3)), closing))


def _factor(atoms: list[Atom], line: str) -> str:
    """The line, in brackets unless it is one thing."""
    return line if len(atoms) == 1 or line.isdigit() else f"({line})"
