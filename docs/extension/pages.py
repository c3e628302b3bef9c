"""The sources of the pages: guides as they are; losses from their chapters and lessons, with what directives render."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import shutil
from html import escape
from pathlib import Path

import figures
from docutils import nodes

import manual_grad.functional
from benchmarks import readme
from extension import accuracy, names, speed
from manual_grad import specs
from manual_grad.catalogue import BY_NAME
from manual_grad.study import plot, texts
from manual_grad.study.curves import curve_of, trace

CURVES = "_images/curves"
PAGE = """:hide-toc:

.. py:module:: {path}

{title}
{rule}

.. loss-facts:: {loss}

.. loss-figure:: {loss}

Derivation
==========

{chapter}

Try it
======

.. loss-panel:: {loss}

{lesson}

Code
====

.. loss-code:: {loss}

Accuracy
========

.. loss-accuracy:: {loss}

Speed
=====

.. loss-speed:: {loss}

Interface
=========

{interface}
"""


def write(folder: Path, built: Path) -> None:
    """Write the guides, the page of each loss, and the figures; the curves of the losses where the site is built."""
    shutil.copytree(texts.GUIDES, Path(folder, "guides"), dirs_exist_ok=True)
    pages, curves, others = Path(folder, "losses"), Path(built, CURVES), Path(folder, "figures")
    for made in (pages, curves, others):
        made.mkdir(parents=True, exist_ok=True)
    for loss in specs.NAMES:
        (pages / f"{loss}.rst").write_text(page(loss), encoding="utf-8")
    names_of_figures = figures.names()  # also registers them, for the processes
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        drawn = (
            pool.starmap_async(figures.write, [(name, others) for name in names_of_figures], chunksize=1),
            pool.starmap_async(draw, [(loss, curves) for loss in specs.NAMES], chunksize=1),
        )
        for results in drawn:
            results.get()


def draw(loss: str, folder: Path) -> None:
    """Draw the curves of a loss, for a wide page and for a narrow one."""
    drawn = trace(loss)
    for narrow in (False, True):
        plot.draw(loss, drawn, folder / f"{loss}{'-narrow' * narrow}.svg", narrow)


def page(loss: str) -> str:
    text = inspect.cleandoc(BY_NAME[loss].module.__doc__ or "")
    first, _, chapter = text.partition("\n\n")
    title, _, subtitle = first.replace("\n", " ").rstrip(".").partition(": ")
    return PAGE.format(
        loss=loss,
        path=BY_NAME[loss].path,
        title=title,
        rule="#" * len(title),
        chapter=f"{subtitle[0].upper()}{subtitle[1:]}.\n\n{chapter}" if subtitle else chapter,
        lesson=texts.lesson(loss),
        interface="\n\n".join(interface(loss)),
    )


def curves(loss: str) -> str:
    """The curves of the loss: beside each other, or on a phone below each other."""
    drawn = trace(loss)
    where = "There are no kinks."
    if drawn.kinks:
        places = ", ".join(f"{s:.3g}" for s in dict.fromkeys(k.s for k in drawn.kinks)).replace("-", "−")
        choice = "; a filled dot is the value that the rule chooses there" if any(k.y for k in drawn.kinks) else ""
        where = f"Dotted lines mark kinks, at {places}{choice}."
    caption = f"Loss, gradient and curvature against: {escape(drawn.curve.axis)}. {where}"
    return (
        f'<figure class="curves"><picture><source media="(max-width: 40em)" srcset="../{CURVES}/{loss}-narrow.svg">'
        f'<img src="../{CURVES}/{loss}.svg" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def function_of(loss: str) -> str:
    """The full name of the function."""
    if BY_NAME[loss].functional:
        return f"manual_grad.functional.{loss}"
    function = curve_of(loss).loss
    public = hasattr(manual_grad.functional, function.__name__)  # of another chapter
    return f"{'manual_grad.functional' if public else function.__module__}.{function.__name__}"


def interface(loss: str) -> list[str]:
    shared = not BY_NAME[loss].functional and function_of(loss).startswith("manual_grad.functional.")
    return [
        f".. autofunction:: {function_of(loss)}" + shared * "\n   :no-index:",
        *(f".. autofunction:: manual_grad.functional.{name}" for name in BY_NAME[loss].also),
        *(f".. autoclass:: manual_grad.{name}" for name in BY_NAME[loss].modules),
    ]


def worst_error(loss: str) -> str:
    return readme.eps(accuracy.worst(loss))


def speedup(loss: str) -> str:
    """The speed-up over torch at the large size, as in the README; empty if the loss is not timed."""
    timed = [r for row in speed.rows() for r in row.values() if r.loss == loss]
    return readme.row(specs.load(loss), accuracy.known()[loss], timed)[-1] if timed else ""


def facts(loss: str) -> str:
    """A one-line summary of the loss, and links to the sections of its page."""
    spec = specs.load(loss)
    abilities = [name for name in ("forward", "vmap", "compile") if name in spec.promises]
    shown = {
        "family": spec.family,
        "derivatives": f"to order {spec.order}, {', '.join(abilities)}",
        "worst error": f"{worst_error(loss)} eps",
    }
    if table := speed.memory(loss):
        size, _, ours, torchs = table[-1]
        shown[f"memory for {size}"] = f"{ours}, torch eager {torchs}"
    elif times := speedup(loss):
        shown["beside torch eager"] = f"{times} times as fast"
    items = "".join(f"<div><dt>{name}</dt><dd>{escape(fact)}</dd></div>" for name, fact in shown.items())
    sections = ("derivation", "try-it", "a-worked-example", "exercises", "code", "accuracy", "speed", "interface")
    ways = " ".join(f'<a href="#{s}">{s.replace("-", " ").capitalize()}</a>' for s in sections)
    return (
        f'<div class="loss-page"><code>{names.breakable(function_of(loss))}</code><dl class="facts">{items}</dl>'
        f'<nav class="ways" aria-label="On this page">{ways}</nav>{_guides(loss)}</div>'
    )


def _guides(loss: str) -> str:
    """Links to the guides that use the loss."""
    links = ", ".join(
        f'<a href="../guides/{topic}.html#{nodes.make_id(heading)}">{escape(texts.title(topic))}</a>'
        for topic, heading, _ in names.guides()[loss]
    )
    return f'<p class="guides">In the guides: {links}</p>' if links else ""
