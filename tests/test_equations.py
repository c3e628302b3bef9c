"""Every numbered equation of the chapters is evaluated, and a mistake in any of them is noticed."""

from __future__ import annotations

import dataclasses
import functools
import re

import pytest
from mpmath import mp, mpf, workdps

from gradcheck.chapter import Equation
from gradcheck.checks import equations
from gradcheck.checks.equations import Audit, points
from gradcheck.formulas import DIGITS, Each, Page, Point, definitions, numbers
from gradcheck.grammar import statements
from gradcheck.latex import Unreadable
from gradcheck.spec import Input, Settings, Spec
from manual_grad import specs
from manual_grad.study.chapters import chapter


class Hasty(Audit):
    """Stop at the first failure."""

    def _guarded(self, *arguments):
        if not self.wrong:
            super()._guarded(*arguments)


@functools.cache
def drawn(name):
    """The points of a loss, smallest first."""

    def size(point):
        return sum(len(value) for value in point[0].values() if isinstance(value, Each))

    return tuple(sorted(points(specs.load(name), Settings()), key=size))


def audited(name, page, kind=Hasty):
    """Audit a page in place of a loss's own, up to the first point where it is wrong."""
    audit = kind(specs.load(name), page)
    for point in drawn(name):
        if audit.wrong:
            break
        audit.execute(*point)
    return audit


def changed(name, old, new, count=1):
    """The chapter of a loss, with the ``count``-th occurrence of ``old`` replaced by ``new``."""
    page, found = chapter(name), 0
    blocks = list(page.blocks)
    for i, block in enumerate(blocks):
        if isinstance(block, Equation) and not block.unexecuted:
            for match in re.finditer(re.escape(old), block.latex):
                found += 1
                if found == count:
                    start, end = match.span()
                    latex = block.latex[:start] + new + block.latex[end:]
                    blocks[i] = dataclasses.replace(block, latex=latex)
                    return dataclasses.replace(page, blocks=tuple(blocks))
    return None


def is_caught(name, page):
    audit = audited(name, page)
    return bool(audit.wrong) or any(not result.ok for result in audit.results())


# from (loss, number) of each equation that cannot be executed to the reason, as on its page
UNEXECUTED: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize("name", specs.NAMES)
def test_every_equation_is_executed_and_true(name):
    audit = audited(name, chapter(name), Audit)
    results = {result.what: result for result in audit.results()}
    assert all(result.ok for result in results.values()), [r for r in results.values() if not r.ok]
    labels = [equation.label for equation in chapter(name).equations]
    assert list(results) == [*(f"equation ({label})" for label in labels), "loss"]
    noted = {label for label in labels if results[f"equation ({label})"].note}
    assert noted == {label for loss, label in UNEXECUTED if loss == name}
    assert len(drawn(name)) >= 3


def test_what_is_not_executed_is_counted():
    assert {(n, e.label): e.unexecuted for n in specs.NAMES for e in chapter(n).equations if e.unexecuted} == UNEXECUTED
    assert len(UNEXECUTED) == 0


# changes that are not mistakes
EQUIVALENT = {
    ("cosine_embedding_loss", r"\rho = b - \kappa a"): "any multiple of a may be taken out of b, so -kappa as well",
    ("distillation_loss", r"y_c) - (z_k - y_l)"): "a shift that all classes have in common does not change u",
}


@pytest.mark.parametrize("name", specs.NAMES)
def test_no_minus_sign_can_be_flipped(name):
    missed, count = [], 0
    while (page := changed(name, "-", "+", count + 1)) is not None:
        count += 1
        if not is_caught(name, page):
            before, after = ("".join(e.latex for e in p.equations) for p in (chapter(name), page))
            at = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
            if not any(name == loss and mistake in before[at - 20 : at + 20] for loss, mistake in EQUIVALENT):
                missed.append(f"{before[max(0, at - 30) : at]} + {before[at + 1 : at + 30]}")
    assert count > 0
    assert not missed


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("huber_loss", r"\tfrac12 r^2", r"r^2"),
        ("huber_loss", r"\tfrac12 \delta", r"\tfrac13 \delta"),
        ("huber_loss", r"[\,|r| \le \delta\,]", r"[\,|r| \ge \delta\,]"),
        ("smooth_l1_loss", r"}{\beta}", r"}{\beta^2}"),
        ("binary_cross_entropy", r"\log(1 - x)", r"\log(1 - t)"),
        ("binary_cross_entropy", "-100", "-200"),
        ("cosine_embedding_loss", r"\epsilon^2", r"\epsilon^3"),
        ("adaptive_log_softmax_with_loss", "c_0 + i", "c_0 - i"),
        ("binary_cross_entropy_with_logits", r"(1 - t)\, s(x)", r"(1 - t)\, s(-x)"),
        ("gaussian_nll_loss", r"2 v^2", r"v^2"),
        ("poisson_nll_loss", r"\frac{1}{2t}", r"\frac{1}{t}"),
        ("soft_margin_loss", r"t^2 q", r"t q"),
        ("cross_entropy", r"Q\, p_j", r"p_j"),
        ("cross_entropy", r"\frac{\varepsilon}{C}", r"\varepsilon"),
        ("cross_entropy", r"p_j \sum_c \dot q_c", r"p_j \dot q_j"),
        ("multi_margin_loss", r"p\, h_j^{p-1}", r"h_j^{p-1}"),
        ("multilabel_margin_loss", r"\sum_c s_{ci}", r"\sum_c s_{ic}"),
        ("multilabel_soft_margin_loss", r"[c = j]\,", ""),
        ("cosine_embedding_loss", r"\frac{a \cdot b}{n_a^2}", r"\frac{a \cdot b}{n_b^2}"),
        ("triplet_margin_loss", r"\nabla_u - \alpha \nabla_v", r"\nabla_u - \beta \nabla_v"),
        ("triplet_margin_with_distance_loss", r"\min(y, z)", r"\max(y, z)"),
        ("ctc_loss", r"\alpha_{t-1}(r) + x_{t-1}(l_r)", r"\alpha_{t-1}(r) + x_{t-1}(l_s)"),
        ("ctc_loss", r"\sum_{s:\, l_s = k}", r"\sum_{s:\, l_s \ne k}"),
        ("linear_cross_entropy", r"\frac{1}{Q}", r"Q"),
        ("linear_cross_entropy", r"r x^\top", r"x r^\top"),
        ("adaptive_log_softmax_with_loss", r"W^\top", r"W"),
    ],
)  # fmt: skip
def test_a_mistake_is_caught(name, old, new):
    page = changed(name, old, new)
    assert page is not None
    assert is_caught(name, page)


SQUARE = Spec(
    fn=lambda x: (x * x).mean(),
    name="square",
    inputs=(Input("x"),),
    samples={"few": lambda draw: dict(x=draw.normal(3))},
    oracle=lambda x, **_: x * x,
    symbols=lambda x, **_: {"x": x},
)


def results(*displayed, **changes):
    text = "Square.\n\n" + "\n\n".join(f".. math::\n    {latex}" for latex in displayed)
    return list(equations.check(dataclasses.replace(SQUARE, chapter=text, **changes), Settings()))


def failures(*displayed, **changes):
    return {r.what: r.message for r in results(*displayed, **changes) if not r.ok}


def notes(*displayed, **changes):
    return {r.what: r.message for r in results(*displayed, **changes) if r.note}


RIGHT = r"e = x^2 \tag{1}", r"\frac{\partial e}{\partial x} = 2x \tag{2}"
UNREACHED = r"e = \begin{cases} x^2 & e \ge 0 \\ 0 & e < 0 \end{cases} \tag{2}"
BOTH = r"e = \begin{cases} x^2 & e \ge 0 \\ x & e > 0 \end{cases} \tag{2}"


def test_a_right_chapter_passes():
    assert failures(*RIGHT) == {}


@pytest.mark.parametrize(
    ("page", "where", "why"),
    [
        ((r"e = x^2 + 1 \tag{1}",), "loss", "is not"),
        ((RIGHT[0], r"\frac{\partial e}{\partial x} = x \tag{2}"), "equation (2)", "is not"),
        ((RIGHT[0], r"e < 0 \tag{2}"), "equation (2)", "does not hold"),
        ((RIGHT[0], r"x^2 \in (-1, 0) \tag{2}"), "equation (2)", "does not hold"),
        ((RIGHT[0], r"e = y^2 \tag{2}"), "equation (2)", "y has no meaning here"),
        ((RIGHT[0], r"u = x + 1 \tag{2}"), "equation (2)", "a definition that nothing uses"),
        ((RIGHT[0], r"e = x^2 \quad\text{for } e < 0 \tag{2}"), "equation (2)", "never executed"),
        ((RIGHT[0], UNREACHED), "equation (2)", "a case is never reached"),
        ((RIGHT[0], BOTH), "equation (2)", "2 cases apply"),
        ((RIGHT[0], r"e = \frac{x^2}{} \tag{2}"), "equation (2)", "missing"),
        ((r"e(x, x) = x^2 \tag{1}",), "definitions", "e is defined as a function of x, x"),
        ((r"e(y) = x^2 \tag{1}",), "definitions", "e is defined as a function of y"),
        ((RIGHT[0], r"e = x^2 + 10^{-30} \tag{2}"), "equation (2)", "is not"),
        ((RIGHT[0], "e = x^2"), "an equation without a number", "is equation 2"),
        ((r"f = x^2 \tag{1}",), "loss", "is defined"),
        ((RIGHT[0], r"x^2 \tag{2}"), "equation (2)", "states nothing"),
        ((RIGHT[0], r"\tag{2}"), "equation (2)", "states nothing"),
        ((RIGHT[0], r"e \approx x^2 \tag{2}"), "equation (2)", "states nothing"),
        ((RIGHT[0], r"e = x^2 \approx x \tag{2}"), "equation (2)", r"\approx has no meaning here"),
        ((RIGHT[0], r"e = \mathbb{E} \tag{2}"), "equation (2)", "not understood"),
        ((RIGHT[0], r"\log^2 e = 0 \tag{2}"), "equation (2)", "not understood"),
    ],
)  # fmt: skip
def test_a_wrong_chapter_fails(page, where, why):
    assert why in failures(*page)[where]


@pytest.mark.parametrize(
    "latex",
    [r"e \approx x^2", r"e = \mathbb{E} y^2", r"e = y^2", r"e = \lim_{h \to 0} h", r"e = x^2 \quad\text{for } e < 0",
     r"e \le y \quad\text{or}\quad e \le x"],
)  # fmt: skip
def test_an_equation_says_that_it_is_not_executed(latex):
    page = RIGHT[0], rf"{latex} \tag{{2}} \unexecuted{{it is about limits}}"
    assert failures(*page) == {}
    assert notes(*page) == {"equation (2)": "Not executed: it is about limits."}
    assert "equation (2)" in failures(RIGHT[0], rf"{latex} \tag{{2}}")


@pytest.mark.parametrize(
    ("latex", "why"),
    [
        (r"e \ge 0 \tag{2} \unexecuted{it is hard}", "but can be"),
        (r"e < 0 \tag{2} \unexecuted{it is hard}", "does not hold"),
        (r"e = x \tag{2} \unexecuted{it is hard}", "is not"),
        (r"e \approx y \unexecuted{it is hard} \tag{2}", "not understood"),
    ],
)
def test_nothing_hides_behind_the_mark(latex, why):
    assert why in failures(RIGHT[0], latex)["equation (2)"]


@pytest.mark.parametrize("mark", [r"\unexecuted{}", r"\unexecuted{ }", r"\notexecuted{it is hard}", r"\unexecuted"])
def test_a_mark_has_its_name_and_a_reason(mark):
    (message,) = failures(RIGHT[0], rf"e \approx y \tag{{2}} {mark}").values()
    assert message.startswith("is equation 2") and mark in message


def test_a_marked_equation_needs_its_number_and_defines_nothing():
    assert "is equation 2" in failures(RIGHT[0], r"e \approx y \tag{3} \unexecuted{it is hard}")["equation (3)"]
    marked = r"u = x + 0 y \tag{2} \unexecuted{it is hard}", r"e = u^2 \tag{3}"
    assert "u has no meaning here" in failures(RIGHT[0], *marked)["equation (3)"]


def test_without_symbols_nothing_is_executed_and_the_page_says_so():
    failed = failures(*RIGHT, symbols=None)
    assert set(failed) == {"equation (1)", "equation (2)"} and all("symbols" in why for why in failed.values())
    assert failures(*(rf"{latex} \unexecuted{{no spec}}" for latex in RIGHT), symbols=None) == {}
    assert failures(symbols=None) == {} and notes(symbols=None) == {
        "equations": "the docstring of the module has no numbered ones"
    }


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        (r"\tfrac12 x^2 - y", -1),
        (r"-2 x \, y", -12),
        (r"x / 2 y", 3),
        (r"\log e^x + \log(x) \cdot 0", 2),
        (r"e^{-|x - y|}", mp.exp(-1)),
        (r"[\,|x| \le y\,] + [x > y]", 1),
        (r"[x > y]\, \frac{1}{x - 2}", 0),
        (r"\max(x, \min(y, 7))^2", 9),
        (r"\sum_i z_i + 1", 12),
        (r"\sum_{i \ne k} 2 z_i \cdot 3", 30),
        (r"\sum_{i=1}^{2} z_i", 10),
        (r"\max_i z_i - \operatorname{argmax}_i z_i", 4),
        (r"\sum_{i, j} M_{ij} z_j", 1 + 4 + 12 + 2 + 0 + 6),
        (r"(M z) \cdot (M z)", 17**2 + 8**2),
        (r"\lVert z \rVert_2^2", 1 + 16 + 36),
        (r"\begin{cases} 1 & x > y \\ \dfrac{x}{4} & \text{otherwise} \end{cases}", mpf(1) / 2),
        (r"\left( x + 1 \right)\,(y + 1)", 12),
        (r"\frac{\partial x^2 y}{\partial x}", 12),
        (r"\frac{\partial^2 (x^2 y)}{\partial x\, \partial y}", 4),
        (r"\frac{\partial^2 (z \cdot z)}{\partial z_k^2}", 2),
        (r"x \oplus y", mp.log(mp.exp(2) + mp.exp(3))),
        (r"\sqrt{x + 2} \operatorname{sgn} y", 2),
    ],
)  # fmt: skip
def test_values(latex, value):
    given = {"x": 2.0, "y": 3.0, "z": [1.0, 4.0, 6.0], "k": 2, "M": [[1.0, 1.0, 2.0], [2.0, 0.0, 1.0]],
             "i": Each(range(3)), "j": Each(range(3))}  # fmt: skip
    given = {name: numbers(v) for name, v in given.items()}
    if r"\sum_{i, j}" in latex:
        given["i"] = Each(range(2))
    ((statement,),) = (statements(latex),)
    (node,) = statement.ways[0].members
    with workdps(DIGITS):
        assert mp.almosteq(Point(given, Page({}, set())).evaluate(node, {}), value, 1e-12)


def test_functions_recursions_primes_and_dots():
    given = {name: numbers(v) for name, v in {"x": 0.5, r"\dot x": 2.0, "n": Each(range(6)), "N": 5}.items()}
    page = r"f(x) = x^3, \quad F_n = n F_{n-1}, \quad F_0 = 1, \quad g = f(2x)"
    clauses = definitions(given, (s.ways[0] for s in statements(page)))
    point = Point(given, Page(clauses, set()))

    def value(latex):
        (statement,) = statements(latex)
        with workdps(DIGITS):
            return float(point.evaluate(statement.ways[0].members[0], {}))

    assert value("f(x)") == 0.125
    assert value("f(x + 1)") == 3.375
    assert value("F_N") == 120
    assert value("f'(2)") == pytest.approx(12)
    assert value("f''(2)") == pytest.approx(12)
    assert value(r"\dot g") == pytest.approx(2 * 3 * 8 * 0.25)


@pytest.mark.parametrize(
    "latex", [r"x +", r"(x", r"\frac{1}", "x & y", r"[x]", r"\unknown{", r"x \text{ or so }", "|x"]
)
def test_what_is_not_understood_is_refused(latex):
    with pytest.raises(Unreadable):
        statements(latex)
