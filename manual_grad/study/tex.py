r"""LaTeX math in a terminal: ``∂e/∂x = max(−δ, min(r, δ))``, inline on one line or displayed on several.

Other converters to plain text lose the meaning: :math:`e^{a - b}` becomes e^a - b, the lines of cases run together,
:math:`\tfrac12` is read as 12. This one renders the same tree from which the equations are executed, and leaves unknown
commands unchanged.
"""

from __future__ import annotations

import unicodedata

from gradcheck.latex import Part, Row, read
from manual_grad.study import box, symbols
from manual_grad.study.spacing import INDENT, Atom, join, pack
from manual_grad.study.symbols import KINDS


def inline(tex: str) -> str:
    """The formula on one line."""
    return _line(read(tex))


def display(tex: str, number: str = "", width: int = 80) -> str:
    """The formula on as many lines as it needs, with its number at the right margin."""
    end = f"({number})" if number else ""
    rows = pack(_atoms(read(tex), flat=False), width - INDENT - len(end) - 1)
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


def _atoms(row: Row, flat: bool) -> list[Atom]:
    atoms: list[Atom] = []
    bars = 0
    for part in row:
        kind, sign = KINDS.get(part.token, ("", ""))
        if kind == "space":
            atoms.append(Atom(part.token[1:] if part.token.startswith(r"\q") else kind, box.text(sign)))
            continue
        if kind == "bar":
            bars += 1
            kind = "open" if bars % 2 else "close"
        atom = _enclosed(part, flat) if part.closing else Atom(kind, box.text(sign)) if kind else _command(part, flat)
        atoms.append(_with_scripts(atom, part.scripts, flat))
    return atoms


def _line(row: Row, tight: bool = False) -> str:
    return join(_atoms(row, flat=True), tight).lines[0]


def _enclosed(part: Part, flat: bool) -> Atom:
    opening, closing = (KINDS[bracket][1] for bracket in (part.token, part.closing))
    return Atom("group", box.delimited(opening, join(_atoms(part.arguments[0], flat)), closing))


def _command(part: Part, flat: bool) -> Atom:
    token, rows = part.token, part.arguments
    if token == "{":
        atoms = _atoms(rows[0], flat)
        return atoms[0] if len(atoms) == 1 else Atom("ord", join(atoms))
    if token in (r"\frac", r"\tfrac"):
        return _fraction(rows[0], rows[1], flat, small=token == r"\tfrac")
    if token in symbols.FUNCTIONS:
        return Atom("name", box.text(token[1:]))
    if token in symbols.ACCENTS:
        accented = _line(rows[0]) + symbols.ACCENTS[token]
        return Atom("letter", box.text(unicodedata.normalize("NFC", accented)))
    if token == r"\mathbb":
        return Atom("letter", box.text(symbols.BLACKBOARD.get(_line(rows[0]), _line(rows[0]))))
    if token == r"\sqrt":
        return Atom("letter", box.text("√" + _factor(rows[0])))
    if token.startswith(r"\begin{"):
        return _environment(part, flat)
    if rows:  # a script without a base
        return _with_scripts(Atom("ord", box.text("")), (part,), flat)
    command, _, word = token.removesuffix("}").partition("{")
    if word:
        return Atom("name" if len(word) > 1 and not command.startswith(r"\text") else "ord", box.text(word))
    sign = symbols.greek(token)
    return Atom("letter" if sign.isalpha() else "ord", box.text(sign))


def _fraction(top: Row, bottom: Row, flat: bool, small: bool) -> Atom:
    above, below = _line(top), _line(bottom)
    if (above, below) in symbols.PARTS:
        return Atom("ord", box.text(symbols.PARTS[above, below]))
    if above.startswith("∂") and below.startswith("∂"):
        return Atom("fraction", box.text(f"{above}/{below.replace(' ', '')}"))
    if flat or small:
        above = f"({above})" if any(atom.kind == "bin" for atom in _atoms(top, flat=True)) else above
        return Atom("fraction", box.text(f"{above}/{_factor(bottom)}"))
    return Atom("fraction", box.fraction(join(_atoms(top, flat)), join(_atoms(bottom, flat))))


def _with_scripts(atom: Atom, scripts: Row, flat: bool) -> Atom:
    if not scripts:
        return atom
    below, above = "", ""
    for script in scripts:
        if script.token == "_":
            below = _line(script.arguments[0], tight=True)
        else:
            above += "′" if script.token == "'" else _line(script.arguments[0], tight=True)
    kind = "letter" if atom.kind == "prefix" and below else atom.kind
    if kind == "sum" and not flat:
        lines = [box.text(above)] * bool(above) + [atom.box] + [box.text(below)] * bool(below)
        return Atom(kind, box.stack(lines, base=bool(above), centred=True))
    index, exponent = _in_line(below, "_", flat), _in_line(above, "^", flat)
    content = box.at_corner(box.at_corner(atom.box, index, top=False), exponent, top=True)
    return Atom(kind, box.with_scripts(content, "" if exponent else above, "" if index else below))


def _in_line(script: str, sign: str, flat: bool) -> str:
    """The script in small letters, or after _ or ^ if that is readable; else empty."""
    small = symbols.small(script, symbols.SUBSCRIPTS if sign == "_" else symbols.SUPERSCRIPTS)
    if small or not script:
        return small
    if symbols.is_word(script):
        return sign + script if flat or sign == "_" else ""
    return f"{sign}({script})" if flat else ""


def _environment(part: Part, flat: bool) -> Atom:
    opening, closing = symbols.BRACKETS.get(part.token, ("", ""))
    rows = [[join(_atoms(cell.arguments[0], flat)) for cell in line] for line in part.arguments]
    if flat:
        content = box.text("; ".join(" if ".join(cell.lines[0] for cell in row) for row in rows))
        return Atom("group", box.delimited(opening, content, closing or (opening and "}")))
    return Atom("group", box.delimited(opening, box.beside(box.text(" "), box.grid(rows, gap=3)), closing))


def _factor(row: Row) -> str:
    """The row on one line, in brackets unless it is a single atom."""
    line = _line(row)
    return line if len(_atoms(row, flat=True)) == 1 or line.isdigit() else f"({line})"
