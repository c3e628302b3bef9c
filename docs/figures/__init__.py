"""The figures of chapters, lessons and guides, which show them as ``/figures/<name>.svg``.

What is drawn is computed by the losses themselves. A figure is a function with the decorator :func:`figure`, in any
module of this folder.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from manual_grad.study import plot

# distinguishable with color blindness, readable on white and on black
BLUE, ORANGE, GREEN, PURPLE, RED, OLIVE, SKY, PINK = COLORS = (
    "#2b8cc4", "#d9660b", "#1a9a78", "#8f6fd6", "#d0455b", "#8a7f1e", "#4fa9a9", "#c763a8",
)  # fmt: skip
DRAWN: dict[str, Callable[[], Figure]] = {}


def figure(width: float, height: float) -> Callable[[Callable[[Figure], None]], Callable[[Figure], None]]:
    """Register a function that draws the figure of its own name; the size is in inches."""

    def register(draw: Callable[[Figure], None]) -> Callable[[Figure], None]:
        add(draw.__name__, width, height, draw)
        return draw

    return register


def add(name: str, width: float, height: float, draw: Callable[[Figure], None]) -> None:
    def drawn() -> Figure:
        page = Figure(figsize=(width, height), layout="constrained")
        draw(page)
        return page

    DRAWN[name] = drawn


def clean(axes: Axes | Iterable[Axes]) -> None:
    """A light grid, no frame, and no background, so that the page's own shows through."""
    for ax in [axes] if isinstance(axes, Axes) else axes:
        ax.grid(color=plot.INK, alpha=0.15)
        ax.spines[["top", "right"]].set_visible(False)
        ax.patch.set_alpha(0)


def frame(page: Figure, axis: str, span: tuple[float, float], limits: dict[str, tuple[float, float]]) -> None:
    """Finish panels that share a horizontal axis: their titles with the range of each, and a line at 0."""
    for ax, (title, shown) in zip(page.axes, limits.items(), strict=True):
        ax.set(title=title, xlim=span, ylim=shown)
        ax.axhline(0, color=plot.INK, linewidth=0.6, alpha=0.6)
    clean(page.axes)
    page.supxlabel(axis, color=plot.INK, fontsize="medium")


def names() -> list[str]:
    """The names of all figures."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return list(DRAWN)


def write(name: str, folder: Path) -> None:
    """Draw a figure into the folder."""
    with plot.style(name):
        plot.save(DRAWN[name](), folder / f"{name}.svg")
