"""Generates the C++ functor of a pointwise loss from its rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from struct import pack, unpack

from manual_grad.engine.pointwise import OPTIONS, PointwiseLoss
from manual_grad.generate.trace import MASK, SCALAR, Node, Variant, order, suffix, variants

_TYPES = {SCALAR: "T", MASK: "Mask<T>"}
_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
_OPERATORS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_LONG = 300  # operations: one vector keeps a processor busy, and four would take longer to compile
_ERRORS = {RuntimeError: "std::runtime_error", ValueError: "std::domain_error"}


def source(name: str, loss: type[PointwiseLoss]) -> str:
    """The contents of a file of kernels/cpu/generated."""
    found = list(variants(loss))
    camel = loss.__name__.removesuffix("Function")
    lines = ['#include "../pointwise.h"', "", "namespace mg {", "namespace {", ""]
    names = [camel + suffix(variant) for variant in found]
    for struct, variant in zip(names, found, strict=True):
        lines += [*_functor(struct, variant, loss), ""]
    if len(found) > 1:
        lines += [*_choice(camel, names, found, loss), ""]
    lines += [f'const Op op = pointwise_op<{camel}>("{name}");', "", "}  // namespace", "}  // namespace mg", ""]
    return "\n".join(lines)


def _functor(struct: str, variant: Variant, loss: type[PointwiseLoss]) -> Iterator[str]:
    base = "Plain" if loss.plain else "PairedFormulas" if loss.paired else "Widened"
    yield f"struct {struct} : {base} {{"
    yield _counts(loss)
    yield from _inputs("kAbsent", loss, [name for name in loss.optional if not variant.chosen[name]])
    if loss.factor != 1:
        yield f"  static constexpr int kFactor = {loss.factor};"
    if variant.outside:
        yield f"  using Error = {_ERRORS[loss.refusal]};"
        yield f"  static constexpr std::array<const char*, {len(loss.messages)}> errors{{"
        yield from (f"      {json.dumps(message)}," for message in loss.messages)
        yield "  };"
        yield "  template <class T>"
        yield "  static void outside(const Vec<T>* in, Mask<T>* lanes) {"
        printer = _Printer(loss, list(variant.outside))
        yield from printer.lines()
        yield from (f"    lanes[{i}] |= {printer.of(mask)};" for i, mask in enumerate(variant.outside))
        yield "  }"
    results = [variant.value, *variant.slopes.values()]
    printer = _Printer(loss, results)
    if len(printer.nodes) > _LONG:
        yield "  static constexpr int kInterleaved = 1;"
    option = "const T* option" if any(node.op == "option" for node in printer.leaves) else "const T*"
    yield "  template <class S, class T>"
    yield f"  static Element<T, {len(loss.inputs)}> eval(const Vec<T>* in, {option}) {{"
    yield from printer.lines()
    slopes = [printer.of(variant.slopes[k]) if k in variant.slopes else "Vec<T>{}" for k in loss.inputs]
    yield f"    return {{{printer.of(variant.value)}, {{{', '.join(slopes)}}}}};"
    yield "  }"
    yield "};"


def _counts(loss: type[PointwiseLoss]) -> str:
    return f"  static constexpr int kInputs = {len(loss.inputs)}, kOptions = {len(_options(loss))};"


def _inputs(constant: str, loss: type[PointwiseLoss], names: Sequence[str]) -> Iterator[str]:
    if names:
        bits = " | ".join(f"1u << {loss.inputs.index(name)}" for name in names)
        yield f"  static constexpr unsigned {constant} = {bits};"


def _options(loss: type[PointwiseLoss]) -> list[str]:
    return [name for name, kind in loss.options.items() if kind in OPTIONS]


def _choice(camel: str, names: list[str], found: list[Variant], loss: type[PointwiseLoss]) -> Iterator[str]:
    yield f"struct {camel} : Variants {{"
    yield _counts(loss)
    yield from _inputs("kOptional", loss, loss.optional)
    yield "  template <class Body>"
    yield "  static void choose(const PointwiseCall& call, const Body& body) {"
    for name in found[0].chosen:
        if name in loss.special:
            yield f"    const double {name} = call.option[{_options(loss).index(name)}];"
        elif name in loss.optional:
            yield f"    const bool {name} = call.in[{loss.inputs.index(name)}].exists();"
        else:
            yield f"    const bool {name} = call.option[{_options(loss).index(name)}] != 0;"
    for struct, variant in zip(names, found, strict=True):
        tests = " && ".join(_test(name, value, loss) for name, value in variant.chosen.items())
        yield f"    if ({tests}) body({struct}{{}});"
    yield "  }"
    yield "};"


def _test(name: str, value: bool | float | None, loss: type[PointwiseLoss]) -> str:
    if name not in loss.special:
        return name if value else f"!{name}"
    if value is None:
        return " && ".join(f"{name} != {special!r}" for special in loss.special[name])
    return f"{name} == {value!r}"


class _Printer:
    """Prints statements that compute ``results``, with one variable per operation."""

    def __init__(self, loss: type[PointwiseLoss], results: list[Node]) -> None:
        self.loss, self.nodes = loss, order(results)
        used = [*results, *(a for node in self.nodes for a in node.arguments)]
        self.leaves = list(dict.fromkeys(a for a in used if isinstance(a, Node) and a.op in ("input", "option")))
        self.names = {node: node.arguments[0] for node in self.leaves}
        self.names |= {node: f"v{i}" for i, node in enumerate(self.nodes, 1)}

    def lines(self) -> Iterator[str]:
        for node in sorted(self.leaves, key=lambda node: (node.op, self._place(node))):
            kind, array = ("Vec<T>", "in") if node.op == "input" else ("T", "option")
            yield f"    const {kind} {self.of(node)} = {array}[{self._place(node)}];"
        for node in self.nodes:
            yield f"    const {_TYPES.get(node.kind, 'auto')} {self.of(node)} = {self._computed(node)};"

    def _place(self, node: Node) -> int:
        name = node.arguments[0]
        return self.loss.inputs.index(name) if node.op == "input" else _options(self.loss).index(name)

    def of(self, node: Node, vector: bool = False) -> str:
        text = _number(node.arguments[0]) if node.is_constant else self.names[node]
        return f"splat({text})" if vector and node.kind == SCALAR else text

    def _computed(self, node: Node) -> str:
        a = [self.of(argument) for argument in node.arguments]
        if node.op in _OPERATORS:
            return f"{a[0]} {_OPERATORS[node.op]} {a[1]}"
        if node.op in ("neg", "not"):
            return f"{'-' if node.op == 'neg' else '~'}{a[0]}"
        if node.op == "where":
            return f"select({a[0]}, {self.of(node.arguments[1], True)}, {self.of(node.arguments[2], True)})"
        if node.op == "splat":
            return f"splat({a[0]})"
        if node.op in ("clamp_min", "clamp_max"):
            return f"Functions<S, T>::{node.op}({a[0]}, {a[1]})"
        if node.op in ("minimum", "maximum"):
            lesser, other = ("<", a) if node.op == "minimum" else (">", a)
            return f"{other[0]} {lesser} {other[1]} ? {other[0]} : ({other[0]} == {other[0]} ? {other[1]} : {other[0]})"
        if node.op == "sign":
            zero, one = "Vec<T>{}", "splat(T{1})"
            return f"({a[0]} > {zero} ? {one} : {zero}) - ({a[0]} < {zero} ? {one} : {zero})"
        if node.op == "exp":  # without a check for overflow if there is none
            return f"Functions<S, T>::exp{'_not_above_1' * not_positive(node.arguments[0])}({a[0]})"
        if node.op == "log":
            return f"Functions<S, T>::log({a[0]})"
        if node.op == "log1p" and node.arguments[0].op == "exp" and not_positive(node.arguments[0].arguments[0]):
            return f"log1p_unit<T>({a[0]})"
        if node.op == "pow":
            return f"pow<S, T>({', '.join(a)})"
        if node.op == "sqrt" and node.kind == SCALAR:
            return f"std::sqrt({a[0]})"
        if node.op == "product_error":
            product = self.of(node.arguments[0], True), self.of(node.arguments[1], True)
            return f"fma({', '.join(product)}, -({a[0]} * {a[1]}))"
        if node.op == "expm1" and not not_positive(node.arguments[0]):
            raise ValueError("expm1 needs an argument that is provably not positive, such as -x.abs()")
        if node.op == "expm1":
            return f"expm1_for<S, T>({a[0]})"
        if node.op in ("exp_remainder", "exp_minus_1"):
            return f"{node.op}<S, T>({a[0]})"
        if node.op in ("abs", "log1p", "sqrt"):
            return f"{node.op}<T>({', '.join(a)})"
        raise ValueError(f"no C++ for {node.op}; see generate/cpp.py")


def not_positive(node: Node) -> bool:
    """Whether the operation shows that its result is not positive (or NaN)."""
    if node.op == "neg":
        return not_negative(node.arguments[0])
    if node.op == "mul":
        return any(_below_0(a) and not_negative(b) for a, b in (node.arguments, node.arguments[::-1]))
    return False


def not_negative(node: Node) -> bool:
    if node.is_constant:
        return node.arguments[0] >= 0
    if node.op == "clamp_min":
        return not_negative(node.arguments[1])
    return node.op in ("abs", "exp", "sqrt") or (node.op == "mul" and node.arguments[0] is node.arguments[1])


def _below_0(node: Node) -> bool:
    return node.is_constant and node.arguments[0] < 0


def _number(number: float) -> str:
    if math.isnan(number):
        return 'static_cast<T>(__builtin_nan(""))'
    if math.isinf(number):
        return f"static_cast<T>({'-' if number < 0 else ''}__builtin_inf())"
    exact = unpack("f", pack("f", number))[0] == number if abs(number) < 1e38 else False
    return f"T{{{number!r}}}" if exact else f"static_cast<T>({number!r})"  # inexact in float
