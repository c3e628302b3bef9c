"""Space: between the signs of a formula, by their kinds, and between the lines of one that is wide."""

from __future__ import annotations

from typing import NamedTuple

from manual_grad.study import box
from manual_grad.study.box import Box

INDENT = 4
# behind one of these a sign belongs to what follows: −x
UNARY = frozenset("start open rel bin sign slash punct name sum".split())


class Atom(NamedTuple):
    """A part of a formula, and its kind.

    The kinds are those of :data:`~manual_grad.study.symbols.SYMBOLS` and besides the name of a function, a group in
    brackets, a fraction, a sign of what follows, and the wide spaces quad and qquad.
    """

    kind: str
    box: Box


def pack(atoms: list[Atom], room: int) -> list[Box]:
    """Statements side by side while they fit; one that is too wide is broken at a wide space, a relation, a sign."""
    rows: list[Box] = []
    for part in _split(atoms, "qquad", keep=False):
        whole = join(part)
        if rows and rows[-1].width + INDENT + whole.width <= room:
            rows[-1] = box.beside(rows[-1], box.text(" " * INDENT), whole)
        elif whole.width <= room:
            rows.append(whole)
        else:
            first, *rest = _broken(part, room - INDENT, ["quad", "rel", "bin"])
            blank = Atom("ord", box.text(" " * (INDENT - 1)))  # behind it a sign is still between two things
            rows += [join(first), *(join([blank, *line]) for line in rest)]
    return rows


def _broken(atoms: list[Atom], room: int, kinds: list[str]) -> list[list[Atom]]:
    if join(atoms).width <= room or not kinds:
        return [atoms]
    parts = _split(atoms, kinds[0], keep=True)
    if kinds[0] == "rel":  # what is defined stays beside its definition
        parts[:2] = [[atom for part in parts[:2] for atom in part]]
    lines: list[list[Atom]] = []
    for part in parts:
        if lines and join(lines[-1] + part).width <= room:
            lines[-1] += part
        else:
            lines += _broken(part, room, kinds[1:])
    return lines


def _split(atoms: list[Atom], kind: str, keep: bool) -> list[list[Atom]]:
    parts: list[list[Atom]] = [[]]
    for atom in atoms:
        if atom.kind == kind:
            parts.append([atom] if keep else [])
        else:
            parts[-1].append(atom)
    return [part for part in parts if part]


def join(atoms: list[Atom], tight: bool = False) -> Box:
    """Side by side, with the space that the kinds ask for; ``tight`` as in an index."""
    boxes, before, gap = [box.text("")], Atom("start", box.text("")), 0
    for atom in atoms:
        if atom.kind in ("space", "quad", "qquad"):
            gap = max(gap, atom.box.width)
            continue
        if atom.kind == "bin" and before.kind in UNARY:
            atom = atom._replace(kind="sign")
        if before.kind in ("start", "open", "slash") or atom.kind in ("close", "punct", "slash"):
            gap = 0
        elif not gap and _apart(before, atom, tight):
            gap = 1
        boxes += [box.text(" " * gap), atom.box]
        before, gap = atom, 0
    return box.beside(*boxes)


def _apart(before: Atom, atom: Atom, tight: bool) -> bool:
    kinds = {before.kind, atom.kind}
    if before.kind == "sign":
        return len(atom.box.lines) > 1
    if kinds & {"bin", "rel"} or before.kind == "punct":
        return not tight
    if before.kind == "prefix" or (atom.kind == "group" and before.kind != "sum"):
        return "fraction" in kinds
    if kinds == {"letter"}:  # a product; but dx is one
        return not tight and before.box.flat != "d"
    return bool(kinds & {"fraction", "name", "sum"})
