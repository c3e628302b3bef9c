"""Signatures on several lines, which Sphinx writes as lists of definitions without terms: invalid, and read as such."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LINES = re.compile(r'(<span class="sig-paren">[(\[]</span>)\s*<dl>(.*?)</dl>', re.DOTALL)


def correct(app: Sphinx, page: str, template: str, context: dict[str, Any], document: object) -> None:
    def lines(found: re.Match[str]) -> str:
        return f'{found[1]}<span class="sig-lines">{found[2].replace("dd>", "span>")}</span>'

    if "body" in context:
        context["body"] = LINES.sub(lines, context["body"])


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", correct)
