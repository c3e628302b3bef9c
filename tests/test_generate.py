"""Generated code: kernels of pointwise losses from their rules, exports from the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from manual_grad.catalogue import LOSSES
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.generate import __main__ as generate
from manual_grad.generate import cpp, trace, triton


class Softened(PointwiseLoss):
    """Every kind of argument."""

    messages = ("t is negative",)
    refusal = ValueError

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, a: Tensor | None, margin: float, squared: bool, note: str) -> Tensor:
        r = (x - t).abs().clamp_min(margin)
        r = r * r if squared else r
        return r if a is None else a * r

    @staticmethod
    def first(x: Tensor, t: Tensor, a: Tensor | None, margin: float, squared: bool, note: str) -> tuple[Tensor, ...]:
        r = (x - t).abs().clamp_min(margin)
        d = torch.where(r > margin, (x - t).sign(), 0)
        return d, -d, r

    @staticmethod
    def outside(x: Tensor, t: Tensor, a: Tensor | None) -> tuple[Tensor]:
        return (t < 0,)


def test_generated_files_are_those_of_the_rules() -> None:
    assert generate.main("--check") == 0, "run python -m manual_grad.generate"


def test_a_file_that_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "files", lambda: {generate.ROOT / "modules.py": "something else"})
    assert generate.main("--check") == 1


def test_what_is_neither_printed_nor_by_hand_says_so() -> None:
    by_hand = {loss.name for loss in LOSSES if loss.family == "pointwise" and generate.rule_of(loss) is None}
    assert by_hand == {"binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss"}


def test_a_variant_for_each_choice() -> None:
    assert (Softened.inputs, Softened.optional, Softened.tensors) == (("x", "t", "a"), ("a",), 4)
    found = list(trace.variants(Softened))
    assert [variant.chosen for variant in found] == [
        {"squared": squared, "a": a} for squared in (True, False) for a in (True, False)
    ]
    assert [set(variant.slopes) for variant in found] == [{"x", "t", "a"}, {"x", "t"}] * 2


def test_a_special_number_has_a_variant_of_its_own() -> None:
    class Raised(PointwiseLoss):
        special: ClassVar = {"p": (1.0,)}

        @staticmethod
        def elementwise(x: Tensor, t: Tensor, p: float) -> Tensor:
            return x if p == 1 else x.pow(p)

        @staticmethod
        def first(x: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
            return (torch.ones_like(x) if p == 1 else p * x.pow(p - 1)), torch.zeros_like(x)

    one, other = trace.variants(Raised)
    assert (one.chosen, other.chosen) == ({"p": 1.0}, {"p": None})
    assert (one.value.op, other.value.op) == ("input", "pow")
    text = cpp.source("raised", Raised)
    assert "if (p == 1.0) body(Raised_p_1{});" in text and "if (p != 1.0) body(Raised_other_p{});" in text


def test_value_and_slopes_share_their_operations() -> None:
    variant = list(trace.variants(Softened))[-1]
    together = trace.order([variant.value, *variant.slopes.values()])
    apart = [trace.order([node]) for node in (variant.value, *variant.slopes.values())]
    assert len(together) == len({node for nodes in apart for node in nodes}) < sum(map(len, apart))
    assert [node.op for node in together].count("abs") == 1


def test_cpp_of_every_kind_of_argument() -> None:
    text = cpp.source("softened", Softened)
    assert "kInputs = 3, kOptions = 2" in text and "kOptional = 1u << 2" in text
    assert "const bool squared = call.option[1] != 0;" in text and "const bool a = call.in[2].exists();" in text
    assert "using Error = std::domain_error;" in text and "t is negative" in text


def test_triton_of_every_kind_of_argument() -> None:
    text = triton.source("softened", Softened)
    assert "    inputs=3,\n    optional=(2,),\n    options=2," in text
    assert 'choices=(("option", 1, ()), ("input", 2, ())),' in text
    compile(text, "softened.py", "exec")


def test_an_operation_that_cannot_be_printed_is_named() -> None:
    class Rounded(PointwiseLoss):
        @staticmethod
        def elementwise(x: Tensor, t: Tensor) -> Tensor:
            return (x - t).round()

        @staticmethod
        def first(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return x, t

    with pytest.raises(ValueError, match=r"no kernel can be generated from round\("):
        list(trace.variants(Rounded))


def test_a_decision_by_a_number_is_refused() -> None:
    class Decided(PointwiseLoss):
        @staticmethod
        def elementwise(x: Tensor, t: Tensor, margin: float) -> Tensor:
            return torch.where(margin > 0, x, t)

        @staticmethod
        def first(x: Tensor, t: Tensor, margin: float) -> tuple[Tensor, Tensor]:
            return x, t

    with pytest.raises(ValueError, match="decides by an option alone"):
        list(trace.variants(Decided))
