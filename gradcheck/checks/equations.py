"""Is each numbered equation, as written on the page, true?

The LaTeX is read and computed in exact arithmetic, at rows of the spec's samples. Derivatives on the page are compared
with differences of its definitions, and what it defines as the loss with the oracle. What nothing executes fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
from mpmath import mp, mpf, workdps

from gradcheck.checks.cases import raised
from gradcheck.compare import Result, failed, noted, passed
from gradcheck.exact import points
from gradcheck.formulas import DIGITS, LOSSES, Page, Point, definitions, numbers, way
from gradcheck.latex import Cases, Node, Relation, Statement, Symbol, Unreadable, statements
from gradcheck.spec import Draw, Settings, Spec
from manual_grad.study.chapter import Chapter, read

ROWS = {"pointwise": 3, "pairwise": 3}  # of a case; 1 for other families, whose rows have many terms
EPS = 2.0**-52
BOUND = 1.0  # in eps of float64, far above what 50 digits leave of a second difference, far below any mistake


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    page = read(spec.chapter or sys.modules[spec.fn.__module__].__doc__ or "")
    if not page.equations or spec.symbols is None:
        yield noted("equations", "no symbols are given" if page.equations else "there are none")
        return
    yield from Audit(spec, page).results(settings)


class Audit:
    """The equations of one chapter, and what came of them at every point."""

    def __init__(self, spec: Spec, page: Chapter) -> None:
        self.spec, self.page = spec, page
        self.worst: dict[str, float] = {}
        self.wrong: dict[str, str] = {}
        self.executed: set[Any] = set()
        self.reached: set[Node] = set()
        self.defining: set[Node] = set()
        self.statements: dict[str, tuple[Statement, ...]] = {}
        for number, equation in enumerate(page.equations, 1):
            if equation.label != str(number):
                self.wrong[equation.label or "without a number"] = f"is the page's equation {number}"
            try:
                self.statements[equation.label] = statements(equation.latex)
            except Unreadable as error:
                self.wrong[equation.label] = str(error)

    def results(self, settings: Settings) -> Iterator[Result]:
        with workdps(DIGITS):
            for case in self.spec.covering(replace(settings, quick=False, device="cpu")):
                draw = Draw(len(self.executed))
                for row in islice(points(case), ROWS.get(self.spec.family, 1)):
                    symbols = self.spec.symbols(**{"draw": draw, **row})
                    if symbols is not None:
                        self.execute(numbers(dict(symbols)), row)
        self._find_idle()
        for label, message in self.wrong.items():
            yield failed(f"equation ({label})", message)
        for label in self.statements:
            if label not in self.wrong:
                yield replace(passed(f"equation ({label})"), error=self.worst.get(label, 0.0) / EPS, bound=BOUND)

    def execute(self, given: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        ways = {s: way(s, given) for found in self.statements.values() for s in found}
        clauses = definitions(given, ways.values())
        self.defining.update(clause.body for found in clauses.values() for clause in found)
        point = Point(given, Page(clauses, self.reached))
        self._tie(point, row)
        for label, found in self.statements.items():
            for statement in found:
                if label in self.wrong:
                    return
                try:
                    self._statement(point, label, statement, ways[statement])
                except Exception as error:  # a symbol without a meaning, a shape that does not fit
                    self.wrong[label] = f"{statement.latex}: {raised(error)}"

    def _tie(self, point: Point, row: Mapping[str, Any]) -> None:
        """The loss of the page is that of the oracle. No page speaks of the weight of an element, which is a factor."""
        name = next((k for k in LOSSES if k in point.clauses), None)
        if self.spec.oracle is None or name is None:
            self.wrong["loss"] = f"none of {', '.join(LOSSES)} is defined, or there is no oracle"
            return
        arguments = {k: v for k, v in row.items() if k != "weight" or self.spec.family != "pointwise"}
        expected = self.spec.oracle(**arguments)
        try:
            actual = np.array(point.symbol(Symbol(name), {}), dtype=object).flat[0]
        except Exception as error:
            self.wrong["loss"] = raised(error)
            return
        self._compare("loss", name, actual, expected[0] if isinstance(expected, tuple) else expected, {})

    def _statement(self, point: Point, label: str, statement: Statement, relation: Relation) -> None:
        letters = dict.fromkeys(name for member in relation.members for name in point.free(member))
        for local in point.assignments(letters):
            if not all(point.holds(condition, local) for condition in statement.conditions):
                continue
            self.executed.add(relation)
            for (a, b), sign in zip(pairwise(relation.members), relation.signs, strict=True):
                if b in self.defining:  # nothing to compare: _find_idle asks for its use
                    continue
                if sign == "=":
                    self._compare(label, statement.latex, point.evaluate(a, local), point.evaluate(b, local), local)
                elif not point.holds(Relation((a, b), (sign,)), local):
                    self.wrong.setdefault(label, f"{statement.latex}: {sign} does not hold{_at(local)}")

    def _compare(self, label: str, latex: str, a: Any, b: Any, local: Mapping[str, Any]) -> None:
        error = distance(a, b)
        self.worst[label] = max(self.worst.get(label, 0.0), error)
        if not error <= BOUND * EPS:
            self.wrong.setdefault(label, f"{latex}: {_shown(a)} is not {_shown(b)}{_at(local)}")

    def _find_idle(self) -> None:
        """What no point has reached."""
        for label, found in self.statements.items():
            for relation in (r for statement in found for r in statement.ways):
                if relation not in self.executed:
                    self.wrong.setdefault(label, "a statement is never executed")
                if not self.defining.isdisjoint(relation.members) and self.reached.isdisjoint(relation.members):
                    self.wrong.setdefault(label, "a definition that nothing uses")
                for node in relation.walk():
                    if isinstance(node, Cases) and not self.reached.issuperset(value for value, _ in node.branches):
                        self.wrong.setdefault(label, "a case is never reached")


def distance(a: Any, b: Any) -> float:
    """The largest difference, relative to numbers larger than 1; infinite where one is infinite or the shapes differ."""
    a, b = np.atleast_1d(np.array(a, dtype=object)), np.atleast_1d(np.array(b, dtype=object))
    if a.shape != b.shape:
        return float("inf")
    worst = 0.0
    for x, y in zip(a.flat, b.flat, strict=True):
        if x != y:
            difference = abs(mpf(x) - y) / max(abs(x), abs(y), 1)
            worst = max(worst, float(difference)) if mp.isfinite(difference) else float("inf")
    return worst


def _shown(value: Any) -> str:
    return mp.nstr(value, 9) if np.ndim(value) == 0 else str([mp.nstr(mpf(v), 6) for v in np.ravel(value)])


def _at(local: Mapping[str, Any]) -> str:
    return f" at {', '.join(f'{k} = {v}' for k, v in local.items())}" if local else ""
