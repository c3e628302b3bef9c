"""Spacing between the symbols of a formula, by their kinds, and line breaks of wide formulas."""

from __future__ import annotations

from typing import NamedTuple

from manual_grad.study import box
from manual_grad.study.box import Box

INDENT = 4
# after one of these, a sign is unary, as in −x
UNARY = frozenset("start open rel bin sign slash punct name sum".split())


class Atom(NamedTuple):
    """A part of a formula and its kind.

    The kinds are those of :data:`~manual_grad.study.symbols.SYMBOLS`, and also name (of a function), group (in
    brackets), fraction, sign (unary), quad and qquad.
    """

    kind: str
    box: Box


def pack(atoms: list[Atom], room: int) -> list[Box]:
    """Place statements side by side while they fit; break one that is too wide at a quad, a relation or a sign."""
    rows: list[Box] = []
    for part in _split(atoms, "qquad", keep=False):
        whole = join(part)
        if rows and rows[-1].width + INDENT + whole.width <= room:
            rows[-1] = box.beside(rows[-1], box.text(" " * INDENT), whole)
        elif whole.width <= room:
            rows.append(whole)
        else:
            first, *rest = _broken(part, room - INDENT, ["quad", "rel", "bin"])
            blank = Atom("ord", box.text(" " * (INDENT - 1)))  # after it, a sign is still binary
            rows += [join(first), *(join([blank, *line]) for line in rest)]
    return rows


def _broken(atoms: list[Atom], room: int, kinds: list[str]) -> list[list[Atom]]:
    if join(atoms).width <= room or not kinds:
        return [atoms]
    parts = _split(atoms, kinds[0], keep=True)
    if kinds[0] == "rel":  # do not break before the first relation of a definition
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
    """Place atoms side by side with the space that their kinds need; ``tight`` as in an index."""
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
    if kinds == {"letter"}:  # a product, except in dx
        return not tight and before.box.flat != "d"
    return bool(kinds & {"fraction", "name", "sum"})
