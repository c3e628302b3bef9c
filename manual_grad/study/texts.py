"""The texts for study beside the chapters: a lesson for each loss, and the guides."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LESSONS, GUIDES = HERE / "lessons", HERE / "guides"
_HEADING = re.compile(r"^(#+) +(.+)$")


class Section(NamedTuple):
    """A section of a guide: the topic of the guide, its heading without markup, and its text."""

    topic: str
    heading: str
    text: str


def lesson(loss: str) -> str:
    """The lesson of a loss, in reStructuredText: an example by hand, its neighbours, its uses, exercises."""
    return (LESSONS / f"{loss}.rst").read_text(encoding="utf-8")


def topics() -> list[str]:
    """The topics of the guides, which are the names of their files."""
    return sorted(path.stem for path in GUIDES.glob("*.md"))


def guide(topic: str) -> str:
    """The guide on a topic, in Markdown."""
    return (GUIDES / f"{topic}.md").read_text(encoding="utf-8")


@functools.cache
def sections(topic: str) -> tuple[Section, ...]:
    """The guide, section by section; the first has the title."""
    return tuple(_sections(topic))


def _sections(topic: str) -> Iterator[Section]:
    heading, lines, fenced = "", [], False
    for line in guide(topic).splitlines():
        fenced ^= line.startswith("```")
        found = None if fenced else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        if heading:
            yield Section(topic, heading, "\n".join(lines))
        heading, lines = found[2].replace("`", ""), []
    yield Section(topic, heading, "\n".join(lines))


def title(topic: str) -> str:
    return sections(topic)[0].heading
