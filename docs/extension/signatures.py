"""Signatures: on several lines, which Sphinx writes as lists of definitions without terms; defaults in plain text."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LINES = re.compile(r'(<span class="sig-paren">[(\[]</span>)\s*<dl>(.*?)</dl>', re.DOTALL)


OBJECT = re.compile(r"<(?:[^<>]|<[^<>]*>)*>")  # a default that Python has no expression for, such as <factory>


def readable(app: Sphinx, what: str, name: str, documented: Any, options: Any, signature: str, result: str) -> Any:
    """Write such defaults as dots; Sphinx cannot read the signature otherwise, and shows it raw."""
    return (OBJECT.sub("...", signature) if signature and "->" not in signature else signature), result


def correct(app: Sphinx, page: str, template: str, context: dict[str, Any], document: object) -> None:
    def lines(found: re.Match[str]) -> str:
        return f'{found[1]}<span class="sig-lines">{found[2].replace("dd>", "span>")}</span>'

    if "body" in context:
        context["body"] = LINES.sub(lines, context["body"])


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", readable)
    app.connect("html-page-context", correct)
