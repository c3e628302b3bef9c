"""Multi-line pieces of text that are placed side by side or stacked to lay out a formula."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

# top, extension, middle, extension, bottom; other delimiters do not grow
_TALL = {
    "(": "⎛⎜⎜⎜⎝",
    ")": "⎞⎟⎟⎟⎠",
    "[": "⎡⎢⎢⎢⎣",
    "]": "⎤⎥⎥⎥⎦",
    "{": "⎧⎪⎨⎪⎩",
    "}": "⎫⎪⎬⎪⎭",
}


class Box(NamedTuple):
    """Lines of equal width, and the index of the baseline."""

    lines: tuple[str, ...]
    base: int = 0

    @property
    def width(self) -> int:
        return width(self.lines[0])

    @property
    def flat(self) -> str | None:
        """The text of a box with a single line, else None."""
        return self.lines[0] if len(self.lines) == 1 else None


def width(text: str) -> int:
    """The number of columns: combining accents, such as the hat of â, take none."""
    return sum(not unicodedata.combining(c) for c in text)


def text(line: str) -> Box:
    return Box((line,))


def beside(*boxes: Box) -> Box:
    """Boxes from left to right on one baseline."""
    above = max(box.base for box in boxes)
    below = max(len(box.lines) - box.base for box in boxes)
    columns = []
    for box in boxes:
        blank = (" " * box.width,)
        columns.append((above - box.base) * blank + box.lines + (below - len(box.lines) + box.base) * blank)
    return Box(tuple(map("".join, zip(*columns, strict=True))), above)


def stack(boxes: list[Box], base: int, centred: bool = False) -> Box:
    """Boxes from top to bottom; line ``base`` of the result is its baseline."""
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
    """The script after the first line of the content, or after its last."""
    column = [" " * width(script)] * len(content.lines)
    column[0 if top else -1] = script
    return beside(content, Box(tuple(column), content.base))


def with_scripts(content: Box, above: str = "", below: str = "") -> Box:
    """An exponent and an index on their own lines, or at the corners of tall content."""
    if not above and not below:
        return content
    if len(content.lines) > 2:
        return at_corner(at_corner(content, below, top=False), above, top=True)
    scripts = [text(above)] * bool(above) + [text("")] + [text(below)] * bool(below)
    return beside(content, stack(scripts, base=bool(above)))


def delimited(opening: str, content: Box, closing: str) -> Box:
    """The content in brackets of its height; an empty string stands for no bracket."""
    return beside(_tall(opening, content), content, _tall(closing, content))


def grid(rows: list[list[Box]], gap: int) -> Box:
    """Rows of cells in aligned columns, with an odd number of lines and the baseline in the middle."""
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
