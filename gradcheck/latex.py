r"""Reading formulas: the LaTeX of an equation, as it stands on the page, to a tree.

The parsers that exist (SymPy's, latex2sympy) know neither cases, Iverson brackets nor sums over conditions, and make
symbolic expressions of what is wanted as numbers; and the chapters need little of LaTeX. Its conventions are those of
a careful writer:

- ``f(x)``, without a space, applies f; ``a\,(x + 1)`` is a product. So is what stands side by side.
- ``\log`` and the like, and ``\sum``, take the whole product that follows; ``\log(x)`` takes what is in parentheses.
- ``e^x`` is the exponential. ``[x > 0]`` is 1 if that holds; if not, 0 and all that follows.
- ``,`` and ``\qquad`` separate statements. ``A = B \text{or} C`` is read in one of two ways, and ``\text{for} C
  \text{and} D`` restricts the statement before it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Node:
    """A part of a formula. Equality is identity: the same letters in two places are two nodes."""

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
    """``base_index``: an entry, or, where the page speaks of ``n_a``, a name of its own."""

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
    """``a = b = c > d``: members, and the signs between them."""

    members: tuple[Node, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Partial(Node):
    """The partial derivative of ``of`` by each of ``by`` in turn."""

    of: Node
    by: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Statement:
    """What an equation states, in one way or in several of which a case chooses, where ``conditions`` hold."""

    ways: tuple[Relation, ...]
    conditions: tuple[Relation, ...]
    latex: str


class Token(NamedTuple):
    text: str
    spaced: bool  # whether there is a space before it


_TOKEN = re.compile(
    r"(?P<space>(?:\s|\\[,;:! ]|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|(?<=\\\\)\[[^\]]*\])+)"
    r"|(?P<token>\\text\{[^}]*\}|\\(?:mathrm|operatorname)\{[^}]*\}|\\(?:begin|end)\{cases\}|\\[a-zA-Z]+|\\\\|\\[{}]"
    r"|\d+(?:\.\d+)?|[^\s\\])"
)
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])")
_ALIASES = {r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne", r"\dfrac": r"\frac", r"\tfrac": r"\frac"}
_ALIASES |= {r"\lvert": "|", r"\rvert": "|"}

_SIGNS = {"=", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\notin", r"\to"}
_SEPARATORS = {",", ";", r"\quad", r"\qquad", r"\text{and}"}
_CLOSING = {")", "]", "}", r"\}", r"\rVert", "&", r"\\", r"\end{cases}", ":", r"\mid", ".", ""} | _SIGNS | _SEPARATORS
_ACCENTS = {r"\hat", r"\tilde", r"\bar", r"\dot", r"\ddot"}
_BIG = {r"\sum": "sum", r"\prod": "prod", r"\bigoplus": "oplus", r"\max": "max", r"\min": "min"}
_BIG |= {r"\operatorname{argmax}": "argmax"}
_FUNCTIONS = {r"\log": "log", r"\exp": "exp", r"\max": "max", r"\min": "min", r"\operatorname{sgn}": "sgn"}
_FUNCTIONS |= {r"\operatorname{artanh}": "artanh", r"\operatorname{diag}": "diag"}
_SUM, _PRODUCT, _POWER = 10, 20, 30
_BINARY = {"+": ("+", _SUM), "-": ("-", _SUM), r"\oplus": ("oplus", _SUM), "/": ("/", _PRODUCT)}
_BINARY |= {r"\cdot": ("dot", _PRODUCT), r"\cup": ("cup", _SUM)}


class Unreadable(ValueError):
    """LaTeX outside of what is understood here."""


def statements(latex: str) -> tuple[Statement, ...]:
    """What an equation states, one after the other."""
    return _Parser(latex).equation()


class _Parser:
    """A Pratt parser: ``expression(power)`` reads on as long as operators bind tighter than ``power``."""

    def __init__(self, latex: str) -> None:
        self.tokens, self.at = list(_tokens(latex)), 0
        self.in_bars = [False]

    @property
    def next(self) -> str:
        return self.tokens[self.at].text

    def take(self, *expected: str) -> str:
        token = self.next
        if expected and token not in expected:
            here = " ".join(t.text for t in self.tokens[max(0, self.at - 8) : self.at])
            raise Unreadable(f"expected {' or '.join(expected)} after {here!r}, not {token or 'the end'!r}")
        self.at += 1
        return token

    def skip(self, *tokens: str) -> bool:
        found = self.next in tokens
        self.at += found
        return found

    def text_from(self, start: int) -> str:
        return "".join(f" {t.text}" if t.spaced else t.text for t in self.tokens[start : self.at]).strip()

    # statements

    def equation(self) -> tuple[Statement, ...]:
        found = []
        while self._separated():
            found.append(self.statement())
        self.take("")
        return tuple(found)

    def statement(self) -> Statement:
        start, ways, conditions = self.at, [self.relation()], []
        while self._separated(peek=True) and (word := _words(self.next)) in ("or", "for"):
            self.at += 1
            self._separated()
            relation = self.relation()
            if word == "for":
                conditions.append(relation)
                while self.skip(r"\text{and}"):
                    conditions.append(self.relation())
            elif relation.signs:
                ways.append(relation)
            else:  # A = B or C
                ways.append(Relation((ways[0].members[0], *relation.members), ways[0].signs[:1]))
        return Statement(tuple(ways), tuple(conditions), self.text_from(start))

    def _separated(self, peek: bool = False) -> bool:
        """Whether there is more behind the separators; they are skipped, except where ``peek`` finds no text."""
        start = self.at
        while self.skip(*_SEPARATORS, "."):
            pass
        more = self.next != ""
        if peek and not self.next.startswith(r"\text"):
            self.at = start
        return more

    def relation(self) -> Relation:
        members, signs = [self.expression()], []
        while self.next in _SIGNS:
            signs.append(self.take())
            members.append(self.expression())
        return Relation(tuple(members), tuple(signs))

    # expressions

    def expression(self, power: int = 0) -> Node:
        left = self.operand()
        while True:
            token = self.next
            if token in ("_", "^"):
                left = self._scripted(left)
            elif token in _BINARY:
                name, strength = _BINARY[token]
                if strength <= power:
                    return left
                self.take()
                left = Op(name, (left, self.expression(strength)))
            elif power >= _PRODUCT or self._at_end():
                return left
            else:
                left = Op("*", (left, self.expression(_PRODUCT)))

    def _at_end(self) -> bool:
        return self.next in _CLOSING or self.next.startswith(r"\text") or (self.next == "|" and self.in_bars[-1])

    def operand(self) -> Node:
        token = self.take()
        if token in ("-", "+"):
            inner = self.expression(_SUM)
            return Op("neg", (inner,)) if token == "-" else inner
        if token[:1].isdigit():
            return Number(token)
        if token in ("(", "[", "|", r"\lVert", r"\{"):
            return self._bracketed(token)
        if token == r"\frac":
            return self._fraction()
        if token == r"\sqrt":
            return Op("sqrt", (self.argument(),))
        if token == r"\begin{cases}":
            return self._cases()
        if token in _BIG and self.next == "_":
            return self._big(_BIG[token])
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        if token in _CLOSING or token in ("{", "^", "_", "*"):
            raise Unreadable(f"an operand is missing before {token or 'the end'!r}")
        return self._named(token)

    def argument(self) -> Node:
        """What a command applies to: a group in braces, or a single sign."""
        if self.skip("{"):
            return self._closed("}")
        token = self.tokens[self.at]
        if token.text[:1].isdigit() and len(token.text) > 1:  # \tfrac12
            self.tokens[self.at : self.at + 1] = [Token(token.text[0], token.spaced), Token(token.text[1:], False)]
        if token.text[:1].isdigit():
            return Number(self.take())
        return self._named(self.take(), bare=True)

    def _closed(self, closing: str) -> Node:
        """A list of relations up to ``closing``, or the only one; a relation of one member is that member."""
        self.in_bars.append(closing == "|")
        parts = [_simple(self.relation())]
        while self.skip(",", ";", r"\mid", ":"):
            parts.append(_simple(self.relation()))
        self.take(closing)
        self.in_bars.pop()
        return parts[0] if len(parts) == 1 else Op("list", tuple(parts))

    def _bracketed(self, opening: str) -> Node:
        if opening == "|":
            return Op("abs", (self._closed("|"),))
        if opening == r"\lVert":
            inner = self._closed(r"\rVert")
            self.take("_")
            return Op("norm", (inner, self.argument()))
        if opening == r"\{":
            return Op("set", _parts(self._closed(r"\}")))
        start = self.at
        self.in_bars.append(False)
        inner = self.relation()
        self.in_bars.pop()
        if self.skip(","):  # an interval, as in x \in (0, 1]
            high = self.expression()
            return Op("interval", (inner.members[0], high, Symbol(opening), Symbol(self.take(")", "]"))))
        if opening == "[":
            self.take("]")
            if not inner.signs:
                raise Unreadable(f"[{self.text_from(start)} holds no condition")
            return inner
        self.take(")")
        return Op("group", (_simple(inner),))

    def _fraction(self) -> Node:
        if self.next == "{" and self.tokens[self.at + 1].text == r"\partial":
            return self._partial()
        return Op("/", (self.argument(), self.argument()))

    def _partial(self) -> Node:
        self.take("{")
        self.take(r"\partial")
        order = self._order()
        of = self._closed("}")
        self.take("{")
        by: list[Node] = []
        while self.skip(r"\partial"):
            variable = self.operand()
            by += [variable] * self._order()
        self.take("}")
        if len(by) != order:
            raise Unreadable(f"a derivative of order {order} by {len(by)} variables")
        return Partial(of, tuple(by))

    def _order(self) -> int:
        return int(self.take()) if self.skip("^") else 1

    def _cases(self) -> Node:
        branches: list[tuple[Node, Node | None]] = []
        self.in_bars.append(False)
        while not self.skip(r"\end{cases}"):
            value = self.expression()
            self.skip(",")
            self.take("&")
            if _words(self.next) in ("otherwise", "else"):
                self.take()
                branches.append((value, None))
            else:
                branches.append((value, self.relation()))
            self.skip(r"\\")
        self.in_bars.pop()
        return Cases(tuple(branches))

    def _big(self, name: str) -> Node:
        self.take("_")
        conditions = _parts(self.argument())
        upper = self.argument() if self.skip("^") else None
        return Big(name, conditions, upper, self.expression(_SUM))

    def _function(self, name: str) -> Node:
        if self.next == "(":
            self.take()
            return Op(name, _parts(self._closed(")")))
        return Op(name, (self.expression(_SUM),))

    def _named(self, token: str, bare: bool = False) -> Node:
        """A name with its accents and primes and, unless ``bare``, its index and arguments."""
        if token in _ACCENTS:
            inner = self.argument()
            if not isinstance(inner, Symbol):
                raise Unreadable(f"{token} stands on something that is no name")
            node = Symbol(f"{token} {inner.name}")
        elif re.fullmatch(r"[a-zA-Z]|\\(?!text)[a-zA-Z]+|\\(mathrm|operatorname)\{.*\}", token):
            node = Symbol(token)
        else:
            raise Unreadable(f"{token!r} is not understood")
        if bare:
            return node
        if node.name == "e" and self.skip("^"):
            return Op("exp", (self.argument(),))
        while self.skip("'"):
            node = Symbol(node.name + "'")
        named: Node = node
        if self.next == "_":
            named = self._scripted(named)
        return self._applied(named)

    def _applied(self, function: Node) -> Node:
        if self.next == "(" and not self.tokens[self.at].spaced:
            self.take()
            return Apply(function, _parts(self._closed(")")))
        return function

    def _scripted(self, base: Node) -> Node:
        if self.take("_", "^") == "^":
            return Op("top", (base,)) if self.skip(r"\top") else Op("^", (base, self.argument()))
        start = self.at
        index = self.argument()
        text = self.text_from(start).removeprefix("{").removesuffix("}").strip()
        return self._applied(Sub(base, index, text))


def _tokens(latex: str) -> Iterator[Token]:
    at, spaced = 0, False
    while at < len(latex):
        match = _TOKEN.match(latex, at)
        if match is None:
            raise Unreadable(f"{latex[at:]!r} is not understood")
        at = match.end()
        if match.group("space"):  # the sizes of brackets are no space
            spaced = _SIZES.sub("", match.group("space")) != ""
        else:
            token = re.sub(r"^\\text\{\s*(.*?)\s*\}", r"\\text{\1}", match.group("token"))
            yield Token(_ALIASES.get(token, token), spaced)
            spaced = False
    yield Token("", False)


def _words(token: str) -> str:
    r"""What stands in a ``\text{…}``."""
    return token.removeprefix(r"\text{").removesuffix("}") if token.startswith(r"\text{") else ""


def _simple(relation: Relation) -> Node:
    return relation if relation.signs else relation.members[0]


def _parts(node: Node) -> tuple[Node, ...]:
    return node.arguments if isinstance(node, Op) and node.name == "list" else (node,)
