"""Traces the rule of a pointwise loss into a graph of elementary operations without duplicates.

:mod:`torch.fx` records what ``elementwise`` and ``first`` do. Equal operations are merged, so that the value and the
slopes share common subexpressions.

A rule is traced once for each combination of its ``bool`` options, of the ``special`` values of its numbers (or any
other value), and of the presence of its optional inputs. In such a variant, Python's ``if`` statements are resolved.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from manual_grad.engine import elementary
from manual_grad.engine.pointwise import PointwiseLoss

VECTOR, MASK, SCALAR = "vector", "mask", "scalar"  # a number per element, a bool per element, a single number
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


@dataclass(frozen=True, eq=False)
class Node:
    """``op`` applied to ``arguments``, which hold the name of an 'input' or 'option' or the value of a 'constant'."""

    op: str
    arguments: tuple[Any, ...]
    kind: str

    @property
    def is_leaf(self) -> bool:
        return self.op in ("input", "option", "constant")

    @property
    def is_constant(self) -> bool:
        return self.op == "constant"


@dataclass(frozen=True)
class Variant:
    """A rule with its choices made: True or False, a special value, or None for any other number."""

    chosen: dict[str, bool | float | None]
    value: Node
    slopes: dict[str, Node]  # one per input that is present
    outside: tuple[Node, ...]


def variants(loss: type[PointwiseLoss]) -> Iterator[Variant]:
    either = [name for name, kind in loss.options.items() if kind == "bool"] + list(loss.optional)
    choices = {
        **{name: (*values, None) for name, values in loss.special.items()},
        **dict.fromkeys(either, (True, False)),
    }
    for values in itertools.product(*choices.values()):
        yield _trace(loss, dict(zip(choices, values, strict=True)))


def suffix(variant: Variant) -> str:
    """The suffix of the names in the code generated from a variant."""

    def word(name: str, value: bool | float | None) -> str:
        if isinstance(value, float):
            return f"_{name}_{value:g}".replace(".", "_")
        return f"_other_{name}" if value is None else f"_{name}" if value else f"_no_{name}"

    return "".join(word(name, value) for name, value in variant.chosen.items())


def order(results: list[Node]) -> list[Node]:
    """The operations that ``results`` need, each after its arguments."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            if not node.is_leaf:
                for argument in node.arguments:
                    visit(argument)
            found[node] = None

    for result in results:
        visit(result)
    return [node for node in found if not node.is_leaf]


class _Number(fx.Proxy):
    """An option without a special value: comparisons with constants are False, which selects the general rule."""

    def __eq__(self, other: Any) -> Any:
        return super().__eq__(other) if isinstance(other, fx.Proxy) else False

    def __ne__(self, other: Any) -> Any:
        return super().__ne__(other) if isinstance(other, fx.Proxy) else True

    __hash__ = fx.Proxy.__hash__


class _Builder:
    """Creates nodes without duplicates."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[Any, ...], Node] = {}

    def __call__(self, op: str, *arguments: Any, kind: str | None = None) -> Node:
        key = op, *((type(a), repr(a)) if not isinstance(a, Node) else a for a in arguments)
        if key not in self.nodes:
            self.nodes[key] = Node(op, arguments, kind or _kind(op, arguments))
        return self.nodes[key]

    def constant(self, number: float) -> Node:
        return self("constant", number, kind=SCALAR)


def _kind(op: str, arguments: tuple[Node, ...]) -> str:
    kinds = {a.kind for a in arguments}
    if op in COMPARISONS or op in ("and", "or", "not"):
        if kinds == {SCALAR}:
            raise ValueError(f"a rule decides by an option alone ({op}); use an option that is a bool instead")
        return MASK
    return VECTOR if VECTOR in kinds or op == "where" else SCALAR


def _trace(loss: type[PointwiseLoss], chosen: dict[str, Any]) -> Variant:
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    build = _Builder()
    nodes: dict[fx.Node, Node] = {}

    def argument(name: str, op: str, kind: str) -> Any:
        proxy = fx.Proxy(graph.placeholder(name), tracer)
        nodes[proxy.node] = build(op, name, kind=kind)
        return proxy

    inputs = {k: argument(k, "input", VECTOR) if chosen.get(k, True) else None for k in loss.inputs}
    options: dict[str, Any] = {}
    for name, annotation in loss.options.items():
        if chosen.get(name) is not None:
            options[name] = chosen[name]
        elif annotation == "float":
            number = argument(name, "option", SCALAR)
            options[name] = _Number(number.node, tracer)
        else:
            options[name] = None  # kernels do not support this kind of option; the rule must not use it
    value = loss.elementwise(*inputs.values(), *options.values())
    slopes = loss.first(*inputs.values(), *options.values())
    outside = loss.outside(*inputs.values())
    for node in graph.nodes:
        if node not in nodes:
            nodes[node] = _translated(node, nodes, build)

    def found(result: Any, vector: bool = True) -> Node:
        node = nodes[result.node] if isinstance(result, fx.Proxy) else build.constant(result)
        return build("splat", node, kind=VECTOR) if vector and node.kind == SCALAR else node

    by_input = dict(zip(inputs, slopes, strict=True))
    return Variant(
        chosen,
        found(value),
        {name: found(by_input[name]) for name, given in inputs.items() if given is not None},
        tuple(found(mask, vector=False) for mask in outside),
    )


_FUNCTIONS: dict[Callable[..., Any], str] = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.truediv: "div",
    operator.neg: "neg",
    operator.pow: "pow",
    operator.and_: "and",
    operator.or_: "or",
    operator.invert: "not",
    **{getattr(operator, name): name for name in COMPARISONS},
    **{getattr(torch, name): name for name in ("where", "minimum", "maximum", "abs", "exp", "log", "sqrt")},
    torch.log1p: "log1p",
    torch.expm1: "expm1",
    **{getattr(elementary, name): name for name in ("exp_remainder", "exp_minus_1", "product_error")},
}
_METHODS = {
    **{name: name for name in ("abs", "exp", "expm1", "log", "log1p", "sqrt", "sign", "neg", "pow")},
    **{name: name for name in ("clamp_min", "clamp_max")},
}


_POWERS: dict[float, Callable[[_Builder, Node], Node]] = {
    -1: lambda build, x: build("div", build.constant(1), x),
    0: lambda build, x: build.constant(1),
    0.5: lambda build, x: build("sqrt", x),
    1: lambda build, x: x,
    2: lambda build, x: build("mul", x, x),
}

_FOLDED: dict[str, Callable[..., float]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "neg", "abs", "pow")},
    **{name: getattr(math, name) for name in ("exp", "expm1", "log", "log1p", "sqrt")},
    **{name: getattr(operator, name) for name in COMPARISONS},
    "div": operator.truediv,
    "clamp_min": max,
    "clamp_max": min,
}


def _is_size(condition: Node, negated: Node, x: Node) -> bool:
    """Whether a where selects -x for x < 0 and x elsewhere."""
    if (condition.op, negated.op) != ("lt", "neg"):
        return False
    y, bound = condition.arguments
    return y is x is negated.arguments[0] and bound.is_constant and bound.arguments[0] == 0


def _translated(node: fx.Node, nodes: dict[fx.Node, Node], build: _Builder) -> Node:
    def of(a: Any) -> Any:
        if isinstance(a, fx.Node):
            return nodes[a]
        return build.constant(a) if isinstance(a, (bool, int, float)) else a

    arguments = [of(a) for a in node.args]
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
    if node.op == "call_function" and node.target is getattr:  # the dtype of a tensor, for .to()
        return build("dtype", node.args[1], kind=SCALAR)
    if name == "to":
        x = arguments[0]
        return build("where", x, build.constant(1), build.constant(0)) if x.kind == MASK else x  # True is 1
    if name in ("zeros_like", "ones_like", "full_like"):
        return arguments[-1] if name == "full_like" else build.constant(int(name == "ones_like"))
    if name == "square":
        return build("mul", arguments[0], arguments[0])
    if name == "isnan":
        return build("ne", arguments[0], arguments[0])
    if name == "clamp":
        x, low, high = arguments
        return build("clamp_max", build("clamp_min", x, low), high)
    op = _METHODS.get(name) if node.op == "call_method" else _FUNCTIONS.get(node.target)  # type: ignore[arg-type]
    if op == "where" and arguments[1] is arguments[2]:
        return arguments[1]
    if op == "where" and arguments[0].is_constant:
        return arguments[1] if arguments[0].arguments[0] else arguments[2]
    if op in ("and", "or") and any(a.is_constant for a in arguments):
        known, other = sorted(arguments, key=lambda a: not a.is_constant)
        return other if bool(known.arguments[0]) == (op == "and") else known
    if op == "where" and _is_size(*arguments):
        return build("abs", arguments[2])
    if op is None or node.kwargs:
        arguments = ", ".join(map(str, node.args))
        raise ValueError(f"no kernel can be generated from {name}({arguments}); see generate/trace.py")
    if op == "pow" and arguments[1].is_constant and arguments[1].arguments[0] in _POWERS:
        return _POWERS[arguments[1].arguments[0]](build, arguments[0])
    if op in _FOLDED and all(a.is_constant for a in arguments):
        return build.constant(_FOLDED[op](*(a.arguments[0] for a in arguments)))
    return build(op, *arguments)
