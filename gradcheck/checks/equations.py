"""Is each numbered equation, as written on the page, true?

The LaTeX is read and computed in exact arithmetic, at rows of the spec's samples. Derivatives on the page are compared
with differences of its definitions, and what it defines as the loss with the oracle. What nothing executes fails.

Behind an equation's number ``\\unexecuted{reason}`` says on the page that it cannot be executed, and why. Such an
equation is noted; it fails if it can be executed after all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from mpmath import mp, mpf, workdps

from gradcheck.chapter import Chapter, read
from gradcheck.checks.cases import raised
from gradcheck.compare import Result, failed, noted, passed
from gradcheck.exact import calls
from gradcheck.formulas import DIGITS, LOSSES, Page, Point, Unknown, definitions, numbers, way
from gradcheck.grammar import Cases, Node, Relation, Statement, Symbol, statements
from gradcheck.latex import Unreadable
from gradcheck.spec import QUICK, Draw, Settings, Spec

ROWS = {"pointwise": 8, "pairwise": 3}  # of a case; 1 for other families, whose rows have many terms
EPS = 2.0**-52
# In eps of float64: far above what 50 digits leave of a second difference, far below any mistake; and of a statement
# without a difference. The loss meets an oracle that was given 1e-12 in binary.
DIFFERENCES, EXACT = 1.0, 1e-20


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    chapter = read(spec.chapter or getattr(sys.modules.get(spec.fn.__module__), "__doc__", None) or "")
    if not chapter.equations:
        yield noted("equations", "the docstring of the module has no numbered ones")
        return
    audit = Audit(spec, chapter)
    for count, (symbols, row) in enumerate(points(spec, settings), 1):
        audit.execute(symbols, row)
        if settings.quick and count >= QUICK and not any(audit.idle()):
            break
    yield from audit.results()


def points(spec: Spec, settings: Settings) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """What the letters stand for, and the arguments of the oracle, at rows of every sample."""
    if spec.symbols is None:
        return
    for number, case in enumerate(spec.covering(replace(settings, quick=False, device="cpu"))):
        draw = Draw(number)
        rows = list(calls(case))
        for k in range(min(ROWS.get(spec.family, 1), len(rows))):
            row = rows[(number + k) % len(rows)]
            with workdps(DIGITS):
                symbols = spec.symbols(**{"draw": draw, **row})
            if symbols is not None:
                yield {name: numbers(value) for name, value in symbols.items()}, row


class Audit:
    """The equations of a chapter, and what came of them at every point."""

    def __init__(self, spec: Spec, chapter: Chapter) -> None:
        self.spec = spec
        self.worst: dict[str, float] = {}
        self.wrong: dict[str, str] = {}
        self.executed: set[Relation] = set()
        self.reached: set[Node] = set()
        self.defining: set[Node] = set()
        self.statements: dict[str, tuple[Statement, ...]] = {}
        self.unexecuted: dict[str, str] = {}
        self.unable: dict[str, str] = {}
        for number, equation in enumerate(chapter.equations, 1):
            label = equation.label or "an equation without a number"
            if equation.label != str(number):
                self.wrong[label] = f"is equation {number} of the chapter: {equation.latex}"
            if equation.unexecuted:
                self.unexecuted[label] = equation.remark
            try:
                found = self.statements[label] = statements(equation.latex)
                if not found or not all(relation.signs for statement in found for relation in statement.ways):
                    self._not_executed(label, "states nothing")
            except Unreadable as error:
                self.statements[label] = ()
                self._not_executed(label, str(error))
            if spec.symbols is None:
                self._not_executed(label, "the spec does not say what its symbols stand for")

    def _not_executed(self, label: str, why: str) -> None:
        """A fault, unless the page says so."""
        (self.unable if label in self.unexecuted else self.wrong).setdefault(label, why)

    def results(self) -> Iterator[Result]:
        for label, what in self.idle():
            self._not_executed(label, what)
        for label in dict.fromkeys((*self.statements, *self.worst, *self.wrong)):
            what = f"equation ({label})" if label.isdigit() else label
            if label in self.wrong:
                yield failed(what, self.wrong[label])
            elif label in self.unable:
                yield noted(what, self.unexecuted[label])
            elif label in self.unexecuted:
                yield failed(what, "is marked as not executed, but can be, and is true")
            else:
                yield passed(what)._replace(error=self.worst.get(label, 0.0) / EPS, bound=DIFFERENCES)

    def execute(self, symbols: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        ways = {s: way(s, symbols) for found in self.statements.values() for s in found}
        trusted = (ways[s] for label, found in self.statements.items() if label not in self.unexecuted for s in found)
        with workdps(DIGITS):
            try:
                clauses = definitions(symbols, trusted)
            except Unknown as error:
                self.wrong["definitions"] = str(error)
                return
            self.defining.update(clause.body for found in clauses.values() for clause in found)
            point = Point(symbols, Page(clauses, self.reached))
            self._guarded("loss", "", self._tie, point, row)
            for label, found in self.statements.items():
                for statement in found:
                    if label not in self.wrong and label not in self.unable:
                        self._guarded(label, statement.latex, self._statement, point, label, statement, ways[statement])

    def _guarded(self, label: str, latex: str, body: Callable[..., None], *arguments: Any) -> None:
        try:
            body(*arguments)
        except Exception as error:  # a symbol without a meaning, a shape that does not fit
            self._not_executed(label, f"{latex}: {raised(error)}")

    def _tie(self, point: Point, row: Mapping[str, Any]) -> None:
        """The loss of the page is that of the oracle. No page speaks of the weight of an element, which is a factor."""
        if self.spec.oracle is None:
            return
        name = next((k for k in LOSSES if k in point.clauses), None)
        if name is None:
            self.wrong.setdefault("loss", f"none of {', '.join(LOSSES)} is defined")
            return
        arguments = {k: v for k, v in row.items() if k != "weight" or self.spec.family != "pointwise"}
        expected = self.spec.oracle(**{k: mpf(v) if isinstance(v, float) else v for k, v in arguments.items()})
        expected = expected[0] if isinstance(expected, tuple) else expected
        self._compare("loss", name, point.symbol(Symbol(name), {}), expected, DIFFERENCES)

    def _statement(self, point: Point, label: str, statement: Statement, relation: Relation) -> None:
        letters = dict.fromkeys(name for member in relation.members for name in point.free(member))
        inexact = any(map(point.by_differences, relation.members))
        for local in point.assignments(letters):
            if not all(point.holds(condition, local) for condition in statement.conditions):
                continue
            self.executed.add(relation)
            for (a, b), sign in zip(pairwise(relation.members), relation.signs, strict=True):
                if b in self.defining:  # nothing to compare: idle() asks for its use
                    continue
                if sign == "=":
                    where, bound = statement.latex + _at(local), DIFFERENCES if inexact else EXACT
                    self._compare(label, where, point.evaluate(a, local), point.evaluate(b, local), bound)
                elif not point.holds(Relation((a, b), (sign,)), local):
                    self.wrong.setdefault(label, f"{statement.latex}: {sign} does not hold{_at(local)}")

    def _compare(self, label: str, where: str, a: Any, b: Any, bound: float) -> None:
        error = distance(a, b)
        self.worst[label] = max(self.worst.get(label, 0.0), error)
        if not error <= bound * EPS:
            self.wrong.setdefault(label, f"{where}: {_shown(a)} is not {_shown(b)}")

    def idle(self) -> Iterator[tuple[str, str]]:
        """What no point has reached, by the number of its equation."""
        able = ((label, found) for label, found in self.statements.items() if label not in self.unable)
        for label, statement in ((label, statement) for label, found in able for statement in found):
            for relation in statement.ways:
                if relation not in self.executed:
                    yield label, "a statement is never executed"
                if not self.defining.isdisjoint(relation.members) and self.reached.isdisjoint(relation.members):
                    yield label, "a definition that nothing uses"
                for node in relation.walk():
                    if isinstance(node, Cases) and not self.reached.issuperset(value for value, _ in node.branches):
                        yield label, "a case is never reached"


def distance(a: Any, b: Any) -> float:
    """The largest difference, relative to what is larger than 1; infinite if one is infinite, or the shapes differ."""
    a, b = np.array(a, dtype=object), np.array(b, dtype=object)
    if a.shape != b.shape and a.shape and b.shape:  # a vector may be 0, as they are all over mathematics
        return float("inf")
    a, b = np.broadcast_arrays(a, b)
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
