"""The home page: headline figures from the committed results, and the losses by family."""

from __future__ import annotations

from html import escape

import torch
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from benchmarks import report
from extension import accuracy, names, pages, speed
from gradcheck import CHECKS
from manual_grad import specs
from manual_grad.catalogue import BY_NAME, FAMILIES, of_family
from manual_grad.study.curves import trace


def headline() -> str:
    large = [[r for r in results if r.section == "large"] for results, _ in speed.known().values()]
    eager, compiled = (
        report.span(filter(None, (report.mean_speedup(some, other) for some in large))) for other in report.OTHERS
    )
    processors = "; ".join(map(speed.processor, speed.known()))
    known = accuracy.known().values()
    worst = max(map(accuracy.worst, accuracy.known()))
    lost = sum(any(accuracy.is_lost(loss[what]["torch"]) for what in ("value", "gradient")) for loss in known)
    regimes = sum(len(loss["regimes"]) for loss in known)
    count = len(specs.NAMES)
    cards = [
        (
            f"{eager}×",
            "as fast as torch eager",
            f"{compiled}× as fast as torch.compile: geometric means over {len(large[0])} cases, forward plus backward, "
            f"large tensors ({processors}).",
        ),
        (
            f"{worst:.1f} eps",
            "worst error in float32",
            f"over all values and gradients, in {regimes} regimes of {count} losses. For {lost} of these, torch's "
            "own function has a regime where no digit is correct.",
        ),
        (
            f"{len(CHECKS)} checks",
            "verify each loss",
            f"of {count}: against autograd, finite differences and exact arithmetic, at kinks, to second order and "
            "under every transform.",
        ),
    ]
    return (
        '<div class="headline">'
        + "".join(
            f'<div><p class="figure">{figure}</p><p class="claim">{claim}</p><p>{escape(detail)}</p></div>'
            for figure, claim, detail in cards
        )
        + "</div>"
    )


class LossesByFamily(SphinxDirective):
    """A heading, a row of cards and a section of the table of contents for each family."""

    def run(self) -> list[nodes.Node]:
        text = "\n\n".join(map(_family, FAMILIES))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class LossesTable(SphinxDirective):
    """The function and the Modules of each loss, by family."""

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - family", "     - function", "     - Module"]
        for family in FAMILIES:
            for loss in _members(family):
                modules = ", ".join(f":class:`~manual_grad.{name}`" for name in BY_NAME[loss].modules)
                function = f":func:`~{pages.function_of(loss)}`"
                lines += [f"   * - {family}", f"     - {function}", f"     - {modules}"]
        return self.parse_text_to_nodes("\n".join(lines))


def _members(family: str) -> list[str]:
    return sorted(loss.name for loss in of_family(family))


def _family(family: str) -> str:
    losses = _members(family)
    title = family.capitalize()
    cards = "".join(map(_card, losses))
    entries = "\n".join(f"   {loss} <losses/{loss}>" for loss in losses)
    return (
        f"{title}\n{'-' * len(title)}\n\nA function of {FAMILIES[family]}.\n\n"
        f'.. raw:: html\n\n   <div class="cards">{cards}</div>\n\n'
        f".. toctree::\n   :hidden:\n   :caption: {title}\n\n{entries}"
    )


def _card(loss: str) -> str:
    times = pages.speedup(loss)
    achieved = (f"{times}×, " if times else "") + f"{pages.worst_error(loss)} eps"
    modules = ", ".join(map(names.breakable, BY_NAME[loss].modules))
    return (
        f'<a class="card" href="losses/{loss}.html">{_sketch(loss)}<strong>{names.breakable(loss)}</strong>'
        f"<span>{modules}</span><small>{achieved}</small></a>"
    )


def _sketch(loss: str, width: int = 120, height: int = 48) -> str:
    """The curve of the loss, with its gradient behind it."""
    drawn = trace(loss, points=49)
    low, high = drawn.curve.span

    def path(order: int) -> str:
        bottom, top = drawn.limits(order)
        points = []
        for piece in drawn.pieces:
            x = (piece.s - low) / (high - low) * width
            y = ((top - piece.y[order]) / (top - bottom) * height).clamp(-height, 2 * height)
            pairs = torch.stack([x, y], dim=1).tolist()
            points.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in pairs))
        return "".join(points)

    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="gradient" d="{path(1)}"/><path class="loss" d="{path(0)}"/></svg>'
    )
