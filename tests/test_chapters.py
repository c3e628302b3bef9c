"""The chapters are complete, their examples run, and the code cites their equations."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest

from gradcheck.chapter import Chapter, Equation, read
from gradcheck.grammar import Op, Partial, Sub, statements
from manual_grad import specs
from manual_grad.catalogue import BY_NAME
from manual_grad.study.chapters import chapter

each_loss = pytest.mark.parametrize("name", specs.NAMES)


def module(name):
    return BY_NAME[name].module


@each_loss
def test_a_chapter_has_its_parts(name):
    text = module(name).__doc__
    for part in ("**Where it comes from.**", "**Definition.**", "**Gradient.**", "**Second derivative",
                 "**Shapes and domain.**", "Sources:\n\n1. "):  # fmt: skip
        assert part in text, part
    assert re.search("kinks?", text, flags=re.IGNORECASE)
    assert re.search(r"\*\*Stable form|\*\*In floating point\*\*|nothing cancels|stable form", text)
    assert not re.search(
        r"^\d+\. [A-Z]\. ", text, flags=re.MULTILINE
    )  # reStructuredText would parse it as a nested list
    listed = set(re.findall(r"^(\d+)\. ", text.partition("Sources:\n\n")[2], flags=re.MULTILINE))
    assert listed == set(re.findall(r"\[(\d+)\]", text.partition("Sources:\n\n")[0])) - {
        "0"
    }  # [0] occurs in an example


@each_loss
def test_derivatives_of_both_orders_are_numbered(name):
    page = chapter(name)
    assert module(name).__doc__.count(".. math::") == len(page.equations)
    assert [equation.label for equation in page.equations] == [str(n + 1) for n in range(len(page.equations))]
    lefts = [
        relation.members[0]
        for equation in page.equations
        for statement in statements(equation.latex)
        for relation in statement.ways
    ]
    nodes = [node for left in lefts for node in left.walk()]
    assert any(isinstance(node, Partial) and len(node.by) == 1 for node in nodes)
    products = [n for n in nodes if isinstance(n, Sub) and isinstance(n.base, Op) and n.base.name == "group"]  # (H v)_x
    assert products or any(isinstance(node, Partial) and len(node.by) == 2 for node in nodes)


@each_loss
def test_code_cites_equations_that_exist(name):
    labels = {equation.label for equation in chapter(name).equations}
    code = inspect.getsource(module(name)).replace(module(name).__doc__, "", 1)
    cited = {n for comment in re.findall(r"# (.*)", code) for n in re.findall(r"\((\d+)\)", comment)}
    assert cited <= labels
    assert cited or name == "adaptive_log_softmax_with_loss"  # composed of two losses, which cite their own equations


@each_loss
def test_examples_run(name):
    functional = getattr(module(name), name, None)  # adaptive_log_softmax_with_loss has none
    for text in (module(name).__doc__, inspect.getdoc(functional) if functional else ""):
        test = doctest.DocTestParser().get_doctest(text, {}, name, module(name).__file__, 0)
        assert doctest.DocTestRunner().run(test).failed == 0


def test_there_are_examples_of_what_every_tutorial_states():
    assert all(
        ">>>" in module(name).__doc__ for name in ("cross_entropy", "kl_div", "binary_cross_entropy_with_logits")
    )


@pytest.mark.parametrize(
    "name",
    (
        "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss l1_loss smooth_l1_loss "
        "huber_loss kl_div ctc_loss triplet_margin_loss cosine_embedding_loss gaussian_nll_loss poisson_nll_loss "
        "linear_cross_entropy sigmoid_focal_loss"
    ).split(),
)
def test_the_usual_functionals_have_examples(name):
    assert "\n\nExamples:\n    >>> " in inspect.getdoc(getattr(module(name), name))


def test_reading_a_chapter():
    page = read(
        "Title.\n\nProse\nover lines.\n\n.. math::\n    a = b \\\\\n      + c \\tag{1}\n\nMore:\n\n.. math::\n    x\n"
    )
    assert page == Chapter("Title.", ("Prose\nover lines.", Equation("1", r"a = b \\ + c"), "More:", Equation("", "x")))


@pytest.mark.parametrize(
    "text",
    [
        ".. math::\n    x \\tag{1} \\unexecuted{a\n    reason}\n",
        ".. math:: x \\tag{1}\n    \\unexecuted{ a reason }\n",
        "* An item,\n\n  .. math::\n      x\n      \\tag{1} \\unexecuted{a reason}\n\n  goes on.\n",
    ],
)
def test_an_equation_is_read_wherever_it_stands(text):
    (equation,) = read(f"Title.\n\n{text}").equations
    assert equation == Equation("1", "x", "a reason")
    assert equation.remark == "Not executed: a reason."
