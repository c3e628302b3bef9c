"""Generates the Triton functions of a pointwise loss from its rule."""

from __future__ import annotations

import math
from collections.abc import Iterator

from manual_grad.engine.pointwise import OPTIONS, PointwiseLoss
from manual_grad.generate.trace import SCALAR, VECTOR, Node, Variant, order, suffix, variants

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
_OPERATORS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LONG = 70  # with more operations, eight elements per thread need more registers than there are
_POWER = 30  # operations that a power counts as
_UNUSED = "  # noqa: F401 - the interpreter looks for it in every file"
_FUNCTIONS = ("exp", "log1p", "expm1", "exp_remainder", "exp_minus_1", "pow")
_OURS = (*_FUNCTIONS, "at_least", "at_most")  # in kernels/triton/math.py


def source(name: str, loss: type[PointwiseLoss]) -> str:
    """The contents of a file of kernels/triton/generated."""
    body: list[str] = []
    entries = []
    longest = 0
    for variant in variants(loss):
        nodes = order([variant.value, *variant.slopes.values()])
        longest = max(longest, len(nodes) + _POWER * sum(node.op == "pow" for node in nodes))
        slopes = list(variant.slopes.values())
        for what, results in (("value", [variant.value]), ("slopes", slopes)):
            body += ["", "", "@triton.jit", f"def {what}{suffix(variant)}(inputs, options):"]
            body += _Printer(loss, results).lines(variant if what == "slopes" else None)
        entries.append(f"        {tuple(variant.chosen.values())}: (value{suffix(variant)}, slopes{suffix(variant)}),")
    used = [f for f in _OURS if any(f" {f}(" in line for line in body)]
    options = [k for k, kind in loss.options.items() if kind in OPTIONS]
    choices: list[tuple[str, int, tuple[float, ...]]] = []
    for k in variant.chosen:
        if k in loss.optional:
            choices.append(("input", loss.inputs.index(k), ()))
        else:
            choices.append(("option", options.index(k), loss.special.get(k, ())))
    optional = tuple(loss.inputs.index(k) for k in loss.optional)
    return "\n".join([
        "import triton",
        "import triton.language as tl" + ("" if any("tl." in line for line in body) else _UNUSED),
        "",
        *([f"from manual_grad.kernels.triton.math import {', '.join(sorted(used))}"] if used else []),
        "from manual_grad.kernels.triton.pointwise import Loss",
        *body,
        "",
        "",
        "LOSS = Loss(",
        f"    inputs={len(loss.inputs)},",
        f"    optional={optional!r},",
        f"    options={len(options)},",
        f"    factor={loss.factor},",
        *(["    block=256,"] if longest > _LONG else []),
        f"    choices={tuple(choices)!r},".replace("'", '"'),
        "    variants={",
        *entries,
        "    },",
        ")",
        "",
    ])  # fmt: skip


def table(names: list[str]) -> str:
    """The contents of kernels/triton/generated/__init__.py."""
    rows = [f'    "{name}": {name}.LOSS,' for name in names]
    imports = ["from manual_grad.kernels.triton.generated import (", *(f"    {name}," for name in sorted(names)), ")"]
    title = '"""The generated kernels of the pointwise losses."""'
    return "\n".join([title, "", *imports, "", "LOSSES = {", *rows, "}", ""])


class _Printer:
    """Prints the body of a function, with one variable per operation."""

    def __init__(self, loss: type[PointwiseLoss], results: list[Node]) -> None:
        self.loss, self.results, self.nodes = loss, results, order(results)
        used = [*results, *(a for node in self.nodes for a in node.arguments)]
        self.fused = {node: fused for node in self.nodes if (fused := _fused(node, used)) is not None}
        self.nodes = [node for node in self.nodes if node not in {product for product, _ in self.fused.values()}]
        self.leaves = list(dict.fromkeys(a for a in used if isinstance(a, Node) and a.op in ("input", "option")))
        self.options = [k for k, kind in loss.options.items() if kind in OPTIONS]
        self.names = {node: node.arguments[0] for node in self.leaves}
        self.names |= {node: f"v{i}" for i, node in enumerate(self.nodes, 1)}

    def lines(self, variant: Variant | None) -> Iterator[str]:
        """The body of the value function or, for a variant, of its slopes."""
        leaves = sorted(self.leaves, key=lambda node: (node.op, self._place(node)))
        like = next((self.of(node) for node in leaves if node.op == "input"), None)
        if like is None:
            like = "x"
            yield "    x = inputs[0]"
        self.like = like
        for node in leaves:
            yield f"    {self.of(node)} = {node.op}s[{self._place(node)}]"
        for node in self.nodes:
            yield f"    {self.of(node)} = {self._computed(node)}"
        if variant is None:
            yield f"    return {self.of(self.results[0])}"
        else:
            slopes = [self.of(variant.slopes[k]) if k in variant.slopes else f"0.0 * {like}" for k in self.loss.inputs]
            yield f"    return {', '.join(slopes)}"

    def _place(self, node: Node) -> int:
        name = node.arguments[0]
        return self.loss.inputs.index(name) if node.op == "input" else self.options.index(name)

    def of(self, node: Node, beside: str = SCALAR) -> str:
        """Options and expressions of options only are in float64 until they are combined with an element."""
        if node.is_constant:
            return _number(node.arguments[0])
        meets = node.kind == SCALAR and beside != SCALAR
        return f"{self.names[node]}.to({self.like}.dtype)" if meets else self.names[node]

    def _computed(self, node: Node) -> str:
        if node in self.fused:
            return self._multiplied_and_added(node, *self.fused[node])
        a = [self.of(argument, node.kind) for argument in node.arguments]
        if node.op in _OPERATORS:
            return f"{a[0]} {_OPERATORS[node.op]} {a[1]}"
        if node.op == "neg":
            return f"-{a[0]}"
        if node.op == "not":
            return f"{a[0]} == 0"
        if node.op == "where":
            _, b, c = node.arguments
            text = f"tl.where({', '.join(a)})"
            return text if VECTOR in (b.kind, c.kind) else f"{text}.to({self.like}.dtype)"
        if node.op == "splat":
            return f"tl.zeros_like({self.like}) + {a[0]}"
        if node.op in ("clamp_min", "clamp_max"):
            return f"{'at_least' if node.op == 'clamp_min' else 'at_most'}({a[0]}, {a[1]})"
        if node.op in ("minimum", "maximum"):  # propagates NaN
            sign = "<" if node.op == "minimum" else ">"
            return f"tl.where({a[0]} {sign} {a[1]}, {a[0]}, tl.where({a[0]} == {a[0]}, {a[1]}, {a[0]}))"
        if node.op == "sign":
            above, below = (f"tl.where({a[0]} {sign} 0, 1.0, 0.0).to({a[0]}.dtype)" for sign in "><")
            return f"{above} - {below}"
        if node.op == "product_error":
            return f"tl.fma({a[0]} + 0.0 * {a[1]}, {a[1]} + 0.0 * {a[0]}, -({a[0]} * {a[1]}))"
        if node.op in _FUNCTIONS:
            return f"{node.op}({', '.join(a)})"
        if node.op in ("abs", "log", "sqrt"):
            return f"tl.{node.op}({a[0]})"
        raise ValueError(f"no Triton for {node.op}; see generate/triton.py")

    def _multiplied_and_added(self, node: Node, product: Node, other: Node) -> str:
        b, c = map(self.of, product.arguments)
        if node.op == "add":
            return f"tl.fma({b}, {c}, {self.of(other)})"
        if node.arguments[0] is product:
            return f"tl.fma({b}, {c}, -{self.of(other)})"
        return f"tl.fma(-{b}, {c}, {self.of(other)})"


def _fused(node: Node, used: list[Node]) -> tuple[Node, Node] | None:
    """A product that is used only in this sum, and the other term; None if there is none.

    They become one fused multiply-add, as in C++: with a single rounding, float32 loses fewer digits to cancellation.
    """
    if node.op not in ("add", "sub"):
        return None
    for product, other in (node.arguments, node.arguments[::-1]):
        vectors = product.op == "mul" and {a.kind for a in (*product.arguments, other)} == {VECTOR}
        if vectors and used.count(product) == 1:
            return product, other
    return None


def _number(number: float) -> str:
    if math.isnan(number) or math.isinf(number):
        return f'float("{number}")'
    return repr(float(number)).replace("e+", "e")
