"""The page on speed, from the committed results of the benchmarks: every processor beside the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from html import escape

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from benchmarks import report
from benchmarks.bounds import costs as bounds
from benchmarks.bounds.costs import Cost, Costs
from benchmarks.scaling import tables
from benchmarks.timing import Result
from extension import grid, names, speed
from extension.speed import Row
from manual_grad.catalogue import BY_NAME

UNKNOWN = "not recorded"
COSTS = (
    *("all", "vector", "÷ √", "stack", "ports", "measured"),
    *("arithmetic", "faults", "sweep", "bound", "measured", "of sweep"),
)
MEASURED = ("manual_grad", "eager", "compiled", "× eager", "× compiled", "bytes", "ns", "of sweep")


def machines() -> str:
    """What is known of each machine."""
    described = [{"runs": "1", "date": UNKNOWN, "commit": UNKNOWN} | machine for _, machine in speed.known().values()]
    keys = [key for key in dict.fromkeys(key for machine in described for key in machine) if key != "CPU"]
    body = (grid.row(key, *(machine.get(key, UNKNOWN) for machine in described)) for key in keys)
    return grid.table(grid.columns("", *map(report.processor, described)), body)


def summary() -> str:
    """The mean speed-ups, and the lowest."""
    found = {m: {size: cells for size, *cells in report.summary(results)} for m, (results, _) in speed.known().items()}
    body = []
    for title in dict.fromkeys(title for of in found.values() for title in of):
        lines = {m: [escape(cell) for cell in of[title]] for m, of in found.items() if title in of}
        body.append(_beside(title, lines))
    return grid.table(_head(*report.SUMMARY), body)


def times(size: str) -> str:
    """The table of a size."""
    rows = (_times(row) for row in speed.rows() if speed.case(row).section == size)
    return grid.table(_head("loss", *MEASURED), rows)


def _times(row: Row) -> str:
    return _beside(_name(speed.case(row)), {machine: _cells(r) for machine, r in row.items()})


def _cells(r: Result) -> list[str]:
    return [
        *(report.time(r.timings.get(name)) for name in speed.SHOWN),
        *(_factor(r.speedups(other)) for other in report.OTHERS),
        report.digits(r.bytes / r.elements),
        report.digits(r.nanoseconds()),
        f"{r.of_sweep:.0%}",
    ]


def _factor(speedups: list[float]) -> str:
    """The median over the runs, the lowest and the highest."""
    if not speedups:
        return ""
    low, high = (report.digits(bound(speedups)) for bound in (min, max))
    return report.digits(statistics.median(speedups)) + (f" <small>{low}–{high}</small>" if len(speedups) > 1 else "")


def _head(name: str, *columns: str) -> str:
    cells = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return f'<tr><th scope="col" colspan="2">{name}, processor</th>{cells}</tr>'


def _beside(name: str, lines: dict[str, list[str]]) -> str:
    """A row for each machine, and a name for all of them."""
    rows = (
        f'<th scope="row">{escape(speed.processor(machine))}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for machine, cells in lines.items()
    )
    return f'<tr><th scope="row" rowspan="{len(lines)}">{name}</th>' + "<tr>".join(rows)


def _name(of: Result) -> str:
    variant = f", {escape(of.variant)}" if of.variant else ""
    return f'<a href="losses/{of.loss}.html">{names.breakable(of.loss)}</a>{variant}'


# -- the roofline


def bound_by_memory(results: Iterable[Result]) -> list[Result]:
    """The large rows for which memory is the limit: all but those with matrix products."""
    return [r for r in results if r.section == "large" and BY_NAME[r.loss].family != "linear"]


def sweep_speed(results: Iterable[Result]) -> float:
    """The median of the bytes per nanosecond, that is GB/s, at which the sweep moves."""
    return statistics.median(r.bytes / r.elements / r.nanoseconds("sweep") for r in results)


class Rooflines(SphinxDirective):
    """The figure of each machine."""

    def run(self) -> list[nodes.Node]:
        figures = (_roofline(machine, results) for machine, (results, _) in speed.known().items())
        return self.parse_text_to_nodes("\n\n".join([".. container:: figures", *figures]))


def _roofline(machine: str, results: list[Result]) -> str:
    shown = bound_by_memory(results)
    least = min(shown, key=lambda r: r.of_sweep)
    fast = sum(r.of_sweep >= 0.8 for r in shown)
    caption = (
        f"{speed.processor(machine)}: the sweep moves {sweep_speed(shown):.1f} GB/s. {fast} of {len(shown)} losses "
        f"reach 80% of its speed, {least.name} only {least.of_sweep:.0%}."
    )
    return (
        f"   .. figure:: /figures/roofline_{machine}.svg\n"
        f"      :alt: Nanoseconds against bytes per element. {caption} The table below has all figures.\n\n"
        f"      {caption}"
    )


def shares() -> str:
    """The share of the sweep's speed that each loss reaches, the highest first."""
    rows = [row for row in speed.rows() if bound_by_memory([speed.case(row)])]
    rows.sort(key=lambda row: -statistics.geometric_mean(r.of_sweep for r in row.values()))
    machines = list(speed.known())
    of_each = '<th scope="col">ns</th><th scope="col">sweep\'s</th><th scope="col" colspan="2">of sweep</th>'
    head = (
        '<tr><th scope="col" rowspan="2">loss</th><th scope="col" rowspan="2">bytes</th>'
        + "".join(f'<th scope="colgroup" colspan="4">{escape(speed.processor(machine))}</th>' for machine in machines)
        + f"</tr><tr>{of_each * len(machines)}</tr>"
    )
    return grid.table(head, (_share(row, machines) for row in rows))


def _share(row: Row, machines: list[str]) -> str:
    of = speed.case(row)
    cells = "".join(_bar(row[machine]) if machine in row else "<td></td>" * 4 for machine in machines)
    return f'<tr><th scope="row">{_name(of)}</th><td>{report.digits(of.bytes / of.elements)}</td>{cells}</tr>'


def _bar(r: Result) -> str:
    width = min(100 * r.of_sweep, 120)
    return (
        f"<td>{report.digits(r.nanoseconds())}</td><td>{report.digits(r.nanoseconds('sweep'))}</td>"
        '<td><svg width="120" height="14" aria-hidden="true">'
        f'<rect class="ours" y="2" width="{width:.0f}" height="10"/><line x1="100" x2="100" y1="0" y2="14"/></svg></td>'
        f"<td>{r.of_sweep:.0%}</td>"
    )


# -- arithmetic


def costs() -> str:
    """What the arithmetic of each loss costs, and what bounds its time at the large size; a table for each machine."""
    return "".join(_costs(machine, found) for machine, found in speed.bounds().items()) or "<p>Not measured yet.</p>"


def _costs(machine: str, found: Costs) -> str:
    results, timed_on = speed.known().get(machine, ([], {}))
    large = {(r.loss, r.variant, "float32"): r for r in results if r.section == "large" and not r.red}
    rows = [(cost, large.get((cost.loss, cost.variant, cost.dtype))) for cost in found.costs]
    rows.sort(key=lambda row: row[1].of_sweep if row[1] else math.inf)
    threads = int(timed_on.get("threads", 1))
    text = (
        f"{report.described(found.machine)} Threads at the large size: {threads}. Page faults: "
        f"{report.digits(found.faults)} ns per byte of gradients, on one thread."
    )
    head = (
        '<tr><th scope="col" rowspan="2">loss</th><th scope="colgroup" colspan="4">instructions</th>'
        '<th scope="colgroup" colspan="2">cycles</th><th scope="colgroup" colspan="6">large, ns</th></tr><tr>'
        + "".join(f'<th scope="col">{column}</th>' for column in COSTS)
        + "</tr>"
    )
    table = grid.table(head, (_cost(cost, r, found.faults, threads) for cost, r in rows))
    return f"<p>{escape(text)}</p>{table}"


def _cost(cost: Cost, large: Result | None, faults: float, threads: int) -> str:
    figures = [cost.instructions, cost.vector, cost.divisions, cost.stack]
    cells = [*map(report.digits, figures), "–" if cost.ports is None else report.digits(cost.ports)]
    cells.append(report.digits(cost.cycles))
    if large:
        of = bounds.bound(cost, faults, large, threads)
        cells += map(report.digits, (of.arithmetic, of.faults, of.sweep, of.least, large.nanoseconds()))
        cells.append(f"{large.of_sweep:.0%}")
    else:
        cells += [""] * 6
    return grid.row(cost.name, *cells)


# -- scaling


def scaling() -> str:
    """Every table, of every machine that has it."""
    parts = [f"<p>{escape(report.described(machine))}</p>" for _, machine in speed.scaling().values()]
    for questions, title, table in tables.TABLES:
        parts.append(f"<h3>{escape(title)}</h3>")
        for answers, machine in speed.scaling().values():
            if any(answers.get(question) for question in questions):
                parts.append(f"<p>{escape(report.processor(machine))}</p>{grid.from_markdown(table(answers))}")
    return "".join(parts)
