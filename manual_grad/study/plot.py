"""Plots of a loss: value, gradient and curvature along its line, with the kinks marked."""

from __future__ import annotations

import os
import textwrap
from typing import Any

from manual_grad.study.curves import Kink, Trace, trace

PANELS = {"loss": "#2b8cc4", "gradient": "#d9660b", "curvature": "#1a9a78"}  # distinguishable with color blindness
INK = "#767b85"  # readable on white and on black


def plot(loss: str, path: str | os.PathLike, **params: float) -> None:
    """Plot a loss of :mod:`manual_grad.functional` to a file.

    Args:
        loss: The name of the loss, such as ``"huber_loss"``.
        path: The file to write; its suffix determines the format: .png, .svg, .pdf, …
        params: Values of parameters other than their defaults; the ``CURVE`` of the loss's spec lists the parameters.

    Raises:
        ValueError: there is no such loss, or it has no such parameter.
    """
    draw(loss, trace(loss, params), path)


def draw(loss: str, drawn: Trace, path: str | os.PathLike, narrow: bool = False) -> None:
    """Draw the result of :func:`~manual_grad.study.curves.trace`, for a narrow page from top to bottom."""
    from matplotlib.figure import Figure

    with style(loss):
        figure = Figure(figsize=(4, 7.5) if narrow else (10, 3.3), layout="constrained")
        axes = figure.subplots(3, 1) if narrow else figure.subplots(1, 3)
        for order, (ax, (title, color)) in enumerate(zip(axes, PANELS.items(), strict=True)):
            ax.set_title(title, color=color, fontweight="bold")
            ax.axhline(0, color=INK, linewidth=0.6, alpha=0.6)
            for piece in drawn.pieces:
                ax.plot(piece.s.numpy(), piece.y[order].numpy(), color=color, linewidth=2.2, solid_capstyle="round")
            for kink in drawn.kinks:
                _mark(ax, drawn, kink, order, color)
            ax.set(xlim=drawn.curve.span, ylim=drawn.limits(order))
            ax.grid(color=INK, alpha=0.15)
            ax.spines[["top", "right"]].set_visible(False)
            ax.patch.set_alpha(0)
        figure.supxlabel(textwrap.fill(drawn.curve.axis, 40 if narrow else 120), color=INK, fontsize="medium")
        values = ", ".join(f"{name} = {value:g}" for name, value in drawn.params.items())
        between = "\n" if narrow else "   "
        figure.suptitle(f"{loss}{between}{values}".rstrip(), color=INK, fontsize="medium")
        save(figure, path)


def style(name: str) -> Any:
    """A context in which text and axes can be read on white and on black; the name makes an SVG reproducible."""
    from matplotlib import rc_context

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = {
        "font.size": 11,
        "svg.fonttype": "none",  # keeps text as text
        "svg.hashsalt": name,
        **dict.fromkeys(inked, INK),
    }
    return rc_context(settings)


def save(figure: Any, path: str | os.PathLike) -> None:
    """Write the figure; an SVG is transparent and has no date."""
    vector = str(path).endswith(".svg")
    figure.savefig(path, dpi=150, transparent=vector, metadata={"Date": None} if vector else None)


def _mark(ax: Any, drawn: Trace, kink: Kink, order: int, color: str) -> None:
    """Draw a line at the kink, open dots where a derivative jumps, and a filled one for the value chosen there."""
    ax.axvline(kink.s, color=INK, linewidth=1, linestyle=(0, (2, 3)))
    if order >= kink.order:
        for piece in drawn.pieces:
            for end in (0, -1):
                if abs(piece.s[end] - kink.s) < 1e-6:
                    ax.plot(kink.s, piece.y[order][end], "o", markersize=6, markerfacecolor="none", color=color)
    if kink.y is not None:
        ax.plot(kink.s, kink.y[order], "o", markersize=5, color=color)
