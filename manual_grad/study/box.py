"""Pieces of text of several lines that are set side by side or one above the other, as a formula needs it."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

# top, an extension, middle, an extension, bottom; a delimiter that is not here does not grow
_TALL = {
    "(": "⎛⎜⎜⎜⎝",
    ")": "⎞⎟⎟⎟⎠",
    "[": "⎡⎢⎢⎢⎣",
    "]": "⎤⎥⎥⎥⎦",
    "{": "⎧⎪⎨⎪⎩",
    "}": "⎫⎪⎬⎪⎭",
}


class Box(NamedTuple):
    """Lines of one width, and which of them is the line of writing."""

    lines: tuple[str, ...]
    base: int = 0

    @property
    def width(self) -> int:
        return width(self.lines[0])

    @property
    def flat(self) -> str | None:
        """The text of a box of one line."""
        return self.lines[0] if len(self.lines) == 1 else None


def width(text: str) -> int:
    """Columns: an accent, like the hat of â, stands above the letter before it."""
    return sum(not unicodedata.combining(c) for c in text)


def text(line: str) -> Box:
    return Box((line,))


def beside(*boxes: Box) -> Box:
    """Left to right on one line of writing."""
    above = max(box.base for box in boxes)
    below = max(len(box.lines) - box.base for box in boxes)
    columns = []
    for box in boxes:
        blank = (" " * box.width,)
        columns.append((above - box.base) * blank + box.lines + (below - len(box.lines) + box.base) * blank)
    return Box(tuple(map("".join, zip(*columns, strict=True))), above)


def stack(boxes: list[Box], base: int, centred: bool = False) -> Box:
    """Top to bottom, the line of writing being the line ``base`` of all."""
    most = max(box.width for box in boxes)
    lines = []
    for box in boxes:
        left = (most - box.width) // 2 if centred else 0
        lines += [" " * left + line + " " * (most - box.width - left) for line in box.lines]
    return Box(tuple(lines), base)


def fraction(above: Box, below: Box) -> Box:
    bar = text("─" * (max(above.width, below.width) + 2))
    return stack([above, bar, below], len(above.lines), centred=True)


def at_corner(content: Box, script: str, top: bool) -> Box:
    """The script behind the first line of the content, or behind its last."""
    column = [" " * width(script)] * len(content.lines)
    column[0 if top else -1] = script
    return beside(content, Box(tuple(column), content.base))


def with_scripts(content: Box, above: str = "", below: str = "") -> Box:
    """An exponent and an index in lines of their own; behind a tall content they go to its corners."""
    if not above and not below:
        return content
    if len(content.lines) > 2:
        return at_corner(at_corner(content, below, top=False), above, top=True)
    scripts = [text(above)] * bool(above) + [text("")] + [text(below)] * bool(below)
    return beside(content, stack(scripts, base=bool(above)))


def delimited(opening: str, content: Box, closing: str) -> Box:
    """The content in brackets of its height; an empty delimiter is none."""
    return beside(_tall(opening, content), content, _tall(closing, content))


def grid(rows: list[list[Box]], gap: int) -> Box:
    """Rows of cells in columns, an odd number of lines, the middle one the line of writing."""
    count = max(map(len, rows))
    rows = [row + [text("")] * (count - len(row)) for row in rows]
    widths = [max(row[j].width for row in rows) + (gap if j < count - 1 else 0) for j in range(count)]
    lines = [
        beside(*(beside(cell, text(" " * (w - cell.width))) for cell, w in zip(row, widths, strict=True)))
        for row in rows
    ]
    if sum(len(line.lines) for line in lines) % 2 == 0:
        lines.insert(len(lines) // 2, text(""))
    whole = stack(lines, 0)
    return whole._replace(base=len(whole.lines) // 2)


def _tall(delimiter: str, content: Box) -> Box:
    height = len(content.lines)
    if height == 1 or delimiter not in _TALL:
        return text(delimiter)
    top, over, middle, under, bottom = tuple(_TALL[delimiter])
    half = (height - 2) // 2
    return Box((top, *half * over, *middle * (height % 2), *half * under, bottom), content.base)
