"""Formulas as shown in the terminal."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections import Counter

import pytest

from gradcheck.latex import read, source
from manual_grad.catalogue import BY_NAME
from manual_grad.study import box, symbols, tex
from manual_grad.study.chapters import chapter


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        (r"\frac{\partial^2 e}{\partial x\, \partial t}", "∂²e/∂x∂t"),
        (r"\frac{[\,|r| < \beta\,]}{2 \beta} - \frac{a + b}{n_a}", "[|r| < β]/(2β) − (a + b)/nₐ"),
        (r"e^{a - b} + e^{z_c} + x^\top y^{\mathrm{head}}", "eᵃ⁻ᵇ + e^(z_c) + xᵀ y^head"),
        (r"-t \log \sigma(-x), \quad 2r = dx", "−t log σ(−x),  2r = dx"),
        (r"\sum_{c \ne k} q_c w_{y_n} v_{t_c}", "∑_(c≠k) q_c w_(yₙ) v_(t_c)"),
        (r"\tfrac12 \log 2 \pi \approx \dot{\hat a} \cdot \bar q", "½ log 2π ≈ â̇ · q̄"),
        (r"\lVert u \rVert_q = \Big( \sum_i |u_i|^q \Big)^{1/q}", "‖u‖_q = (∑ᵢ |uᵢ|^q)^(1/q)"),
        (r"u \in (0, 1], \; z \in \mathbb R^C", "u ∈ (0, 1], z ∈ ℝ^C"),
        (r"p\,(1 - p) \quad\text{or}\quad j \notin \{y\}", "p (1 − p)  or  j ∉ {y}"),
        (r"\begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}", "{1 if x > 0; 0 if else}"),
        (r"\nabla_i f = s''(t) \qquad \Gamma \lambda \epsilon", "∇ᵢ f = s′′(t)    Γ λ ε"),
        (r"\sqrt{2} + \sqrt{a b}", "√2 + √(a b)"),
    ],
)
def test_in_one_line(latex: str, shown: str) -> None:
    assert tex.inline(latex) == shown


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        (
            r"e(x, t) = \begin{cases} \tfrac12 r^2 & |r| \le \delta \\ \delta\,(|r| - \tfrac12 \delta) & |r| > \delta"
            r"\end{cases}",
            """
                          ⎧ ½r²            |r| ≤ δ
                e(x, t) = ⎨
                          ⎩ δ (|r| − ½δ)   |r| > δ
            """,
        ),
        (
            r"p_c = \frac{e^{z_c}}{\sum_k e^{z_k}}",
            """
                        z_c
                       e
                p_c = ───────
                          zₖ
                       ∑ e
                       k
            """,
        ),
        (
            r"f = \left( \sum_{i=1}^n \Big( \frac{|u_i|}{c} \Big)^q \right)^{1/q}",
            """
                    ⎛ n  ⎛ |uᵢ| ⎞q⎞1/q
                f = ⎜ ∑  ⎜──────⎟ ⎟
                    ⎝i=1 ⎝  c   ⎠ ⎠
            """,
        ),
        (
            r"P = \begin{cases} p^{\mathrm{head}}_{a + b} & [1] \\[1ex] -\dfrac{x - t}{d} & \text{otherwise} "
            r"\end{cases}",
            """
                    ⎧  head
                    ⎪ p           [1]
                    ⎪  a+b
                P = ⎨
                    ⎪    x − t
                    ⎪ − ───────   otherwise
                    ⎩      d
            """,
        ),
    ],
)
def test_in_several_lines(latex: str, shown: str) -> None:
    lines = (line.rstrip() for line in textwrap.dedent(shown).strip("\n").splitlines())
    assert textwrap.dedent(tex.display(latex)) == "\n".join(lines).rstrip()


def test_number_and_width() -> None:
    statements = r" \qquad ".join(rf"a_{i} = {i} \cdot b_{i} + c_{i}" for i in range(6))
    lines = tex.display(statements, "7", width=60).splitlines()
    assert len(lines) == 3 and max(map(box.width, lines)) == 60
    assert lines[-1].endswith("(7)") and lines[0] == "    a₀ = 0 · b₀ + c₀    a₁ = 1 · b₁ + c₁"


def test_a_number_that_does_not_fit_has_a_line_of_its_own() -> None:
    assert tex.display("f(a, b, c, d, e)", "1", width=22).splitlines() == [
        "    f(a, b, c, d, e)",
        "                   (1)",
    ]


def test_a_long_statement_is_broken_before_a_relation_or_a_sign() -> None:
    sides = [f"{letter}(x) + {letter}(y) + {letter}(z)" for letter in "fgh"]
    assert tex.display(" = ".join(sides), width=56).splitlines() == [
        "    f(x) + f(y) + f(z) = g(x) + g(y) + g(z)",
        "        = h(x) + h(y) + h(z)",
    ]
    assert tex.display(" + ".join(sides), width=40).splitlines() == [
        "    f(x) + f(y) + f(z) + g(x)",
        "        + g(y) + g(z) + h(x) + h(y)",
        "        + h(z)",
    ]


def letters(text: str) -> Counter[str]:
    return Counter(re.findall("[A-Za-z0-9]", text))


def meant(latex: str) -> Counter[str]:
    """The letters and digits that a reader must see."""
    names = "".join(command for command in re.findall(r"\\[A-Za-z]+", latex) if command in symbols.FUNCTIONS)
    left = re.sub(r"\\(begin|end)\{\w+\}|\\\\\[\d+ex\]|\\[A-Za-z]+", " ", latex)
    return letters(names + left + latex.count(r"^\top") * "T")


def seen(shown: str) -> Counter[str]:
    return letters(unicodedata.normalize("NFKD", shown.replace("ℓ", "")))


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_is_lost(name: str) -> None:
    for equation in chapter(name).equations:
        assert source(read(equation.latex)) == equation.latex
        assert seen(tex.display(equation.latex)) == meant(equation.latex), equation


def test_what_is_lost_is_seen() -> None:
    latex = r"\frac{\log x_1}{2} = \begin{cases} W^\top & y \\ [c] & z \end{cases}"
    assert seen(tex.display(latex)) == meant(latex)
    assert seen(tex.display(latex.replace(" [c]", "[c]"))) != meant(latex)


@pytest.mark.parametrize("latex", [r"\frac{1}", "x^", "{x", "x} + y", r"\begin{cases} 1 & 2"])
def test_a_formula_that_is_not_whole(latex: str) -> None:
    with pytest.raises(ValueError, match=r"without a beginning|missing at the end"):
        tex.inline(latex)


def test_brackets_that_nothing_closes_are_signs() -> None:
    assert tex.inline("(" * 200 + "x") == "(" * 200 + "x"
    assert tex.inline("f(x, [y) + {(z}") == "f(x, [y) + (z"


def test_an_unknown_command_is_left_as_it_is() -> None:
    assert tex.inline(r"a \unheardof b") == r"a\unheardofb"
