"""The times of a loss beside torch's, from the committed results of the benchmarks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from html import escape

from benchmarks import readme, report
from benchmarks.bounds.costs import Costs, read_json
from benchmarks.scaling import tables
from benchmarks.timing import Result
from extension import grid

SHOWN = {"manual_grad": "manual_grad", "eager": "torch eager", "compiled": "torch.compile"}

Row = Mapping[str, Result]  # the results of one case and size, by machine


@functools.cache
def known() -> dict[str, tuple[list[Result], dict[str, str]]]:
    """The results and the description of each machine."""
    return readme.times()


@functools.cache
def scaling() -> dict[str, tuple[tables.Answers, dict[str, str]]]:
    return report.of_machines(readme.SCALING, tables.read_json)


@functools.cache
def bounds() -> dict[str, Costs]:
    """What arithmetic costs on each machine for which this is measured, perhaps none."""
    return {file.stem: read_json(file) for file in sorted(readme.BOUNDS.glob("*.json"))}


@functools.cache
def rows() -> list[Row]:
    found: dict[tuple[str, str, str], dict[str, Result]] = {}
    for machine, (results, _) in known().items():
        for r in results:
            found.setdefault((r.loss, r.variant, r.section), {})[machine] = r
    return list(found.values())


def case(row: Row) -> Result:
    """One of the results, for what they have in common."""
    return next(iter(row.values()))


def processor(machine: str) -> str:
    return report.processor(known()[machine][1])


def html(loss: str) -> str:
    timed = [row for row in rows() if case(row).loss == loss]
    if not timed:
        return "<p>This loss is not timed.</p>"
    machines = "; ".join(_of(machine) for _, machine in known().values())
    return (
        _memory(loss)
        + f"<p>Median times of forward plus backward. The bars of one size share a scale. {machines}.</p>"
        + "".join(map(_group, timed))
        + "<p>Measured by <code>python -m benchmarks</code>. How, and all losses: "
        '<a href="../benchmarks.html">Speed</a>.</p>'
    )


def memory(loss: str) -> list[list[str]]:
    """The table of the peak memory beside torch's, of the loss that is made to save it; else it is empty."""
    if loss != "linear_cross_entropy":
        return []
    answers, _ = next(iter(scaling().values()))  # allocations do not depend on the machine
    return tables.by_projection(answers)


def _memory(loss: str) -> str:
    table = memory(loss)
    if not table:
        return ""
    _, machine = next(iter(scaling().values()))
    return (
        "<p>It is made to save memory, not time: most of its time goes to matrix products, which are torch's on both "
        "sides. Its peak memory beyond inputs and gradients does not grow with the number of scores. "
        f"{_of(machine)}.</p>{grid.from_markdown(table)}<p>Measured by <code>python -m benchmarks.scaling</code>.</p>"
    )


def _of(machine: dict[str, str]) -> str:
    return f"{escape(machine['CPU'])}, {machine['threads']} threads, torch {escape(machine['torch'])}"


def _group(row: Row) -> str:
    longest = max(t.median for r in row.values() for name, t in r.timings.items() if name in SHOWN)
    bodies = "".join(
        f'<tbody><tr><th scope="rowgroup" colspan="3">{escape(processor(machine))}</th></tr>'
        f"{_bars(result, longest)}</tbody>"
        for machine, result in row.items()
    )
    of = case(row)
    size = " × ".join(f"{n:,}" for n in of.shape)
    variant = f"{escape(of.variant)}, " if of.variant else ""
    return f'<table class="bars"><caption>{variant}{of.section}: {size}</caption>{bodies}</table>'


def _bars(result: Result, longest: float) -> str:
    return "".join(
        f'<tr><th scope="row">{label}</th><td>{report.time(timing)}</td>'
        f'<td class="bar"><span class="{name}" style="width:{100 * timing.median / longest:.1f}%"></span>'
        f"{_factor(result, name)}</td></tr>"
        for name, label in SHOWN.items()
        if (timing := result.timings.get(name))
    )


def _factor(result: Result, name: str) -> str:
    speedup = None if name == "manual_grad" else result.speedup(name)
    return (
        ""
        if speedup is None
        else f" <small>{speedup:.2g}×</small>"
        if speedup < 10
        else f" <small>{speedup:.0f}×</small>"
    )
