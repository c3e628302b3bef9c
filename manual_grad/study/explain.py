"""A chapter or a guide in the terminal: as plain text, or with rich in bold, color and links."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from gradcheck.chapter import Chapter, Equation, Figure, equation, figure
from manual_grad.study import tex

if TYPE_CHECKING:
    from rich.console import Console

_MARKUP = re.compile(
    r"\\(?P<escape>.)"
    r"|:math:`(?P<math>[^`]+)`"
    r"|:[a-z:]+:`(?P<role>[^`]+)`"
    r"|``(?P<code>.+?)``"
    r"|\*\*(?P<bold>.+?)\*\*"
    r"|\*(?P<italic>[^*\s][^*]*)\*"
    r"|`(?P<text>[^`<]+?)\s+<(?P<url>[^`>]+)>`__?"
)
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ", re.MULTILINE)
_CODE = "cyan"
_HARD, _LONG = "\N{NO-BREAK SPACE}", 24  # a formula up to this length is not broken across lines


class Span(NamedTuple):
    """A piece of a paragraph: its text, its style as named by rich, and its link target."""

    text: str
    style: str = ""
    url: str = ""


def spans(paragraph: str) -> Iterator[Span]:
    """The paragraph as one line, without its markup."""
    paragraph = " ".join(paragraph.split())
    end = 0
    for found in _MARKUP.finditer(paragraph):
        yield Span(paragraph[end : found.start()])
        end = found.end()
        kind, content = next((kind, content) for kind, content in found.groupdict().items() if content)
        if kind == "math":
            formula = tex.inline(content)
            yield Span(formula if len(formula) > _LONG else formula.replace(" ", _HARD))
        elif kind == "role":
            yield Span(_target(content), _CODE)
        elif kind == "code":
            yield Span(content, _CODE)
        elif kind == "escape":
            yield Span(content.strip())
        elif kind == "text":
            yield Span(content, url=found["url"])
        else:
            yield Span(content, kind)
    yield Span(paragraph[end:])


def plain(chapter: Chapter, width: int) -> str:
    """The chapter as plain text, with the addresses of links spelled out."""

    def line(paragraph: str) -> str:
        return "".join(_spelled(span) if span.url else span.text for span in spans(paragraph))

    title = textwrap.wrap(line(chapter.title.rstrip(".")), width)
    blocks = ["\n".join([*title, "=" * max(map(len, title))])]
    for indent, block in _blocks(chapter):
        if isinstance(block, Equation):
            blocks.append(tex.display(block.latex, block.label, width))
        elif indent is None:
            blocks.append(block)
        else:
            blocks.append(textwrap.fill(line(block), width, subsequent_indent=indent, break_on_hyphens=False))
    return "\n\n".join(blocks).replace(_HARD, " ")


def show(chapter: Chapter, console: Console) -> None:
    """Print the chapter with the styles and links that the terminal supports."""
    from rich.text import Text

    def line(paragraph: str) -> Text:
        parts = ((s.text.replace(_HARD, " "), f"link {s.url}" if s.url else s.style) for s in spans(paragraph))
        return Text.assemble(*parts)

    as_it_is: dict[str, Any] = dict(no_wrap=True, overflow="ignore", crop=False)
    console.print(line(chapter.title.rstrip(".")), style="bold underline")
    for indent, block in _blocks(chapter):
        console.print()
        if isinstance(block, Equation):
            console.print(Text(tex.display(block.latex, block.label, console.width)), **as_it_is)
        elif indent is None:
            console.print(Text(block, _CODE), **as_it_is)
        else:
            console.print(line(block))


_FENCED = re.compile(r"^(`{3,})\{(\w+)\}(.*)\n((?s:.*?))^\1$", re.MULTILINE)
_ALT = re.compile(r"^---\nalt: >-\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
_CODE_OR_MATH = re.compile(
    r"(?P<kept>^```(?s:.*?)^```$|`[^`\n]+`)|\$\$(?P<display>[^$]+)\$\$|\$(?P<inline>[^$\n]+(?:\n[^$\n]+)?)\$"
    r"|\[(?P<text>[^\]]+)\]\((?!https?:)[^)]+\)",
    re.MULTILINE,
)


def markdown(guide: str, width: int) -> str:
    """A guide as Markdown that a terminal can show: formulas as text, figures by their descriptions, no local links."""

    def directive(found: re.Match[str]) -> str:
        name, content = found[2], found[4]
        if name == "figure":
            return figure(_ALT.sub(r":alt: \1\n", content)).words
        return f"**{name.capitalize()}.** {markdown(content, width)}"

    def formula(found: re.Match[str]) -> str:
        if found["display"]:
            parsed = equation(found["display"])
            return f"```text\n{tex.display(parsed.latex, parsed.label, width)}\n```"
        return tex.inline(found["inline"]) if found["inline"] else found["text"] or found[0]

    return _CODE_OR_MATH.sub(formula, _FENCED.sub(directive, guide))


def show_guide(guide: str, console: Console) -> None:
    """Print the guide with the styles and links that the terminal supports."""
    from rich.markdown import Markdown

    console.print(Markdown(markdown(guide, console.width - 4), code_theme="ansi_dark"))


def _blocks(chapter: Chapter) -> Iterator[tuple[str | None, str | Equation]]:
    """Blocks with the indent of their continuation lines; None for preformatted text."""
    for block in chapter.blocks:
        if isinstance(block, Equation):
            yield "", block
            if block.unexecuted:
                yield "", f"*{block.remark}*"
        elif isinstance(block, Figure):
            yield "", block.words
        elif block.startswith((">>>", "==", " ")):  # code or a table
            yield None, textwrap.indent(textwrap.dedent(block), "    ")
        elif _ITEM.match(block):
            starts = [found.start() for found in _ITEM.finditer(block)]
            for start, end in zip(starts, [*starts[1:], None], strict=True):
                yield " " * block[start:end].index(" ") + " ", block[start:end]
        else:
            yield "", block.removesuffix(":") if block.endswith("::") else block


def _spelled(link: Span) -> str:
    """The address, preceded by the text unless that is redundant: https://doi.org/10.1 for doi:10.1."""
    identifier = link.text.partition(":")[2]
    return link.url if identifier and link.url.endswith(identifier) else f"{link.text} <{link.url}>"


def _target(role: str) -> str:
    """The text of a reference like ~torch.nn.HuberLoss."""
    if role.endswith(">"):
        return role.partition(" <")[0]
    return role.rpartition(".")[2] if role.startswith("~") else role
