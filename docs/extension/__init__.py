"""Generates the pages of the losses from their chapters, curves, code and committed results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from extension import accuracy, code, equations, field, home, links, measured, names, pages, panel, signatures, speed

PARTS = {
    "loss-facts": pages.facts,
    "loss-figure": pages.curves,
    "loss-panel": panel.html,
    "loss-code": code.html,
    "loss-accuracy": accuracy.html,
    "loss-speed": speed.html,
    "headline": home.headline,
    "speed-machines": measured.machines,
    "speed-summary": measured.summary,
    "speed-shares": measured.shares,
    "speed-costs": measured.costs,
    "speed-times": measured.times,
    "speed-scaling": measured.scaling,
    "field-summary": field.summary,
    "field-table": field.table,
    "field-findings": field.listed,
}


def part(render: Callable[..., str]) -> type[SphinxDirective]:
    """A directive that inserts the HTML which ``render`` returns for its arguments."""

    class Part(SphinxDirective):
        optional_arguments = 1

        def run(self) -> list[nodes.Node]:
            return [nodes.raw("", render(*self.arguments), format="html")]

    return Part


class Answer(SphinxDirective):
    """The answer to an exercise, folded until the reader asks for it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [
            nodes.raw("", '<details class="answer"><summary>Answer</summary>', format="html"),
            *self.parse_content_to_nodes(),
            nodes.raw("", "</details>", format="html"),
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    for name, render in PARTS.items():
        app.add_directive(name, part(render))
    app.add_directive("answer", Answer)
    app.add_directive("speed-rooflines", measured.Rooflines)
    app.add_directive("losses-by-family", home.LossesByFamily)
    app.add_directive("losses-table", home.LossesTable)
    app.connect("builder-inited", lambda app: pages.write(Path(app.srcdir), Path(app.outdir)))
    equations.setup(app)
    links.setup(app)
    signatures.setup(app)
    app.add_post_transform(names.Links)
    app.add_js_file("panel.js", loading_method="defer")
    app.add_js_file("search.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
