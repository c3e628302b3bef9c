"""Modules beside their functions: every fault of a Module is found, and named."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import gradcheck
from gradcheck import cli
from gradcheck.spec import Settings
from manual_grad import modules, specs

QUICK = Settings(quick=True)


def audited(name: str, module: type[torch.nn.Module] | gradcheck.Module) -> gradcheck.Report:
    spec = dataclasses.replace(specs.load(name), modules=(module,))
    return gradcheck.audit([spec], ["modules"], QUICK)


@pytest.mark.parametrize(
    ("name", "module"),
    [("margin_ranking_loss", "MarginRankingLoss"), ("kl_div", "KLDivLoss"), ("poisson_nll_loss", "PoissonNLLLoss"),
     ("binary_cross_entropy", "BCELoss")],
)  # fmt: skip
def test_swapped_arguments(name: str, module: str) -> None:
    base = getattr(modules, module)

    class Swapped(base):
        def forward(self, x, y, *others):
            return super().forward(y, x, *others)

        forward.__signature__ = inspect.signature(base.forward)

    report = audited(name, Swapped)
    assert not report and "of Swapped is not that of its function" in str(report).splitlines()[0], report
    assert audited(name, base)


@pytest.mark.parametrize(
    ("name", "module", "option", "fixed"),
    [("huber_loss", "HuberLoss", "reduction", "mean"), ("huber_loss", "HuberLoss", "delta", 1.0),
     ("triplet_margin_loss", "TripletMarginLoss", "swap", False), ("ctc_loss", "CTCLoss", "zero_infinity", False),
     ("linear_cross_entropy", "LinearCrossEntropyLoss", "label_smoothing", 0.0)],
)  # fmt: skip
def test_an_option_that_is_fixed(name: str, module: str, option: str, fixed: object) -> None:
    base = getattr(modules, module)

    class Fixed(base):
        def forward(self, *args):
            setattr(self, option, fixed)
            return super().forward(*args)

        forward.__signature__ = inspect.signature(base.forward)

    (described,) = specs.load(name).modules
    wrong = dataclasses.replace(described, made=Fixed) if isinstance(described, gradcheck.Module) else Fixed
    report = audited(name, wrong)
    assert not report and "of Fixed is not that of its function" in str(report), report


def test_another_default() -> None:
    class Otherwise(modules.HuberLoss):
        def __init__(self, reduction="mean", delta=0.5):
            super().__init__(reduction, delta)

    report = audited("huber_loss", Otherwise)
    assert any("by default" in r.case for r in report.failures), report


def test_a_weight_that_does_not_move_with_the_module() -> None:
    class Holds(torch.nn.Module):
        def __init__(self, weight=None, reduction="mean"):
            super().__init__()
            self.weight, self.reduction = weight, reduction

        def forward(self, input, target):
            return specs.load("binary_cross_entropy").fn(input, target, self.weight, reduction=self.reduction)

    report = audited("binary_cross_entropy", Holds)
    assert not report and "Holds keeps weight outside its buffers" in str(report), report


@pytest.mark.parametrize("fault", ["value", "gradient", "curvature", "predict"])
def test_a_method(fault: str) -> None:
    class Wrong(modules.AdaptiveLogSoftmaxWithLoss):
        def log_prob(self, input):
            found = super().log_prob(input)
            if fault == "value":
                return found.flip(-1)
            if fault == "gradient":
                return 1.5 * found - 0.5 * found.detach()
            return found + (input - input.detach()).pow(2).sum() if fault == "curvature" else found

        def predict(self, input):
            return super().predict(input) if fault != "predict" else torch.zeros_like(super().predict(input))

    spec = specs.load("adaptive_log_softmax_with_loss")
    wrong = dataclasses.replace(spec.modules[0], made=Wrong)
    one = dict([next(iter(spec.samples.items()))])
    few = dataclasses.replace(spec, modules=(wrong,), samples=one, params=spec.params[:1], regimes={}, pins=())
    report = gradcheck.audit([few], ["modules"], QUICK)
    assert not report, report
    assert all(r.what.startswith("Wrong.predict" if fault == "predict" else "Wrong.log_prob") for r in report.failures)


def test_a_module_that_takes_no_sample_is_told() -> None:
    class Other(torch.nn.Module):
        def forward(self, a, b, c):
            return a + b + c

    report = gradcheck.check(torch.sin, torch.sin, {"x": (3,)}, modules=[Other], checks=["modules"])
    assert not report and "cannot be called as its function" in str(report)


# a function of another's own, with its Module


def power(x: Tensor, w: Tensor, gamma: float = 2.0, reduction: str = "mean") -> Tensor:
    return gradcheck.spec.reduce(w * x.abs() ** gamma, reduction)


class Power(torch.nn.Module):
    def __init__(self, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma, self.reduction = gamma, reduction

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return power(x, w, self.gamma, self.reduction)


class Sums(Power):
    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return power(x, w, self.gamma, "sum")


INPUTS = {"x": (3, 4), "w": (3, 4)}
PARAMS = [{"gamma": 2.0, "reduction": "sum"}, {"gamma": 3.0, "reduction": "mean"}]


def test_the_class_of_a_module_as_the_function() -> None:
    assert gradcheck.check(Power, power, INPUTS, params=PARAMS)
    report = gradcheck.check(Sums, power, INPUTS, params=PARAMS, checks=["definition"])
    assert not report and {r.case for r in report.failures} == {"random, gamma=3.0, reduction='mean'"}


def test_the_module_of_a_function() -> None:
    assert gradcheck.check(power, power, INPUTS, params=PARAMS, modules=[Power])
    report = gradcheck.check(power, power, INPUTS, params=PARAMS, modules=[Sums])
    assert report.caught_by() == {"modules"}


class Scale(Function):
    @staticmethod
    def forward(ctx, x, w, factor):
        ctx.save_for_backward(x, w)
        ctx.factor = factor
        return x * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w, ctx.factor * (g * x).sum(0), None


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.scale, self.factor = torch.nn.Parameter(torch.tensor([1.0, 2.0, -1.0])), factor

    def forward(self, x: Tensor) -> Tensor:
        return Scale.apply(x, self.scale, self.factor)


class Plain(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize("definition", [None, Plain(1.0)], ids=["without a definition", "a Module"])
def test_the_parameters_of_an_instance(definition: torch.nn.Module | None) -> None:
    checks = ["definition", "differences", "purity", "claims", "layout"]
    report = gradcheck.check(Scaled(1.0), definition, {"x": (4, 3)}, checks=checks)
    assert report, report
    report = gradcheck.check(Scaled(0.5), definition, {"x": (4, 3)}, checks=checks)
    assert str(report).startswith("WRONG Scaled: the gradient of scale is wrong: "), report


def test_bad_modules() -> None:
    with pytest.raises(ValueError, match=r"Linear has parameters \(weight, bias\): give an instance"):
        gradcheck.check(torch.nn.Linear, None, {"x": (2, 3)}, params=[{"in_features": 3, "out_features": 2}])
    with pytest.raises(ValueError, match=r"definition: its parameters are .*'weight'"):
        gradcheck.check(Scaled(1.0), torch.nn.Linear(3, 3), {"x": (4, 3)})


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["Power", "--definition", "power", "--params", "gamma=2 reduction=sum; gamma=3.0"], 0, "all passed"),
        (["Sums", "--definition", "power", "--params", "gamma=2 reduction=mean"], 1, "WRONG Sums: the value is wrong"),
        (["power", "--module", "Sums"], 1, "WRONG power: the value of Sums is not that of its function"),
    ],
)
def test_on_the_command_line(arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *options = arguments
    checks = ["--check", "definition", "modules"]
    assert cli.main([f"{__file__}:{name}", "--like", "x: 3 4; w: 3 4", *options, *checks]) == status
    assert said in capsys.readouterr().out


def test_bad_usage_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in ((["--module", "No"], "--module: there is no No"), (["--params", "gamma"], "'name=value'")):
        with pytest.raises(SystemExit):
            cli.main([f"{__file__}:power", "--like", "x: 3 4; w: 3 4", *options])
        assert said in capsys.readouterr().err
