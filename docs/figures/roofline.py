"""The time of each loss beside that of the memory traffic that it needs, on each processor that was measured."""

from __future__ import annotations

from functools import partial

from extension import measured, speed
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.timing import Result
from figures import BLUE, ORANGE, add, clean
from manual_grad.study import plot

NAMED = 3  # of those farthest from the sweep


def draw(results: list[Result], page: Figure) -> None:
    shown = measured.bound_by_memory(results)
    ax = page.subplots()
    x = [r.bytes / r.elements for r in shown]
    span = 0.85 * min(x), 1.6 * max(x)  # with room for names at the right
    ax.plot(span, [bytes / measured.sweep_speed(shown) for bytes in span], color=plot.INK, linewidth=1.4, label="sweep")
    ax.plot(x, [r.nanoseconds("eager") for r in shown], "o", color=ORANGE, fillstyle="none", label="torch eager")
    ax.plot(x, [r.nanoseconds() for r in shown], "o", color=BLUE, label="manual_grad")
    for r in sorted(shown, key=lambda r: r.of_sweep)[:NAMED]:
        at = r.bytes / r.elements, r.nanoseconds()
        ax.annotate(r.name, at, (6, -3), textcoords="offset points", va="top", fontsize=8)
    ax.set(xscale="log", yscale="log", xlim=span, xlabel="bytes per element", ylabel="nanoseconds per element")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks := sorted({round(bytes) for bytes in x}), [str(bytes) for bytes in ticks])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, loc="upper left", fontsize=9)
    clean(ax)


for name, (results, _) in speed.known().items():
    add(f"roofline_{name}", 5, 4, partial(draw, results))
