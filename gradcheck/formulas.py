r"""Evaluate formulas at a point: the trees of :mod:`gradcheck.grammar`, in mpmath's arithmetic.

The first equation with a symbol alone on its left-hand side defines that symbol; every other equality is a claim.
Derivatives are computed numerically, from the definition of the function. So is a symbol with a dot, the derivative
along the direction that the point specifies (``\dot x`` for x), and so is ``(H v)_{x_j}``, the same of the gradient.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mpmath import mp, mpf

from gradcheck.arithmetic import COMPARISONS, OPERATIONS, REDUCTIONS
from gradcheck.grammar import Apply, Big, Cases, Node, Number, Op, Partial, Relation, Statement, Sub, Symbol

DIGITS, STEP = 50, "1e-14"  # central differences: accurate to 1e-28, second differences to 1e-22
LOSSES = (r"\ell", "L", "e")  # the names that a page may give its loss
DOT = "\\dot "
DIRECTION = "direction"
CONSTANTS = {r"\pi": lambda: +mp.pi, r"\infty": lambda: mp.inf}


class Each(tuple):
    """The values that an index letter runs through."""


class Unknown(LookupError):
    """A symbol that neither the point nor the page defines."""


@dataclass(frozen=True, eq=False)
class Clause:
    """One of the definitions of a symbol, such as ``\\alpha_0(s) = …``; indices are letters or values."""

    indices: tuple[Node, ...]
    arguments: tuple[Node, ...] | None
    body: Node


Clauses = Mapping[str, Sequence[Clause]]
Head = tuple[str, tuple[Node, ...], "tuple[Node, ...] | None"]  # name, indices, arguments
Move = tuple[str, tuple[int, ...]]  # a symbol, and the index of one of its entries
Local = Mapping[str, Any]  # from index letter to value


@dataclass(frozen=True, eq=False)
class Page:
    """The definitions of a chapter, and state shared by all points: the cases reached, and how symbols are read."""

    clauses: Clauses
    reached: set[Node]
    heads: dict[Node, Head | None] = field(default_factory=dict)


class Point:
    """Values of the given symbols, and of the symbols that the page defines from them."""

    def __init__(self, given: Mapping[str, Any], page: Page) -> None:
        self.given, self.page, self.clauses = given, page, page.clauses
        self.memo: dict[Any, Any] = {}

    def moved(self, changes: Mapping[str, Any]) -> Point:
        return Point({**self.given, **changes}, self.page)

    # symbols

    def knows(self, name: str) -> bool:
        if name in self.given or name in self.clauses or name in CONSTANTS:
            return True
        if name.startswith(DOT):
            return self.knows(name.removeprefix(DOT))
        return name.endswith("'") and any(c.arguments for c in self.clauses.get(name.rstrip("'"), ()))

    def head(self, node: Node) -> Head | None:
        """The name, indices and arguments of a node that has the form of a symbol."""
        if node not in self.page.heads:
            self.page.heads[node] = self._head(node)
        return self.page.heads[node]

    def _head(self, node: Node) -> Head | None:
        match node:
            case Symbol(name):
                return name, (), None
            case Sub(Symbol(name), index, text):
                whole = f"{name}_{text}"
                indices = tuple(_indices(index))
                if self.knows(whole) or not (self.knows(name) or any(map(self._counts, indices))):
                    return whole, (), None
                return name, indices, None
            case Apply(function, arguments):
                inner = self.head(function)
                return None if inner is None else (inner[0], inner[1], arguments)
        return None

    def _counts(self, index: Node) -> bool:
        """Whether this may be an index of a symbol that is being defined."""
        return not isinstance(index, Symbol) or self._letter(index) is not None

    def defined_by(self, node: Node) -> Head | None:
        """The symbol that ``node = …`` would define, or None if it is already defined."""
        head = self.head(node)
        return None if head is None or (self.knows(head[0]) and not self._starts(*head)) else head

    def _starts(self, name: str, indices: Sequence[Node], arguments: Sequence[Node] | None) -> bool:
        """Whether this is a starting value of a recursion."""
        clauses = self.clauses.get(name, ())
        if name in self.given or not any(_speaks_of(name, c.body) for c in clauses):
            return False

        def pattern(indices: Iterable[Node]) -> list[Any]:
            return [None if self._letter(i) else self.evaluate(i, {}) for i in indices]

        return all(pattern(c.indices) != pattern(indices) for c in clauses)

    def _letter(self, node: Node) -> str | None:
        """The name of the index letter, or None if ``node`` is not one."""
        return node.name if isinstance(node, Symbol) and isinstance(self.given.get(node.name), Each) else None

    def symbol(self, node: Node, local: Local) -> Any:
        head = self.head(node)
        if head is None:
            raise Unknown("only a symbol has an index or arguments")
        name, index_nodes, argument_nodes = head
        if name in local:
            return _entry(local[name], [self.evaluate(i, local) for i in index_nodes])
        if not index_nodes and argument_nodes is None and name in self.given:
            return self.given[name]
        indices = tuple(_plain(self.evaluate(i, local)) for i in index_nodes)
        arguments = argument_nodes and tuple(self.evaluate(a, local) for a in argument_nodes)
        if name in self.given:
            value = _entry(self.given[name], indices)
            if arguments is None:
                return value
            return value(*arguments) if callable(value) else _entry(value, [_plain(a) for a in arguments])
        if name in self.clauses:
            count = len(self.clauses[name][0].indices)
            return _entry(self._of_clauses(name, indices[:count], arguments), indices[count:])
        if name.endswith("'") and len(arguments or ()) == 1:
            return self._primed(name.rstrip("'"), len(name) - len(name.rstrip("'")), arguments[0])
        if name.startswith(DOT):
            key = (name, indices, arguments)
            if key not in self.memo:
                self.memo[key] = self._dotted(_undotted(node), local)
            return self.memo[key]
        if name in CONSTANTS:
            return CONSTANTS[name]()
        raise Unknown(f"{name} has no meaning here")

    def _of_clauses(self, name: str, indices: tuple[Any, ...], arguments: tuple[Any, ...] | None) -> Any:
        clauses = self.clauses[name]
        if len(indices) < len(clauses[0].indices):  # the whole symbol, an array
            letters = clauses[0].indices[len(indices) :]
            sizes = [len(self.given[i.name]) if isinstance(i, Symbol) else 0 for i in letters]
            entries = [self._of_clauses(name, (*indices, *i), arguments) for i in np.ndindex(*sizes)]
            return np.array([None, *entries], dtype=object)[1:].reshape(sizes)
        if len(clauses) > 1:  # try clauses for a single entry before those with index letters
            clauses = sorted(clauses, key=lambda c: sum(self._letter(i) is not None for i in c.indices))
        for clause in clauses:
            patterns = list(zip(clause.indices, indices, strict=True))
            if arguments is not None and clause.arguments is not None:
                patterns += zip(clause.arguments, arguments, strict=True)
            elif arguments is not None:
                raise Unknown(f"{name} is no function")
            found = self._matched(patterns)
            if found is not None:
                return self._body(clause, *found)
        raise Unknown(f"{name} is not defined for {(*indices, *(arguments or ()))}")

    def _matched(self, patterns: Iterable[tuple[Node, Any]]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The values of index letters and of parameters, or None if a value does not match."""
        local, changes = {}, {}
        for pattern, value in patterns:
            if letter := self._letter(pattern):
                local[letter] = _plain(value)
            elif (head := self.head(pattern)) is not None and head[1:] == ((), None):
                changes[head[0]] = value
            elif self.evaluate(pattern, {}) != value:
                return None
        return local, changes

    def _body(self, clause: Clause, local: dict[str, Any], changes: dict[str, Any]) -> Any:
        """Evaluate a function by changing its parameter, and with it everything that depends on the parameter."""
        self.page.reached.add(clause.body)
        if any(not self.knows(k) or self.symbol(Symbol(k), {}) is not v for k, v in changes.items()):
            return self.moved(changes).evaluate(clause.body, local)
        key = (clause, *(v if isinstance(v, int) else id(v) for v in local.values()))
        if key not in self.memo:
            self.memo[key] = self.evaluate(clause.body, local)
        return self.memo[key]

    # derivatives

    def by_differences(self, node: Node, within: frozenset[str] = frozenset()) -> bool:
        """Whether ``node``, or its definition, involves finite differences; everything else is exact."""
        for part in node.walk():
            if isinstance(part, Partial) or (isinstance(part, Sub) and isinstance(part.base, Op)):
                return True
            if isinstance(part, Symbol) and part.name not in self.given and part.name not in within:
                bodies = [clause.body for clause in self.clauses.get(part.name, ())]
                if not bodies and (part.name.startswith(DOT) or part.name.endswith("'")):
                    return True
                if any(self.by_differences(body, within | {part.name}) for body in bodies):
                    return True
        return False

    def shifted(self, move: Move, step: Any) -> Point:
        """A point where a symbol or one entry is increased by ``step``, or everything is moved along the direction."""
        if (move, step) not in self.memo:
            name, at = move
            if name == DIRECTION:
                names = [k.removeprefix(DOT) for k in self.given if k.startswith(DOT)]
                changes = {k: self.symbol(Symbol(k), {}) + self.given[DOT + k] * step for k in names}
            else:
                changes = {name: _more(self.symbol(Symbol(name), {}), at, step)}
            self.memo[move, step] = self.moved(changes)
        return self.memo[move, step]

    def derivative(self, f: Callable[[Point], Any], moves: Sequence[Move]) -> Any:
        """The derivative of ``f`` with respect to each of ``moves`` in turn."""
        if not moves:
            return f(self)
        h, (move, *rest) = mpf(STEP), moves
        right, left = (self.shifted(move, step).derivative(f, rest) for step in (h, -h))
        return (right - left) / (2 * h)

    def _primed(self, name: str, order: int, at: Any) -> Any:
        (parameter,) = self.clauses[name][0].arguments
        point = self.moved({self.head(parameter)[0]: at})
        return point.derivative(lambda p: p.symbol(Symbol(name), {}), [(self.head(parameter)[0], ())] * order)

    def _dotted(self, node: Node, local: Local) -> Any:
        if not any(k.startswith(DOT) for k in self.given):
            raise Unknown("the point has no direction")
        return self.derivative(lambda p: p.symbol(node, local), [(DIRECTION, ())])

    def _partial(self, node: Partial, local: Local) -> Any:
        moves: list[Move] = []
        for variable in node.by:
            head = self.head(variable)
            if head is None:
                raise Unknown("a derivative is by a symbol")
            name, indices, arguments = head
            moves.append((name, tuple(_plain(self.evaluate(i, local)) for i in (*indices, *(arguments or ())))))
        name, at = moves[0]
        shape = np.shape(_entry(self.symbol(Symbol(name), local), at))
        if shape == ():
            # the order does not matter; sorted, the points are the same and are computed only once
            return self.derivative(lambda p: p.evaluate(node.of, local), sorted(moves, key=str))
        if len(moves) > 1:
            raise Unknown("a second derivative by vectors is written by their entries")
        slopes = np.empty(shape, dtype=object)
        for i in np.ndindex(*shape):
            slopes[i] = self.derivative(lambda p: p.evaluate(node.of, local), [(name, (*at, *i))])
        return slopes

    # expressions

    def evaluate(self, node: Node, local: Local) -> Any:
        match node:
            case Symbol() | Apply():
                return self.symbol(node, local)
            case Op(name, arguments):
                return self._operation(name, arguments, local)
            case Sub(Op("group", (Op("*", (curvature, _)),)), variable, _):
                return self._curvature(curvature, variable, local)
            case Sub():
                return self.symbol(node, local)
            case Number(digits):
                return mpf(digits) if "." in digits else int(digits)
            case Big():
                return self._big(node, local)
            case Cases(branches):
                found = [v for v, condition in branches if condition is not None and self.holds(condition, local)]
                found = found or [v for v, condition in branches if condition is None]
                if len(found) != 1:
                    raise Unknown(f"{len(found)} cases apply")
                self.page.reached.update(found)
                return self.evaluate(found[0], local)
            case Relation():
                return int(self.holds(node, local))
            case Partial():
                return self._partial(node, local)
        raise TypeError(node)

    def _curvature(self, node: Node, variable: Node, local: Local) -> Any:
        """``(H v)_x``, or ``(H_f v)_x`` for a function f other than the loss."""
        of: Node = Symbol(next(k for k in LOSSES if k in self.clauses))
        if isinstance(node, Sub):
            of, node = node.index, node.base
        if not isinstance(node, Symbol) or node.name != "H":
            raise Unknown("only a symbol, or (H v), has an index")
        return self.derivative(lambda p: p._partial(Partial(of, (variable,)), local), [(DIRECTION, ())])

    def _operation(self, name: str, nodes: Sequence[Node], local: Local) -> Any:
        if name == "interval":
            raise Unknown("an interval has no value")
        if name == "*" and isinstance(nodes[0], Relation) and not self.holds(nodes[0], local):
            return 0  # [false] times anything is 0, even if the other factor is undefined there
        values = [self.evaluate(n, local) for n in nodes]
        if name == "group":
            return values[0]
        if name == "set":
            return frozenset(values)
        return OPERATIONS[name](*values)

    def _big(self, node: Big, local: Local) -> Any:
        assigned: Iterable[dict[str, Any]]
        if node.upper is not None:
            (start,) = node.conditions
            if not (isinstance(start, Relation) and start.signs == ("=",) and isinstance(start.members[0], Symbol)):
                raise Unknown("a sum with an upper end starts with a letter = a number")
            first, last = (self.evaluate(n, local) for n in (start.members[1], node.upper))
            assigned = ({start.members[0].name: i} for i in range(first, last + 1))
            conditions: list[Relation] = []
        else:
            letters = dict.fromkeys(name for c in node.conditions for name in self._unbound(c, local))
            if not letters:
                raise Unknown(f"nothing to run through in {node.name}")
            assigned = self.assignments(letters)
            conditions = [c for c in node.conditions if isinstance(c, Relation)]
        scopes = [{**local, **bound} for bound in assigned]
        scopes = [scope for scope in scopes if all(self.holds(c, scope) for c in conditions)]
        terms = [self.evaluate(node.body, scope) for scope in scopes]
        if node.name == "argmax":
            best = max(range(len(terms)), key=terms.__getitem__)
            return scopes[best][next(iter(letters))]
        return REDUCTIONS[node.name](terms)

    def _unbound(self, node: Node, local: Local) -> Iterator[str]:
        """The index letters in ``node`` that have no value yet."""
        for part in node.walk():
            if (letter := self._letter(part)) and letter not in local:
                yield letter

    def assignments(self, letters: Iterable[str]) -> Iterator[dict[str, Any]]:
        letters = tuple(letters)
        for values in itertools.product(*(self.given[name] for name in letters)):
            yield dict(zip(letters, values, strict=True))

    def free(self, node: Node, bound: frozenset[str] = frozenset()) -> Iterator[str]:
        """The free index letters, which no sum runs through: a statement holds for each of their values."""
        if isinstance(node, Big):
            bound |= {part.name for c in node.conditions for part in c.walk() if isinstance(part, Symbol)}
            yield from self.free(node.body, bound)
        elif letter := self._letter(node):
            if letter not in bound:
                yield letter
        else:
            for child in node.children:
                yield from self.free(child, bound)

    # relations

    def holds(self, node: Node, local: Local) -> bool:
        """Whether a condition holds exactly."""
        if not isinstance(node, Relation):
            raise Unknown("a condition is a relation")
        pairs = itertools.pairwise(node.members)
        return all(self._related(a, b, sign, local) for (a, b), sign in zip(pairs, node.signs, strict=True))

    def _related(self, a: Node, b: Node, sign: str, local: Local) -> bool:
        left = self.evaluate(a, local)
        if isinstance(b, Op) and b.name == "interval":
            low, high = (self.evaluate(n, local) for n in b.arguments[:2])
            opening, closing = (n.name for n in b.arguments[2:] if isinstance(n, Symbol))
            return bool(low < left < high or (opening == "[" and left == low) or (closing == "]" and left == high))
        right = self.evaluate(b, local)
        if sign == r"\to":
            return self.given[sign](left, right)
        if sign in (r"\in", r"\notin"):
            return (left in right) == (sign == r"\in")
        return bool(np.all(COMPARISONS[sign](left, right)))


def _speaks_of(name: str, node: Node) -> bool:
    return any(isinstance(part, Symbol) and part.name == name for part in node.walk())


def definitions(given: Mapping[str, Any], relations: Iterable[Relation]) -> dict[str, list[Clause]]:
    """The definitions among the relations of a page, in order."""
    clauses: dict[str, list[Clause]] = {}
    for relation in relations:
        if relation.signs[:1] == ("=",):
            body = relation.members[1]
            point = Point(given, Page(clauses, set()))
            head = point.defined_by(relation.members[0])
            if head is not None:
                name, indices, arguments = head
                names = [point.head(a)[0] for a in arguments or ()]
                if len(names) > len(set(names)) or any(k not in given and not _speaks_of(k, body) for k in names):
                    raise Unknown(f"{name} is defined as a function of {', '.join(names)}")
                clauses.setdefault(name, []).append(Clause(indices, arguments, body))
    return clauses


def way(statement: Statement, given: Mapping[str, Any]) -> Relation:
    r"""The alternative of an ``\text{or}`` statement that applies to this case."""
    return statement.ways[given.get("or", 0) if len(statement.ways) > 1 else 0]


def numbers(value: Any) -> Any:
    """Convert floats to exact numbers and lists to arrays of them."""
    if isinstance(value, (list, np.ndarray)):
        parts = [numbers(v) for v in value]
        return np.array(parts, dtype=object)
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items()}
    return mpf(value) if isinstance(value, float) else value


def _entry(value: Any, indices: Sequence[Any]) -> Any:
    for i in indices:
        if isinstance(i, int) and not isinstance(value, dict) and not 0 <= i < len(value):
            raise Unknown(f"there is no entry {i} of {len(value)}")
        value = value[i]
    return value


def _plain(index: Any) -> Any:
    return int(index) if isinstance(index, (bool, mpf)) and index == int(index) else index


def _indices(index: Node) -> Iterator[Node]:
    """``q_{nc}`` and ``t_{i, j}`` have two."""
    if isinstance(index, Op) and index.name in ("*", "list"):
        for part in index.arguments:
            yield from _indices(part)
    else:
        yield index


def _undotted(node: Node) -> Node:
    match node:
        case Symbol(name):
            return Symbol(name.removeprefix(DOT))
        case Sub(base, index, text):
            return Sub(_undotted(base), index, text)
        case Apply(function, arguments):
            return Apply(_undotted(function), arguments)
    raise TypeError(node)


def _more(value: Any, at: tuple[int, ...], step: Any) -> Any:
    if not at:
        return value + step
    changed = value.copy()
    changed[at] += step
    return changed
