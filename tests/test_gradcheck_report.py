"""What a report looks like: on a page, in a notebook, in the terminal and as JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import gradcheck
from gradcheck import html, report
from gradcheck.compare import compare, failed
from gradcheck.relations import heat

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Fails if the elements do not nest; knows what there is of each class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.classes: list[str | None] = []
        self.tags: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.classes.append(dict(attrs).get("class"))
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class Hinge(Function):
    """Its gradient by x is wrong from column 64 on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return ((1 - x).clamp(min=0) * w).sum()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        dx = -g * w * (x < 1)
        return torch.cat([dx[:, :64], 1.5 * dx[:, 64:]], 1), g * (1 - x).clamp(min=0)


def hinge(x: Tensor, w: Tensor) -> Tensor:
    return ((1 - x).clamp(min=0) * w).sum()


CHECKS = ("definition", "kinks", "parity")
SHAPES = {"x": (3, 100), "w": (3, 100)}


@pytest.fixture(scope="module")
def found() -> gradcheck.Report:
    return gradcheck.check(Hinge.apply, hinge, SHAPES, kinks={1: lambda x, w: x - 1}, checks=CHECKS)


def test_a_page_of_ones_own_function_is_drawn(found: gradcheck.Report) -> None:
    text = html.page(found)
    page = Page(text)
    for title in ("Error by regime", "Kinks", "Failures", "Notes"):
        assert f"<h2>{title}</h2>" in text
    assert "float32 against the definition in float64" in text
    assert {"ours", "peer", "bound", "beyond", "within", "side"} <= set(page.classes)
    assert "http" not in text and "src=" not in text and "script" not in page.tags


def test_failures_are_folded_below_their_causes(found: gradcheck.Report) -> None:
    summaries = re.findall(r"<details( open)?><summary>(.*?) <small>", html.page(found))
    first, *others = summaries
    relation = "right but for columns 64 to 99: wrong where a block of 64 ends"
    assert first == (" open", f"the gradient of x is wrong: {relation}")
    assert others and not any(opened for opened, _ in others)


def test_the_map_is_red_where_it_is_wrong(found: gradcheck.Report) -> None:
    (failure,) = (r for r in found.of("Hinge", "definition") if not r.ok)
    assert failure.drawing is not None
    steps, cells = failure.drawing["steps"], torch.tensor(failure.drawing["cells"])
    assert steps == [1, 3] and cells.shape == (3, 34)
    assert not cells[:, :21].any() and (cells[:, 21:] > 0).float().mean() > 0.5


def test_maps_of_other_shapes() -> None:
    for shape in ((5,), (2, 3, 70), (1, 1)):
        a = torch.zeros(shape)
        a.flatten()[-1] = float("nan")
        compared = compare("x", a, torch.ones(shape), 4).compared
        assert compared is not None
        drawn = heat(compared)
        assert (drawn is None) == (a.numel() < 2)
        assert drawn is None or max(map(max, drawn["cells"])) == 16  # type: ignore[call-overload]


def test_kinks_are_drawn_with_what_the_rule_gives(found: gradcheck.Report) -> None:
    drawn = [r for r in found.of("Hinge", "kinks") if r.drawing]
    assert drawn and all({"left", "right", "rule"} == set(r.drawing or ()) for r in drawn)
    wrong = failed("kink of order 1", "")._replace(check="kinks", drawing=dict(left=0.0, right=1.0, rule=2.0))
    page = html.page(gradcheck.Report(("f",), ("kinks",), results=[wrong._replace(loss="f")]))
    assert 'class="rule off"' in page


def test_a_kink_that_is_not_declared_is_drawn() -> None:
    found = gradcheck.check(torch.relu, torch.relu, {"x": (3, 4)}, checks=["kinks"])
    assert found, found
    assert "a kink that is not declared" in html.page(found)


def test_a_notebook_has_the_style_of_the_page_for_itself(found: gradcheck.Report) -> None:
    shown = found._repr_html_()
    Page(shown)
    assert all(rule.lstrip().startswith((".gradcheck", "@media", "body.gradcheck", "}")) for rule in selectors(shown))


def selectors(text: str) -> list[str]:
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    return re.findall(r"[^{};]+(?=\{)", style[1])


def test_json_has_the_drawings(found: gradcheck.Report, tmp_path: Path) -> None:
    report.write_json(found, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert any(row["drawing"] for row in read["results"])
    assert all(row["relation"] for row in read["results"] if row["check"] == "definition" and not row["ok"])


def test_a_report_is_ordered_by_cause(found: gradcheck.Report) -> None:
    checks = [line.split(" / ")[1].split()[0] for line in str(found).splitlines() if line.startswith("FAIL Hinge /")]
    assert checks == sorted(checks, key=["definition", "kinks", "parity"].index) and checks[0] == "definition"


def test_what_raises_in_every_check_is_told_once() -> None:
    found = gradcheck.check(lambda x: x.nothing(), torch.relu, {"x": (3,)}, name="f", checks=("purity", "layout"))
    lines = [line for line in str(found).splitlines() if line.startswith("FAIL")]
    assert lines[0].startswith("FAIL f / purity at random: call: raised AttributeError: ")
    assert len(lines) == 3 and lines[2].endswith(" more: the call fails")
    assert html.page(found).count("<details") == 1


def test_notes_do_not_stutter() -> None:
    found = gradcheck.check(torch.sin, None, {"x": (3,)}, checks=("definition", "oracle", "equations"))
    notes = [line for line in str(found).splitlines() if line.startswith("note ")]
    assert len(notes) == 3
    assert not [line for line in notes if len(set(words := line.replace(":", "").split()[:4])) < len(words)]


def test_a_value_without_a_graph_is_a_missing_gradient() -> None:
    found = gradcheck.check(
        lambda x: x.detach().sin(), torch.sin, {"x": (3,)}, name="f", checks=("claims", "definition")
    )
    assert str(found).startswith("WRONG f: the gradient of x is missing: got None, expected a tensor of shape [3]")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(params=[{"power": 2}, {"power": 3}]), "only with power=3"),
        (dict(regimes={"large": {"x": torch.full((3,), 20.0)}}), "only at large"),
    ],
)
def test_where_alone_it_is_wrong(changes: dict[str, Any], said: str) -> None:
    class Power(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, power: int) -> Tensor:
            ctx.save_for_backward(x)
            ctx.power = power
            return x**power

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
            (x,) = ctx.saved_tensors
            right = g * ctx.power * x ** (ctx.power - 1)
            return torch.where((x > 10) | torch.tensor(ctx.power == 3), 2 * right, right), None

    found = gradcheck.check(
        lambda x, power=2: Power.apply(x, power), lambda x, power=2: x**power, {"x": (3,)}, name="power",
        checks=("parity",), **changes,
    )  # fmt: skip
    first = str(found).splitlines()[0]
    assert first.startswith(f"WRONG power: the gradient of x is wrong in float32, {said}: 2 times what is expected")


def test_hard_inputs_are_the_same_numbers_every_time() -> None:
    made = []

    def make() -> Tensor:
        made.append(torch.randn(3))
        return made[-1]

    before = torch.random.get_rng_state()
    assert gradcheck.check(torch.sin, torch.sin, {"x": (3,)}, regimes={"hard": make}, checks=("parity",))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(made) > 2 and torch.equal(made[1], made[2])


def test_a_definition_that_rounds_to_zero_is_no_judge() -> None:
    def naive(x: Tensor) -> Tensor:
        return torch.log(1 + x.exp())

    regimes = {"low": {"x": torch.linspace(-60, -40, 5)}, "high": {"x": torch.full((5,), 800.0)}}
    found = gradcheck.check(torch.nn.functional.softplus, naive, {"x": (5,)}, regimes=regimes, checks=("parity",))
    assert found, found
    assert "note parity: the worst error in eps of float32 is " in str(found)
    assert "rounds to 0 there" in str(found) and "is not finite there" in str(found)


def test_hard_inputs_without_a_definition_are_held_against_float64() -> None:
    def overflows(x: Tensor) -> Tensor:
        return torch.log(1 + x.exp())

    found = gradcheck.check(overflows, None, {"x": (3,)}, regimes={"high": {"x": torch.full((3,), 100.0)}})
    assert "the value is wrong in float32" in str(found).splitlines()[0] and "which it gives in float64" in str(found)


@pytest.mark.parametrize(
    ("regimes", "message"),
    [
        ({"random": {"x": (3,)}}, "the name of the ordinary inputs"),
        ({"far": {"y": (3,)}}, "not among inputs: y"),
        ({"far": lambda: {"y": torch.ones(3)}}, "'far' makes what is not among inputs: y"),
    ],
)
def test_bad_regimes(regimes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradcheck.check(torch.sin, torch.sin, {"x": (3,)}, regimes=regimes)
