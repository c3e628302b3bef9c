"""The times of a loss beside torch's, from the committed results of the benchmarks."""

from __future__ import annotations

import functools
from html import escape

from benchmarks import readme, report
from benchmarks.scaling import tables
from benchmarks.timing import Result

SHOWN = {"manual_grad": "manual_grad", "eager": "torch eager", "compiled": "torch.compile"}


@functools.cache
def known() -> tuple[list[Result], dict[str, str]]:
    return report.read_json(readme.TIMES)


def html(loss: str) -> str:
    results = [r for r in known()[0] if r.loss == loss and not r.red]
    if not results:
        return "<p>This loss is not timed.</p>"
    machine = known()[1]
    return (
        _memory(loss) + "<p>Median times of forward plus backward. The bars of one size share a scale. "
        f"{_of(machine)}.</p>"
        + "".join(_group(r) for r in results)
        + "<p>Measured by <code>python -m benchmarks</code>.</p>"
    )


def memory(loss: str) -> list[list[str]]:
    """The table of the peak memory beside torch's, of the loss that is made to save it; else it is empty."""
    return tables.by_projection(tables.read_json(readme.SCALING)[0]) if loss == "linear_cross_entropy" else []


def _memory(loss: str) -> str:
    table = memory(loss)
    if not table:
        return ""
    head, _, *body = table
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    rows = "".join(
        f'<tr><th scope="row">{size}</th>{"".join(f"<td>{peak}</td>" for peak in peaks)}</tr>' for size, *peaks in body
    )
    machine = tables.read_json(readme.SCALING)[1]
    return (
        "<p>It is made to save memory, not time: most of its time goes to matrix products, which are torch's on both "
        "sides. Its peak memory beyond inputs and gradients does not grow with the number of scores. "
        f"{_of(machine)}.</p>"
        f'<div class="scroll" tabindex="0"><table class="results"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div><p>Measured by <code>python -m benchmarks.scaling</code>.</p>"
    )


def _of(machine: dict[str, str]) -> str:
    return f"{escape(machine['CPU'])}, {machine['threads']} threads, torch {escape(machine['torch'])}"


def _group(result: Result) -> str:
    (cells, _) = report.rows([result], quartiles=False)
    times = dict(zip(report.HEAD, cells, strict=True))
    longest = max(t.median for name, t in result.timings.items() if name in SHOWN)
    rows = "".join(
        f'<tr><th scope="row">{label}</th><td>{times[name]}</td>'
        f'<td class="bar"><span class="{name}" style="width:{100 * result.timings[name].median / longest:.1f}%"></span>'
        f"{_factor(result, name)}</td></tr>"
        for name, label in SHOWN.items()
        if name in result.timings
    )
    size = " × ".join(f"{n:,}" for n in result.shape)
    variant = f"{escape(result.variant)}, " if result.variant else ""
    return f'<table class="bars"><caption>{variant}{result.section}: {size}</caption><tbody>{rows}</tbody></table>'


def _factor(result: Result, name: str) -> str:
    speedup = None if name == "manual_grad" else result.speedup(name)
    return (
        ""
        if speedup is None
        else f" <small>{speedup:.2g}×</small>"
        if speedup < 10
        else f" <small>{speedup:.0f}×</small>"
    )
