"""The audit of other libraries' losses, from the committed results of benchmarks.field."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from benchmarks.field import findings
from benchmarks.field.findings import KINDS, Finding

SHOWN = 4  # entries of a result


def summary() -> str:
    functions, libraries = findings.known()["functions"], findings.known()["libraries"]
    worst = [kind_of(name) for name in functions]
    number = {kind: worst.count(kind) for kind in ("", *KINDS)}
    environment = findings.known()["environment"]
    return (
        f"<p>{len(functions)} functions of {len(libraries)} libraries were audited, with torch "
        f"{escape(environment['torch'])} on a CPU. In {number['']} nothing was found. In {number['wrong']} something "
        f"is wrong at one of the points tried; in {number['constant']} a documented constant has an effect there; in "
        f"{number['digits']} digits are few.</p>"
    )


def kind_of(function: str) -> str:
    """The worst kind of finding."""
    found = findings.of(function)
    return found[0].kind if found else ""


def table() -> str:
    functions, libraries = findings.known()["functions"], findings.known()["libraries"]
    rows = []
    for library, version in libraries.items():
        rows.append(f'<tr><th scope="rowgroup" colspan="5">{escape(library)} {escape(version)}</th></tr>')
        rows += [_row(name, f) for name, f in functions.items() if f["library"] == library]
    return (
        '<div class="scroll" tabindex="0"><table class="results field"><thead><tr><th scope="col">function</th>'
        '<th scope="col">checks passed</th><th scope="col">checks failed</th><th scope="col">points right</th>'
        f'<th scope="col">found</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _row(name: str, function: dict[str, Any]) -> str:
    checks, points = function["checks"], function["points"].values()
    asked = [check for check, result in checks.items() if result != "not asked"]
    failed = [check for check in asked if checks[check] == "failed"]
    right = sum(not any(r["kind"] for r in point["compared"].values()) for point in points)
    kind, passed = kind_of(name), f"{len(asked) - len(failed)} of {len(asked)}" if asked else "–"
    at = f"{right} of {len(points)}" if points else "–"
    marked = ' class="lost"' if kind == "wrong" else ""
    return (
        f'<tr><th scope="row"><code>{escape(_short(name))}</code></th>'
        f"<td>{passed}</td><td>{', '.join(failed)}</td><td>{at}</td><td{marked}>{kind}</td></tr>"
    )


def _short(name: str) -> str:
    """Without the modules."""
    path, comma, variant = name.partition(", ")
    return path.rpartition(".")[2] + comma + variant


def listed(kind: str) -> str:
    functions = findings.known()["functions"]
    parts = []
    for name, function in functions.items():
        found = [f for f in findings.of(name) if f.kind == kind]
        if found:
            version = findings.known()["libraries"][function["library"]]
            why = escape(function["why"]) if kind == "wrong" else ""
            if kind == "wrong" and function["cause"]:
                why += f"</p><p>gradcheck: {escape(function['cause'].partition('. ')[0])}"
            if kind == "constant":
                why = ", ".join(f"{escape(k)} = {v:g}" for k, v in function["constant"].items())
            parts.append(
                f"<dt><code>{escape(name)}</code>, {escape(function['library'])} {escape(version)}</dt>"
                f"<dd>{f'<p>{why}</p>' if why else ''}{''.join(map(_example, _by_point(found)))}</dd>"
            )
    return f'<dl class="field">{"".join(parts)}</dl>'


def _by_point(found: Sequence[Finding]) -> list[list[Finding]]:
    points: dict[str, list[Finding]] = {}
    for finding in found:
        points.setdefault(finding.label, []).append(finding)
    return list(points.values())


def _example(found: Sequence[Finding]) -> str:
    first = found[0]
    arguments = ", ".join(f"{k} = {_values(v)}" for k, v in {**first.inputs, **first.params}.items())
    rows = "".join(
        f'<tr><th scope="row">{escape(f.what)}</th><td>{_entries(f.got)}</td><td>{_entries(f.exact)}</td></tr>'
        for f in found
    )
    return (
        f'<p>{escape(first.label)}: <code>{escape(arguments)}</code></p><div class="scroll" tabindex="0">'
        '<table class="results"><thead><tr><th scope="col">result</th><th scope="col">got</th>'
        f'<th scope="col">exact</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _values(value: Any) -> str:
    if isinstance(value, list):
        if len(str(value)) > 160:
            return f"[{_values(value[0])}, …]" if not isinstance(value[0], float) else f"[{value[0]:g}, …]"
        return f"[{', '.join(map(_values, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _entries(values: Sequence[float | str] | str | None) -> str:
    if values is None:
        return "anything finite"
    if isinstance(values, str):
        return escape(values.partition(". ")[0])
    shown = [v if isinstance(v, str) else f"{v:.6g}" for v in values[:SHOWN]]
    return ", ".join([*shown, "…"] if len(values) > SHOWN else shown).replace("-", "−").replace("nan", "NaN")
