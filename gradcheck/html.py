"""A report as one self-contained page: verdict, table, plots of the error by regime, failures, environment."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from math import isfinite, log10

from gradcheck.compare import Result
from gradcheck.report import cell, error, remarks, verdicts
from gradcheck.run import Report, environment

LOW, HIGH = -2.0, 8.0  # decades of eps on the axis; at 1/eps of float32, about 10^7, no digit is correct
LEFT, WIDTH, ROW, TOP = 190, 700, 20, 26

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --faint: #8a93a3; --rule: #d9dee6;
        --ours: #0b6e4f; --peer: #c2571a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ef; --paper: #14171d; --faint: #8a93a3; --rule: #333a46;
          --ours: #4cc38a; --peer: #f0924c; --bad: #ff7a70; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--faint); }
.fail { color: var(--bad); }
.failures td { white-space: normal; vertical-align: top; } summary { cursor: pointer; padding: .2rem 0; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 11px; }
svg .faint { fill: var(--faint); } svg line { stroke: var(--rule); } svg .link { stroke: var(--faint); }
svg .bound { stroke: var(--bad); stroke-dasharray: 4 3; }
svg .ours { fill: var(--ours); } svg .peer { fill: none; stroke: var(--peer); stroke-width: 1.8; }
"""


def page(report: Report) -> str:
    verdict = "interrupted" if report.interrupted else "passed" if report.ok else f"{len(report.failures)} failed"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>gradcheck</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>gradcheck: {verdict}</h1>",
            *_causes(report),
            "<p>The worst error of each check, in eps of the dtype compared.</p>",
            _table(report),
            *_plots(report),
            *_failures(report),
            "<h2>Notes</h2>",
            _list(line for line in remarks(report) if not line.startswith("FAIL ")),
            "<h2>Environment</h2>",
            "<table>" + "".join(_row(k, v) for k, v in environment().items()) + "</table>",
            "</body></html>\n",
        ]
    )


def fragment(report: Report) -> str:
    """For a notebook: the causes, the table and the failures, without a style of their own."""
    return "\n".join([*_causes(report), _table(report), *_failures(report)])


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _causes(report: Report) -> list[str]:
    """What is wrong, a line for each function."""
    lines = [line for line in verdicts(report) if line]
    return ['<div class="fail">', _list(lines), "</div>"] if lines else []


def _failures(report: Report) -> list[str]:
    """Every failure, folded by function and check: the case, what was compared, and the difference."""
    parts = []
    for loss in report.losses:
        for check in report.checks:
            failures = [r for r in report.of(loss, check) if not r.ok]
            if failures:
                head = _row("case", "what", "difference", tag="th")
                rows = "".join(_row(r.case, r.what, error(r)) for r in failures)
                summary = f"{escape(loss)} / {escape(check)}: {len(failures)} failed"
                table = f'<div class="wide"><table class="failures">{head}{rows}</table></div>'
                parts.append(f"<details><summary>{summary}</summary>{table}</details>")
    return ["<h2>Failures</h2>", *parts] if parts else []


def _row(*cells: str, tag: str = "td") -> str:
    def one(text: str) -> str:
        mark = ' class="fail"' if text.startswith("FAIL") else ""
        return f"<{tag}{mark}>{escape(text)}</{tag}>"

    return f"<tr>{''.join(map(one, cells))}</tr>"


def _table(report: Report) -> str:
    head = _row("loss", *report.checks, tag="th")
    rows = (_row(loss, *(cell(report.of(loss, check)) for check in report.checks)) for loss in report.losses)
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _plots(report: Report) -> Iterable[str]:
    shown = {loss: [r for r in report.of(loss, "oracle") if r.dtype == "float32"] for loss in report.losses}
    if not any(shown.values()):
        return
    yield "<h2>Error by regime</h2>"
    yield (
        "<p>The worst float32 error of the value and of any gradient component, against exact arithmetic, in eps. "
        "Filled: this function. Hollow: torch's own function. Dashed: the bound.</p>"
    )
    for loss, results in shown.items():
        if results:
            yield f"<h3>{escape(loss)}</h3>{_plot(results)}"


def _plot(results: list[Result]) -> str:
    regimes = list(dict.fromkeys(r.sample for r in results))
    bottom = TOP + ROW * len(regimes)
    parts = []
    for decade in range(int(LOW), int(HIGH) + 1, 2):
        x = _x(10.0**decade)
        label = {0: "1 eps"}.get(decade, f"10^{decade}")
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{x}" y="{TOP - 10}" text-anchor="middle">{label}</text>')
    bound = _x(results[0].bound)
    parts.append(f'<line class="bound" x1="{bound}" x2="{bound}" y1="{TOP - 6}" y2="{bottom}"/>')
    for i, regime in enumerate(regimes):
        y = TOP + ROW * i + ROW // 2
        of_regime = [r for r in results if r.sample == regime]
        ours = max(r.error for r in of_regime)
        peers = [r.peer_error for r in of_regime if r.peer_error is not None]
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(regime)}</text>')
        if peers:
            a, b = _x(ours), _x(max(peers))
            parts.append(f'<line class="link" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>')
            parts.append(_dot("peer", b, y, f"torch: {max(peers):.3g} eps"))
        parts.append(_dot("ours", _x(ours), y, f"here: {ours:.3g} eps"))
    size = f"0 0 {LEFT + WIDTH + 20} {bottom + 6}"
    return f'<svg viewBox="{size}" role="img" aria-label="error by regime">{"".join(parts)}</svg>'


def _dot(kind: str, x: float, y: int, title: str) -> str:
    return f'<circle class="{kind}" cx="{x}" cy="{y}" r="4"><title>{title}</title></circle>'


def _x(error: float) -> float:
    decade = HIGH if not isfinite(error) else LOW if error <= 0 else min(max(log10(error), LOW), HIGH)
    return round(LEFT + WIDTH * (decade - LOW) / (HIGH - LOW), 1)
