"""The audit of other libraries' losses: the committed results, the page made of them, and every finding worked out."""

from __future__ import annotations

import sys
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from benchmarks.field import findings, judging
from benchmarks.field.entries import ENTRIES, WHY
from benchmarks.field.findings import Finding
from benchmarks.field.table import PACKAGES

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

FUNCTIONS: dict[str, Any] = findings.known()["functions"]
FOUND = [f for name in FUNCTIONS for f in findings.every(name)]


def numbers(values: list[float | str]) -> list[float]:
    return [float(v) for v in values]


def test_enough_was_audited() -> None:
    assert len(FUNCTIONS) >= 40
    assert len(findings.known()["libraries"]) >= 6
    assert not findings.known()["skipped"]


def test_every_entry_has_results_of_every_point() -> None:
    assert list(FUNCTIONS) == list(ENTRIES)
    for name, entry in ENTRIES.items():
        assert FUNCTIONS[name]["library"] == entry.library
        assert list(FUNCTIONS[name]["points"]) == list(entry.points)
        assert FUNCTIONS[name]["constant"] == entry.guard
        assert FUNCTIONS[name]["why"] == WHY.get(name, "")


def test_no_library_is_imported_for_the_table() -> None:
    tops = {entry.path.partition(".")[0].partition(":")[0] for entry in ENTRIES.values()}
    assert not tops & set(sys.modules) and set(PACKAGES) <= tops


def test_every_failed_check_is_shown_at_a_point() -> None:
    for name, function in FUNCTIONS.items():
        if "failed" in function["checks"].values():
            assert function["cause"] and any(f.kind == "wrong" for f in findings.every(name)), name


def test_what_is_wrong_is_explained() -> None:
    assert {f.function for f in FOUND if f.kind == "wrong"} == set(WHY)


@pytest.mark.parametrize("name", sorted({f.function for f in FOUND}))
def test_findings_are_worked_out(name: str) -> None:
    """What is exact comes out of the formula again, and what was returned is judged as it was."""
    entry = ENTRIES[name]
    for label in {f.label for f in findings.every(name)}:
        exact = entry.exact(label)
        guarded = entry.exact(label, guarded=True) if entry.guard else {}
        of: list[Finding] = [f for f in findings.every(name) if f.label == label]
        assert of[0].inputs == entry.points[label].inputs and of[0].params == entry.points[label].params
        for f in of:
            expected = exact[f.what]
            if expected is None:
                assert f.exact is None
            else:
                assert numbers(f.exact or []) == pytest.approx([float(v) for v in expected], rel=1e-12, abs=1e-40)
            got = f.got if isinstance(f.got, str) else numbers(f.got)
            assert judging.judge(got, expected, guarded.get(f.what)) == (f.kind, f.said)


def test_the_page_has_everything() -> None:
    from extension import field

    page = field.summary() + field.table() + "".join(map(field.listed, findings.KINDS))
    assert f"{len(FUNCTIONS)} functions of {len(findings.known()['libraries'])} libraries" in page
    for library, version in findings.known()["libraries"].items():
        assert f"{library} {version}" in page
    for name in FUNCTIONS:
        assert field._short(name) in page
        for f in findings.of(name):
            assert f"<code>{name}</code>" in field.listed(f.kind)


@pytest.mark.parametrize(
    ("got", "exact", "guarded", "kind"),
    [
        ([1.0, 2.0], [1.0, 2.0], None, ""),
        ([float("nan")], [0.0], None, "wrong"),
        ([float("inf")], [100.0], None, "wrong"),
        ([0.0], [1.0], None, "wrong"),
        ([1.0, 2.1], [1.0, 2.0], None, "wrong"),
        ([1.0], [1.0, 2.0], None, "wrong"),
        ("raised RuntimeError", [1.0], None, "wrong"),
        ([0.5], [1.0], [0.5], "constant"),
        ([1.1e-7], [1e-7], None, "digits"),
        ([0.0], [1e-12], None, ""),
        ([1.0], None, None, ""),
        ([float("nan")], None, None, "wrong"),
    ],
)
def test_judging(got: Any, exact: Any, guarded: Any, kind: str) -> None:
    assert judging.judge(got, exact, guarded)[0] == kind


def test_numbers_in_the_results_are_finite_or_named() -> None:
    for f in FOUND:
        for values in (f.got, f.exact):
            if isinstance(values, list):
                assert all(isinstance(v, str) or isfinite(v) for v in values)
