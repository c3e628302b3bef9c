"""The code of a loss, beside the equations that it cites."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import manual_grad
from extension import equations
from manual_grad.catalogue import BY_NAME
from manual_grad.study.chapters import chapter


@functools.cache
def source(loss: str) -> str:
    return BY_NAME[loss].file.read_text(encoding="utf-8")


def displayed(loss: str) -> dict[str, str]:
    """The numbered equations of the chapter, as a dict from number to LaTeX."""
    return {equation.label: equation.latex for equation in chapter(loss).equations if equation.label}


@functools.cache
def citations(loss: str) -> dict[str, list[int]]:
    """A dict from the number of an equation to the lines whose comments cite it."""
    found: dict[str, list[int]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source(loss)).readline):
        if token.type == tokenize.COMMENT:
            for tag in equations.CITATION.findall(token.string):
                found.setdefault(tag, []).append(token.start[0])
    return found


def html(loss: str) -> str:
    lines = _highlighted(loss)
    rule, rest = [], []
    for start, end, of_rule in _chunks(loss):
        (rule if of_rule else rest).append(_row(loss, lines, start, end))
    return (
        f'<div class="beside">{"".join(rule)}</div>'
        "<details><summary>The function and the Module, which check the arguments and then evaluate the rule</summary>"
        f'<div class="beside">{"".join(rest)}</div></details>'
    )


def _row(loss: str, lines: list[str], start: int, end: int) -> str:
    """One stretch of code, and the equations that it cites."""
    plain = source(loss).splitlines()[start - 1 : end]
    shown = zip(plain, lines[start - 1 : end], strict=True)
    text = "".join(_line(n, *line) for n, line in enumerate(shown, start))
    known = displayed(loss)
    tags = equations.CITATION.findall("\n".join(plain))
    cited = "".join(
        f'<div class="equation"><div class="scroll" tabindex="0">{equations.mathml(known[tag])}</div>'
        f"<div>{equations.link(tag)}</div></div>"
        for tag in dict.fromkeys(tags)
        if tag in known
    )
    return f'<div class="highlight"><pre tabindex="0">{text}</pre></div><div class="cited-equations">{cited}</div>'


def _line(n: int, plain: str, highlighted: str) -> str:
    """A line that continues below itself, with a deeper indent, where it is too long for the page."""
    indent = len(plain) - len(plain.lstrip())
    number = f'<a class="lineno" href="#line-{n}">{n}</a>'
    return f'<span class="codeline" id="line-{n}" style="--indent:{indent + 4}ch">{number}{highlighted}\n</span>'


def _highlighted(loss: str) -> list[str]:
    """The lines as HTML, in which the equation numbers in comments and docstrings are links."""
    known = displayed(loss)

    def linked(m: re.Match[str]) -> str:
        short = re.sub(r'(?<=class="c1)(?=">[^<]{,16}<)', " together", m[0])  # is not broken
        return equations.CITATION.sub(lambda c: equations.link(c[1]) if c[1] in known else c[0], short)

    text = highlight(source(loss), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    return [re.sub(r'<span class="(?:c1|sd)">.*?</span>', linked, line) for line in text.splitlines()]


def _chunks(loss: str) -> Iterator[tuple[int, int, bool]]:
    """The first and last line of each definition or method, and whether it belongs to the rule.

    The rule comes first in a file. The functions that users call and the argument checks come after it.
    """
    lines, interface = source(loss).splitlines(), {loss, *manual_grad.__all__}
    starts: list[tuple[int, bool]] = []
    of_rule, between = True, False
    for node in ast.parse(source(loss)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr)):
            continue
        of_rule = of_rule and getattr(node, "name", None) not in interface
        members = node.body if isinstance(node, ast.ClassDef) else []
        definitions = [n for n in (node, *members) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        starts += [(_first_line(n, lines), of_rule) for n in (definitions or [node] * (not between))]
        between = not definitions
    for (start, of_rule), (after, _) in pairwise([*starts, (len(lines) + 1, False)]):
        end = after - 1
        while not lines[end - 1].strip():
            end -= 1
        yield start, end, of_rule


def _first_line(node: ast.stmt, lines: list[str]) -> int:
    """The first line of a definition, including its decorators and the comment above it."""
    line = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    while lines[line - 2].lstrip().startswith("#"):
        line -= 1
    return line
