r"""Parse the equations of a chapter: from the syntax tree of :mod:`gradcheck.latex` to a tree of operations.

Existing parsers (SymPy's, latex2sympy) support neither cases, Iverson brackets nor sums over conditions, and build
symbolic expressions, while numbers are needed here. The chapters use little of LaTeX, with these conventions:

- ``f(x)``, without a space, applies f; ``a\,(x + 1)`` is a product. Juxtaposed factors are a product.
- ``\log``, ``\sum`` and the like apply to the whole product that follows; ``\log(x)`` applies to the parentheses only.
- ``e^x`` is the exponential. ``[x > 0]`` is 1 if the condition holds; otherwise it and all that it multiplies are 0.
- ``,`` and ``\qquad`` separate statements. ``A = B \text{or} C`` gives two alternatives, and ``\text{for} C
  \text{and} D`` restricts the statement before it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gradcheck.latex import ACCENTS, SPACES, Part, Row, Unreadable, read, source


class Node:
    """A part of a formula. Nodes compare by identity: the same letter in two places is two nodes."""

    @cached_property
    def children(self) -> tuple[Node, ...]:
        def nodes(value: object) -> Iterator[Node]:
            if isinstance(value, Node):
                yield value
            elif isinstance(value, tuple):
                for part in value:
                    yield from nodes(part)

        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return tuple(node for field in fields for node in nodes(getattr(self, field.name)))

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, eq=False)
class Number(Node):
    digits: str


@dataclass(frozen=True, eq=False)
class Symbol(Node):
    """A letter or a word with its accents and primes: ``x``, ``\\tilde t``, ``p'``, ``\\mathrm{lse}``."""

    name: str


@dataclass(frozen=True, eq=False)
class Sub(Node):
    """``base_index``: an entry of ``base``, or a separate name if the page defines one, such as ``n_a``."""

    base: Node
    index: Node
    text: str


@dataclass(frozen=True, eq=False)
class Apply(Node):
    function: Node
    arguments: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Op(Node):
    """One of ``+ - * / ^ neg dot top abs norm oplus list interval`` or a function: ``log``, ``max`` …"""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Big(Node):
    r"""``\sum_{conditions}^{upper} body``, and likewise max, min, argmax, prod, bigoplus."""

    name: str
    conditions: tuple[Node, ...]
    upper: Node | None
    body: Node


@dataclass(frozen=True, eq=False)
class Cases(Node):
    """Values with their conditions; None is 'otherwise'."""

    branches: tuple[tuple[Node, Node | None], ...]


@dataclass(frozen=True, eq=False)
class Relation(Node):
    """``a = b = c > d``: the members, and the signs between them."""

    members: tuple[Node, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Partial(Node):
    """The partial derivative of ``of`` with respect to each of ``by`` in turn."""

    of: Node
    by: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement that holds under ``conditions``, with one or several alternatives, of which each case selects one."""

    ways: tuple[Relation, ...]
    conditions: tuple[Relation, ...]
    latex: str


_SIGNS = {"=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\notin", r"\to"}
_SEPARATORS = {",", ";", r"\quad", r"\qquad", r"\text{and}"}
_CLOSING = {"", r"\rVert", ":", r"\mid", "."} | _SIGNS | _SEPARATORS
_BIG = {r"\sum": "sum", r"\prod": "prod", r"\bigoplus": "oplus", r"\max": "max", r"\min": "min"}
_BIG |= {r"\operatorname{argmax}": "argmax"}
_FUNCTIONS = {r"\log": "log", r"\exp": "exp", r"\max": "max", r"\min": "min", r"\tanh": "tanh"}
_FUNCTIONS |= {rf"\operatorname{{{name}}}": name for name in ("sgn", "artanh", "diag")}
_SUM, _PRODUCT = 10, 20
_BINARY = {"+": ("+", _SUM), "-": ("-", _SUM), r"\oplus": ("oplus", _SUM), "/": ("/", _PRODUCT)}
_BINARY |= {r"\cdot": ("dot", _PRODUCT), r"\cup": ("cup", _SUM)}
_RESERVED = {r"\lVert", *_CLOSING, *_BIG, *_FUNCTIONS, *_BINARY}
_NAME = re.compile(r"[a-zA-Z]|\\(?!text|begin|end)[a-zA-Z]+(\{.*\})?")


def statements(latex: str) -> tuple[Statement, ...]:
    """The statements of an equation, in order."""
    parser, found = _Parser(read(latex)), []
    while parser.separated():
        found.append(parser.statement())
    return tuple(found)


class _Parser:
    """A Pratt parser for a row: ``expression(power)`` reads on while operators bind tighter than ``power``."""

    def __init__(self, row: Row) -> None:
        self.row, self.at, self.in_bars = row, 0, False

    @property
    def here(self) -> Part:
        return self.row[self.at] if self.at < len(self.row) else Part("")

    @property
    def next(self) -> str:
        """The next token that is not a space; for ``\\text``, without the spaces around its words."""
        while self.here.token in SPACES:
            self.at += 1
        return re.sub(r"(?<=^\\text\{)\s+|\s+(?=\}$)", "", self.here.token)

    def take(self, *expected: str, scripted: bool = False) -> Part:
        token, part = self.next, self.here
        if (expected and token not in expected) or (part.scripts and not scripted):
            what = " or ".join(e or "the end" for e in expected) or f"no scripts of {token}"
            raise Unreadable(f"expected {what} after {source(self.row[: self.at])!r}, not {part.latex or 'the end'!r}")
        self.at += 1
        return part

    def skip(self, *tokens: str) -> bool:
        return self.next in tokens and bool(self.take())

    # statements

    def separated(self, peek: bool = False) -> bool:
        """Whether anything follows the separators. Skips them, unless ``peek`` is set and no text follows."""
        start = self.at
        while self.skip(*_SEPARATORS, "."):
            pass
        more = self.next != ""
        if peek and not self.next.startswith(r"\text"):
            self.at = start
        return more

    def statement(self) -> Statement:
        start, ways, conditions = self.at, [self.relation()], []
        while self.separated(peek=True) and (word := self.next) in (r"\text{or}", r"\text{for}"):
            self.take()
            self.separated()
            relation = self.relation()
            if word == r"\text{for}":
                conditions.append(relation)
                while self.skip(r"\text{and}"):
                    conditions.append(self.relation())
            elif relation.signs:
                ways.append(relation)
            else:  # A = B or C
                ways.append(Relation((ways[0].members[0], *relation.members), ways[0].signs[:1]))
        return Statement(tuple(ways), tuple(conditions), source(self.row[start : self.at]))

    def relation(self) -> Relation:
        members, signs = [self.expression()], []
        while self.next in _SIGNS:
            signs.append(self.take().token)
            members.append(self.expression())
        return Relation(tuple(members), tuple(signs))

    def listed(self, end: str = "") -> tuple[Node, ...]:
        """Relations up to ``end``; a relation with a single member is reduced to that member."""
        nodes: list[Node] = []
        while not nodes or self.skip(",", ";", r"\mid", ":"):
            relation = self.relation()
            nodes.append(relation if relation.signs else relation.members[0])
        self.take(end, scripted=True)
        return tuple(nodes)

    # expressions

    def expression(self, power: int = 0) -> Node:
        left = self.operand()
        while True:
            token = self.next
            if token in _BINARY:
                name, strength = _BINARY[token]
                if strength <= power:
                    return left
                self.take()
                left = Op(name, (left, self.expression(strength)))
            elif (
                power >= _PRODUCT or token in _CLOSING or token.startswith(r"\text") or (token == "|" and self.in_bars)
            ):
                return left
            else:
                left = Op("*", (left, self.expression(_PRODUCT)))

    def operand(self) -> Node:
        token = self.next
        part = self.take(scripted=True)
        match [token, *(script.token for script in part.scripts)]:
            case ["+"]:
                return self.expression(_SUM)
            case ["-"]:
                return Op("neg", (self.expression(_SUM),))
            case ["|" | r"\lVert"]:
                return self.barred(token)
            case [_, "_"] | [_, "_", "^"] if token in _BIG:
                below, *above = (_inside(script) for script in part.scripts)
                return Big(_BIG[token], below, _one(*above) if above else None, self.expression(_SUM))
            case [_] if token in _FUNCTIONS and self.next != "(":
                return Op(_FUNCTIONS[token], (self.expression(_SUM),))
            case [_] if token in _FUNCTIONS:
                part = self.take(scripted=True)
                return _scripted(Op(_FUNCTIONS[token], _inside(part, ")")), part.scripts)
            case ["e", "^", *_]:
                return _scripted(Op("exp", (_one(_inside(part.scripts[0])),)), part.scripts[1:])
        node = _scripted(_plain(part), part.scripts)
        while isinstance(node, (Symbol, Sub)) and self.here.token == "(" and not self.here.latex[0].isspace():
            part = self.take(scripted=True)
            node = _scripted(Apply(node, _inside(part, ")")), part.scripts)
        return node

    def barred(self, opening: str) -> Node:
        outer, self.in_bars = self.in_bars, True
        inner = _one(self.listed("|" if opening == "|" else r"\rVert"))
        self.in_bars = outer
        scripts = self.row[self.at - 1].scripts
        if opening == "|":
            return _scripted(Op("abs", (inner,)), scripts)
        if not scripts or scripts[0].token != "_":
            raise Unreadable("a norm has its degree as an index")
        return _scripted(Op("norm", (inner, _one(_inside(scripts[0])))), scripts[1:])


def _inside(part: Part, closing: str = "") -> tuple[Node, ...]:
    """The contents of a script, or of a bracket with this closing."""
    if part.closing != closing:
        raise Unreadable(f"expected {closing} at the end of {part.latex}")
    return _Parser(part.arguments[0]).listed()


def _one(nodes: tuple[Node, ...]) -> Node:
    return nodes[0] if len(nodes) == 1 else Op("list", nodes)


def _scripted(node: Node, scripts: Row) -> Node:
    for script in scripts:
        if script.token == "_":
            node = Sub(node, _one(_inside(script)), source(script.arguments[0]))
        elif script.token == "^":
            top = source(script.arguments[0]) == r"\top"
            node = Op("top", (node,)) if top else Op("^", (node, _one(_inside(script))))
        elif isinstance(node, Symbol):
            node = Symbol(node.name + "'")
        else:
            raise Unreadable("a prime stands on something that is no name")
    return node


def _plain(part: Part) -> Node:
    """A part without its scripts."""
    token, rows = part.token, part.arguments
    if token[:1].isdigit():
        return Number(token)
    if part.closing:
        return _bracketed(part)
    if token == r"\begin{cases}":
        return Cases(tuple(map(_branch, rows)))
    if token in (r"\frac", r"\tfrac") and rows[0] and rows[0][0].token == r"\partial":
        return _partial(*map(_Parser, rows))
    if token in (r"\frac", r"\tfrac", r"\sqrt", *ACCENTS):
        nodes = tuple(_one(_Parser(row).listed()) for row in rows)
        if token not in ACCENTS:
            return Op("sqrt" if token == r"\sqrt" else "/", nodes)
        if isinstance(nodes[0], Symbol):
            return Symbol(f"{token} {nodes[0].name}")
    elif _NAME.fullmatch(token) and token not in _RESERVED and not rows:
        return Symbol(token)
    raise Unreadable(f"{part.latex.strip()} is not understood" if token else "an operand is missing at the end")


def _bracketed(part: Part) -> Node:
    nodes = _inside(part, part.closing)
    match part.token, part.closing, nodes:
        case "(" | "[", ")" | "]", (low, high):  # an interval, as in x \in (0, 1]
            return Op("interval", (low, high, Symbol(part.token), Symbol(part.closing)))
        case "(", ")", (inner,):
            return Op("group", (inner,))
        case "[", "]", (Relation() as condition,):
            return condition
        case r"\{", r"\}", _:
            return Op("set", nodes)
    raise Unreadable(f"{part.latex} is neither a group nor a condition, an interval or a set")


def _branch(line: Row) -> tuple[Node, Node | None]:
    if len(line) != 2:
        raise Unreadable(f"a case is a value & its condition, not {source(line)}")
    value, condition = (_Parser(cell.arguments[0]) for cell in line)
    branch = value.expression(), None if condition.skip(r"\text{otherwise}", r"\text{else}") else condition.relation()
    value.skip(",")
    value.take("")
    condition.take("")
    return branch


def _partial(above: _Parser, below: _Parser) -> Partial:
    sign, by = above.take(scripted=True), []
    while below.skip(r"\partial"):
        variable, times = _power(below.operand())
        by += [variable] * times
    below.take("")
    _, order = _power(_scripted(_plain(sign), sign.scripts))
    if len(by) != order:
        raise Unreadable(f"a derivative of order {order} by {len(by)} variables")
    return Partial(_one(above.listed()), tuple(by))


def _power(node: Node) -> tuple[Node, int]:
    match node:
        case Op("^", (base, Number(digits))):
            return base, int(digits)
    return node, 1
