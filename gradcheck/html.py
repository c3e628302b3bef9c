"""A report as one self-contained page: what is wrong, the table, error by regime, kinks, failures by cause.

A page has the same parts for a function with a spec and for one of a user's own; a part is left out where a report has
nothing for it. The drawings are SVG, made of the numbers that the results carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import hypot, isfinite, log10

from gradcheck import causes
from gradcheck.compare import Result
from gradcheck.report import cell, error, measured, remarks, verdicts
from gradcheck.run import Report, environment

LOW = -2.0  # decades of eps on the axis
HIGH = {"float32": 8.0, "float64": 16.0}  # at 1/eps, about 10^7 or 10^16, no digit is correct
LEFT, WIDTH, ROW, TOP = 190, 700, 20, 26
CELL = 12
MAPS, KINKS = 2, 4  # drawn for one cause, and for one function
LONG = 60  # failures of one cause that are listed


STYLE = """
.gradcheck { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --faint: #8a93a3; --rule: #d9dee6;
             --ours: #0b6e4f; --peer: #c2571a; --bad: #b3261e;
             font: 15px/1.5 system-ui, sans-serif; color: var(--ink); }
@media (prefers-color-scheme: dark) {
  .gradcheck { --ink: #e4e8ef; --paper: #14171d; --faint: #8a93a3; --rule: #333a46;
               --ours: #4cc38a; --peer: #f0924c; --bad: #ff7a70; } }
body.gradcheck { background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
.gradcheck .wide { overflow-x: auto; }
.gradcheck table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.gradcheck :is(th, td) { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--rule);
                         white-space: nowrap; }
.gradcheck th { font-weight: 600; color: var(--faint); }
.gradcheck .fail { color: var(--bad); }
.gradcheck small { color: var(--faint); font-size: inherit; }
.gradcheck details { border-left: 3px solid var(--rule); padding-left: .8rem; margin: .6rem 0; }
.gradcheck summary { cursor: pointer; }
.gradcheck li { overflow-wrap: anywhere; }
.gradcheck .drawings { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: start; }
.gradcheck figure { margin: .5rem 0; } .gradcheck figcaption { color: var(--faint); font-size: 13px; }
.gradcheck svg { max-width: 100%; height: auto; } .gradcheck .whole svg { width: 100%; }
.gradcheck svg text { fill: var(--ink); font-size: 11px; } .gradcheck svg .faint { fill: var(--faint); }
.gradcheck svg line { stroke: var(--rule); } .gradcheck svg .link { stroke: var(--faint); }
.gradcheck svg .bound { stroke: var(--bad); stroke-dasharray: 4 3; }
.gradcheck svg .ours { fill: var(--ours); }
.gradcheck svg .peer { fill: none; stroke: var(--peer); stroke-width: 1.8; }
.gradcheck svg .within { fill: var(--rule); } .gradcheck svg .beyond { fill: var(--bad); }
.gradcheck svg .side { stroke: var(--ink); stroke-width: 2; } .gradcheck svg .between { fill: var(--rule); }
.gradcheck svg .rule { stroke: var(--ours); stroke-width: 2; stroke-dasharray: 5 3; }
.gradcheck svg .rule.off { stroke: var(--bad); }
"""


def page(report: Report) -> str:
    verdict = "interrupted" if report.interrupted else "passed" if report.ok else f"{len(report.failures)} failed"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>gradcheck</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<style>{STYLE}</style></head><body class="gradcheck">',
            f"<h1>gradcheck: {verdict}</h1>",
            *_parts(report),
            "<h2>Notes</h2>",
            _list(line for line in remarks(report) if not line.startswith("FAIL ")),
            "<h2>Environment</h2>",
            "<table>" + "".join(_row(k, v) for k, v in environment().items()) + "</table>",
            "</body></html>\n",
        ]
    )


def fragment(report: Report) -> str:
    """For a notebook: what the page has, but for the notes and the environment."""
    return "\n".join([f'<div class="gradcheck"><style>{STYLE}</style>', *_parts(report), "</div>"])


def _parts(report: Report) -> Iterable[str]:
    yield from _causes(report)
    yield "<p>The worst error of each check, in eps of the dtype compared.</p>"
    yield _table(report)
    yield from _plots(report)
    yield from _kinks(report)
    yield from _failures(report)


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _causes(report: Report) -> list[str]:
    """What is wrong, a line for each function."""
    lines = [line for line in verdicts(report) if line]
    return ['<div class="fail">', _list(lines), "</div>"] if lines else []


def _failures(report: Report) -> Iterable[str]:
    """Every failure, below its cause; all but the first cause are folded, since they may come from it."""
    if report.failures:
        yield "<h2>Failures</h2>"
    for loss in report.losses:
        failures = [r for r in report.failures if r.loss == loss]
        if failures and len(report.losses) > 1:
            yield f"<h3>{escape(loss)}</h3>"
        for i, (said, of_cause) in enumerate(causes.grouped(failures).items()):
            what = ": ".join(filter(None, (said, of_cause[0].relation)))
            count = f"{len(of_cause)} comparison{'s' * (len(of_cause) > 1)}"
            yield f"<details{' open' * (i == 0)}><summary>{escape(what)} <small>({count})</small></summary>"
            maps = [r for r in of_cause if r.drawing and "cells" in r.drawing][:MAPS]
            if maps:
                yield f'<div class="drawings">{"".join(map(_map, maps))}</div>'
            yield "<ul>" + "".join(map(_failure, of_cause[:LONG])) + "</ul>"
            if len(of_cause) > LONG:
                yield f"<p>And {len(of_cause) - LONG} more.</p>"
            yield "</details>"


def _failure(r: Result) -> str:
    where = ", ".join(filter(None, (r.check, r.case)))
    return f"<li>{escape(r.what)} <small>({escape(where)})</small><br>{escape(error(r))}</li>"


def _map(r: Result) -> str:
    """The error in every entry, or the worst of a cell of entries, over the error allowed."""
    assert r.drawing is not None
    cells: Sequence[Sequence[float]] = r.drawing["cells"]
    shape, (high, wide) = r.drawing["shape"], r.drawing["steps"]
    worst = max(map(max, cells)) or 1.0
    size = len(cells[0]) * CELL, len(cells) * CELL
    parts = [f'<rect class="within" width="{size[0]}" height="{size[1]}"/>']
    for i, row in enumerate(cells):
        for j, decades in enumerate(row):
            if decades > 0:
                title = f"row {i * high}, column {j * wide}: 10^{decades:g} times what is allowed"
                parts.append(
                    f'<rect class="beyond" x="{j * CELL}" y="{i * CELL}" width="{CELL - 1}" height="{CELL - 1}" '
                    f'opacity="{0.35 + 0.65 * decades / worst:.2f}"><title>{title}</title></rect>'
                )
    cell = "" if high == wide == 1 else f"; a cell is {high} by {wide} entries"
    label = f"{r.what}, shape {shape}: red where the error exceeds what is allowed{cell}"
    drawn = _svg(size, f"error in each entry of the {r.what}", parts, scale=min(1.0 if size[0] > 160 else 2.0, 2.0))
    return f"<figure>{drawn}<figcaption>{escape(label)}</figcaption></figure>"


def _kinks(report: Report) -> Iterable[str]:
    """The slopes on both sides of kinks, and the one that the rule gives on it; those that are wrong come first."""
    begun = False
    for loss in report.losses:
        found = [r for r in report.of(loss, "kinks") if r.drawing and "left" in r.drawing]
        found.sort(key=lambda r: r.ok)
        if found and not begun:
            begun = True
            yield "<h2>Kinks</h2>"
            yield (
                "<p>The slopes on either side (solid), along a line through two samples, and the slope by the rule "
                "at the kink (dashed). Between the slopes (shaded), every choice is a subgradient. What "
                "both sides share is left out of the drawing.</p>"
            )
        if found:
            title = f"<h3>{escape(loss)}</h3>" if len(report.losses) > 1 else ""
            yield f'{title}<div class="drawings">{"".join(map(_slopes, found[:KINKS]))}</div>'


def _slopes(r: Result) -> str:
    assert r.drawing is not None
    left, right, rule = (float(r.drawing[k]) for k in ("left", "right", "rule"))
    shared = (left + right) / 2  # the other entries', mostly, beside which the jump would be hard to see
    most = max(abs(left - shared), abs(rule - shared)) or 1.0
    width, height = 180, 120

    def end(slope: float, side: int) -> tuple[float, float]:
        """Where a line of that slope through the middle ends, on one side of it."""
        x, y = side, -side * (slope - shared) / most
        reach = 50 / max(hypot(x, y), 1.0)
        return round(width / 2 + reach * 1.4 * x, 1), round(height / 2 + reach * y, 1)

    def line(kind: str, a: tuple[float, float], b: tuple[float, float]) -> str:
        return f'<line class="{kind}" x1="{a[0]}" y1="{a[1]}" x2="{b[0]}" y2="{b[1]}"/>'

    middle = width / 2, height / 2
    off = "" if r.ok else " off"
    wedges = ((end(left, side), end(right, side)) for side in (-1, 1))
    points = (f"{middle[0]},{middle[1]} {a[0]},{a[1]} {b[0]},{b[1]}" for a, b in wedges)
    parts = [
        *(f'<polygon class="between" points="{three}"/>' for three in points),
        line("side", end(left, -1), middle),
        line("side", middle, end(right, 1)),
        line(f"rule{off}", end(rule, -1), end(rule, 1)),
    ]
    said = f"{left:.4g} on the left, {right:.4g} on the right, {rule:.4g} by the rule"
    label = f"{r.what} ({r.case})" if not r.note else f"a kink that is not declared ({r.case})"
    return f"<figure>{_svg((width, height), said, parts)}<figcaption>{escape(label)}<br>{said}</figcaption></figure>"


def _svg(size: tuple[int, int], label: str, parts: Iterable[str], scale: float = 1.0) -> str:
    width, height = size
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width * scale:g}" height="{height * scale:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _row(*cells: str, tag: str = "td") -> str:
    def one(text: str) -> str:
        mark = ' class="fail"' if text.startswith("FAIL") else ""
        return f"<{tag}{mark}>{escape(text)}</{tag}>"

    return f"<tr>{''.join(map(one, cells))}</tr>"


def _table(report: Report) -> str:
    head = _row("function", *report.checks, tag="th")
    rows = (_row(loss, *(cell(report.of(loss, check)) for check in report.checks)) for loss in report.losses)
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _plots(report: Report) -> Iterable[str]:
    shown = {loss: found for loss in report.losses if (found := measured(report, loss))}
    if not shown:
        return
    yield "<h2>Error by regime</h2>"
    yield (
        "<p>The worst error of the value and of any component of a gradient, in eps. Filled: this function. "
        "Hollow: another implementation, beside it. Dashed: the error allowed.</p>"
    )
    for loss, (measure, results) in shown.items():
        against = f"{measure.dtype} against {measure.against}"
        if any(r.peer_error is not None for r in results):
            against += f"; hollow: {measure.peer}"
        title = f"<h3>{escape(loss)}</h3>" if len(report.losses) > 1 else ""
        yield f'{title}<figure class="whole"><figcaption>{against}</figcaption>{_plot(results)}</figure>'


def _plot(results: list[Result]) -> str:
    regimes = list(dict.fromkeys(r.sample for r in results))
    bottom = TOP + ROW * len(regimes)
    high = HIGH[results[0].dtype]
    parts = []
    for decade in range(int(LOW), int(high) + 1, 2):
        x = _x(10.0**decade, high)
        label = {0: "1 eps"}.get(decade, f"10^{decade}")
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{x}" y="{TOP - 10}" text-anchor="middle">{label}</text>')
    for i, regime in enumerate(regimes):
        top = TOP + ROW * i
        y = top + ROW // 2
        of_regime = [r for r in results if r.sample == regime]
        worst = max(of_regime, key=lambda r: (not r.ok, r.error))
        if 0 < worst.bound < float("inf"):
            x = _x(worst.bound, high)
            parts.append(f'<line class="bound" x1="{x}" x2="{x}" y1="{top}" y2="{top + ROW}"/>')
        peers = [r.peer_error for r in of_regime if r.peer_error is not None]
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(regime)}</text>')
        if peers:
            a, b = _x(worst.error, high), _x(max(peers), high)
            parts.append(f'<line class="link" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>')
            parts.append(_dot("peer", b, y, f"beside: {max(peers):.3g} eps"))
        parts.append(_dot("ours", _x(worst.error, high), y, f"here: {worst.error:.3g} eps, {worst.what}"))
    return _svg((LEFT + WIDTH + 20, bottom + 6), "error by regime", parts)


def _dot(kind: str, x: float, y: int, title: str) -> str:
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="4"><title>{escape(title)}</title></circle>'


def _x(error: float, high: float) -> float:
    decade = high if not isfinite(error) else LOW if error <= 0 else min(max(log10(error), LOW), high)
    return round(LEFT + WIDTH * (decade - LOW) / (high - LOW), 1)
