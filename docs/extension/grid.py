"""Tables of results, which scroll where a page is narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(head: str, body: Iterable[str]) -> str:
    """From the rows of the head, and those of the body, in HTML."""
    return (
        f'<div class="scroll" tabindex="0"><table class="results"><thead>{head}</thead><tbody>{"".join(body)}</tbody>'
        "</table></div>"
    )


def columns(*names: str) -> str:
    """A row of names; what has none is no header."""
    return "<tr>" + "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in names) + "</tr>"


def row(name: str, *cells: str) -> str:
    return f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def from_markdown(lines: Sequence[Sequence[str]]) -> str:
    """From the lines of :func:`benchmarks.report.grid`: head, rule, body."""
    head, _, *body = lines
    return table(columns(*head), (row(*line) for line in body))
