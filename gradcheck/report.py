"""A report in the terminal: what is wrong, then the table of functions by checks with the worst error; and as JSON."""

from __future__ import annotations

import json
import re
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from gradcheck import causes
from gradcheck.compare import Result
from gradcheck.run import Report

MOST = 3  # failures shown of one cause in one function


class Measure(NamedTuple):
    """Where the error by regime is taken from: results of a check, in a dtype."""

    check: str
    dtype: str
    against: str
    peer: str


MEASURES = (
    Measure("oracle", "float32", "exact arithmetic", "torch's own function"),
    Measure("parity", "float32", "the definition in float64", "torch's own function, or the definition in float32"),
    Measure("definition", "float64", "autograd of the definition", ""),
    Measure("differences", "float64", "finite differences", ""),
)


def measured(report: Report, loss: str) -> tuple[Measure, list[Result]] | None:
    """The most exact measure of errors that the report has."""
    for measure in MEASURES:
        found = [
            r
            for r in report.of(loss, measure.check)
            if r.dtype == measure.dtype and r.sample and not r.note and re.fullmatch(r"value|gradient of \w+", r.what)
        ]
        if found:
            return measure, found
    return None


def cell(results: list[Result]) -> str:
    """The worst error of a check, in eps, as measured against its bound; or how many comparisons failed."""
    failures = sum(not r.ok for r in results)
    if failures:
        return f"FAIL {failures}"
    asked = [r for r in results if not r.note]
    if not asked:
        return "-"
    worst = max(asked, key=lambda r: r.error / r.bound if r.bound else 0.0)
    return f"{worst.error:.2g}".replace("e+0", "e") if worst.error else "ok"


def plain(report: Report) -> str:
    return "\n".join([*verdicts(report), *table(report), "", *remarks(report)])


def verdicts(report: Report) -> list[str]:
    """For each function that failed a line with the cause, and an empty line behind them."""
    lines = []
    for loss in report.losses:
        failures = [r for r in report.failures if r.loss == loss]
        if failures:
            said, shown = causes.first(failures)
            lines.append(f"WRONG {loss}: {said}{only(report, shown)}: {error(shown)}")
    return [*lines, ""] if lines else []


def only(report: Report, failure: Result) -> str:
    """The regimes, or else the parameters, that what failed has failed in, if it passed in all others."""
    same = [r for r in report.of(failure.loss, failure.check) if r.what == failure.what and r.dtype == failure.dtype]
    passes, fails = ([r for r in same if r.ok is ok and not r.note] for ok in (True, False))
    regimes = dict.fromkeys(r.sample for r in fails)
    if passes and not regimes.keys() & {r.sample for r in passes}:
        return f", only at {' and '.join(regimes)}" if len(regimes) <= MOST else ""
    shared = set.intersection(*(_params(r) for r in fails)) - set().union(*map(_params, passes))
    return f", only with {min(shared)}" if passes and shared else ""


def _params(r: Result) -> set[str]:
    return {part for part in r.case.split(", ") if "=" in part}


def table(report: Report, width: int | None = None) -> list[str]:
    """A line for each loss; columns beyond ``width`` follow in a table below."""
    names = _padded(["function", *report.losses])
    columns = [_padded([check, *(cell(report.of(loss, check)) for loss in report.losses)]) for check in report.checks]
    blocks = [[names]]
    for column in columns:
        if width is not None and sum(len(c[0]) + 2 for c in [*blocks[-1], column]) > width:
            blocks.append([names])
        blocks[-1].append(column)
    return [line for i, block in enumerate(blocks) for line in [""] * (i > 0) + _joined(block)]


def _padded(texts: list[str]) -> list[str]:
    return [text.ljust(max(map(len, texts))) for text in texts]


def _joined(columns: list[list[str]]) -> list[str]:
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def remarks(report: Report) -> list[str]:
    """The failures by cause, the notes and the verdict, a line each."""
    lines: list[str] = []
    for loss in report.losses:
        for said, failures in causes.grouped([r for r in report.failures if r.loss == loss]).items():
            shown = list(dict.fromkeys(map(describe, failures)))[:MOST]
            lines += shown
            if len(failures) > len(shown):
                lines.append(f"FAIL {loss}: and {len(failures) - len(shown)} more: {said}")
    notes: dict[str, list[str]] = {}
    for r in report.results:
        if r.note:
            about = r.check if r.what in (r.check, "call") else f"{r.check}: {r.what}"
            losses = notes.setdefault(f"{about}: {r.message}", [])
            if r.loss not in losses:
                losses.append(r.loss)
    for text, losses in notes.items():
        lines.append(f"note {text}" + ("" if len(losses) == len(report.losses) else f" ({', '.join(losses)})"))
    if len(report.losses) == 1 and (by_regime := _by_regime(report)):
        lines.append(f"note {by_regime}")
    count = sum(not r.note for r in report.results)
    counted = (len(report.losses), "function"), (len(report.checks), "check"), (count, "comparison")
    verdict = f"{len(report.failures)} failed" if report.failures else "all passed"
    stopped = "interrupted; so far " if report.interrupted else ""
    counts = (_count(n, what) for n, what in counted)
    lines.append(f"{stopped}{', '.join(counts)} in {report.seconds:.1f} s: {verdict} (errors in eps)")
    return lines


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + "s" * (n != 1)


def _by_regime(report: Report) -> str:
    """The worst error in each regime, if there are several."""
    found = measured(report, report.losses[0])
    worst: dict[str, float] = {}
    for r in found[1] if found else ():
        worst[r.sample] = max(worst.get(r.sample, 0.0), r.error)
    if found is None or len(worst) < 2:
        return ""
    errors = ", ".join(f"{error:.2g} at {regime}" for regime, error in worst.items())
    return f"{found[0].check}: the worst error in eps of {found[0].dtype} is {errors}"


def describe(r: Result) -> str:
    case = f" at {r.case}" if r.case else ""
    return f"FAIL {r.loss} / {r.check}{case}: {r.what}: {error(r)}"


def error(r: Result) -> str:
    """What is wrong, in words if that can be said, then where it is worst, and by how much."""
    size = f"{r.error:.3g} eps of {r.dtype}, allowed {r.bound:.3g}" if isfinite(r.error) else ""
    return "; ".join(filter(None, (r.relation, r.message, size)))


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.as_dict(), allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")
