"""Names of losses: where they may be broken, and links to their pages from wherever a text names them."""

from __future__ import annotations

import functools
import re
from html import escape

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

from manual_grad.catalogue import BY_NAME
from manual_grad.study import texts


def breakable(name: str) -> str:
    """HTML of a name, which a narrow page may break after an underscore or before a capital letter."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[_.])", "<wbr>", escape(name))


@functools.cache
def pages() -> dict[str, str]:
    """A dict from the names of functions and Modules to the loss on whose page they are."""
    return {name: loss.name for loss in BY_NAME.values() for name in (loss.name, *loss.also, *loss.modules)}


def named(text: str) -> str | None:
    """The loss that a piece of code names, as in ``huber_loss``, ``F.huber_loss`` or ``HuberLoss()``."""
    return pages().get(re.sub(r"^(?:F|nn|manual_grad(?:\.functional)?)\.|\(\)$", "", text))


@functools.cache
def guides() -> dict[str, list[texts.Section]]:
    """A dict from each loss to the sections that name it, one of each guide: the one about it, or the first."""
    found: dict[str, list[texts.Section]] = {loss: [] for loss in BY_NAME}
    for topic in texts.topics():
        best: dict[str, texts.Section] = {}
        for section in texts.sections(topic):
            words = {*re.findall(r"`([^`\n]+)`", section.text), *section.heading.split()}
            for loss in {named(word) for word in words} - {None}:
                if loss not in best or named(section.heading) == loss:
                    best[loss] = section
        for loss, section in best.items():
            found[loss].append(section)
    return found


class Links(SphinxPostTransform):
    """In the text of a page, the name of a loss leads to its page."""

    default_priority = 90
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        here = self.env.docname
        for literal in list(self.document.findall(nodes.literal)):
            loss = named(literal.astext())
            if loss is None or here == f"losses/{loss}" or _is_linked(literal):
                continue
            address = self.env.app.builder.get_relative_uri(here, f"losses/{loss}")
            link = nodes.reference("", "", internal=True, refuri=address)
            literal.replace_self(link)
            link += literal


def _is_linked(node: nodes.Node) -> bool:
    while node := node.parent:
        if isinstance(node, (nodes.reference, nodes.title)):
            return True
    return False
