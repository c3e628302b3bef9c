"""Audit the auditor: every deliberately wrong rule is caught by the check meant for it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import mpmath
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gradcheck
import gradcheck.run
from gradcheck import __main__ as cli
from gradcheck.checks import transforms
from gradcheck.compare import compare
from gradcheck.report import error
from gradcheck.run import related
from gradcheck.spec import Draw, Error, Input, Pin, Settings, Spec, reduce
from manual_grad import kernels, specs
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.losses.pointwise.huber_loss import HuberLossFunction

ROOT = Path(__file__).parent.parent
QUICK = Settings(quick=True)


class Right(PointwiseLoss):
    """log(1 + e^x) + |x - t|: a curve, a kink at x = t, and a textbook form that overflows."""

    tensors = 3

    @staticmethod
    def elementwise(x, t):
        return x.clamp_min(0) + torch.exp(-x.abs()).log1p() + (x - t).abs()

    @staticmethod
    def first(x, t):
        return torch.sigmoid(x) + (x - t).sign(), -(x - t).sign()

    @staticmethod
    def second(x, t):
        return (torch.sigmoid(x) * torch.sigmoid(-x), 0), (0, 0)


def definition(input, target, reduction="mean"):
    return reduce(torch.logaddexp(input, torch.zeros_like(input)) + (input - target).abs(), reduction)


def functional(rule):
    return lambda input, target, reduction="mean": rule.apply(input, target, None, reduction)


SPEC = Spec(
    fn=functional(Right),
    name="right",
    inputs=(Input("input"), Input("target")),
    definition=definition,
    oracle=lambda input, target, **_: mpmath.log(1 + mpmath.exp(input)) + abs(input - target),
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={"square": lambda draw: dict(input=draw.normal(3, 3), target=draw.normal(3, 3))},
    regimes={"large": lambda draw: dict(input=draw.tensor([100.0, 300.0, -20.0]), target=draw.normal(3))},
    kinks={1: lambda input, target, **_: input - target},
    pins=(Pin(dict(input=[0.0], target=[0.0]), "at a tie only the curve", gradient=dict(input=[0.5], target=[0.0])),),
    errors=(Error(dict(target=lambda target, **_: target[:, :2]), RuntimeError, "size of tensor"),),
    promises=("forward", "vmap"),
)  # fmt: skip


def test_a_right_rule_passes():
    report = gradcheck.audit([SPEC], settings=QUICK)
    assert report, report


class Zero(Right):
    @staticmethod
    def first(x, t):
        return torch.zeros_like(x), torch.zeros_like(x)


class OnePercentMore(Right):
    @staticmethod
    def first(x, t):
        return tuple(1.01 * d for d in Right.first(x, t))


class NotANumber(Right):
    @staticmethod
    def first(x, t):
        dx, dt = Right.first(x, t)
        return torch.where(x > 0, dx, float("nan")), dt


class Transposed(Right):
    @staticmethod
    def first(x, t):
        dx, dt = Right.first(x, t)
        return (dx.mT, dt.mT) if x.dim() == 2 else (dx, dt)


class SignAtTheKink(Right):
    @staticmethod
    def first(x, t):
        sign = torch.where(x >= t, 1.0, -1.0).to(x.dtype)
        return torch.sigmoid(x) + sign, -sign


class WrongSecond(Right):
    @staticmethod
    def second(x, t):
        return (torch.sigmoid(x), 0), (0, 0)


class Overflows(Right):
    @staticmethod
    def elementwise(x, t):
        textbook = (1 + x.float().exp()).log().to(x.dtype) + (x - t).abs()
        return torch.where(x > 50, textbook, Right.elementwise(x, t))


class ForgetsTheMean(Right):
    @classmethod
    def spread(cls, g, X, options, reduction):
        return super().spread(g, X, options, "sum" if reduction == "mean" else reduction)


class IgnoresUpstream(Right):
    @classmethod
    def backward(cls, ctx, g):
        return super().backward(ctx, torch.ones_like(g))


class ScalesASavedTensor(Right):
    """A wrong rule: the stored gradient is multiplied by the upstream gradient in place."""

    @classmethod
    def backward(cls, ctx, g):
        if torch.is_grad_enabled():
            return super().backward(ctx, g)
        if not hasattr(ctx, "kept"):
            ctx.kept = [d for d in super().backward(ctx, torch.ones_like(g))]
        return tuple(None if d is None else d.mul_(g) for d in ctx.kept)


class WrongForward(Right):
    @classmethod
    def jvp(cls, ctx, *tangents):
        return 2 * super().jvp(ctx, *tangents)


class OverwritesItsInput(Right):
    @classmethod
    def backward(cls, ctx, g):
        found = super().backward(ctx, g)
        x = ctx.saved_tensors[0]
        if not torch.is_grad_enabled() and type(x) is torch.Tensor and found[0] is not None:
            x.data.copy_(found[0])
        return found


class ReadsStridesWrong(Right):
    """A wrong rule: it reads only the first entry of an expanded upstream gradient."""

    @classmethod
    def backward(cls, ctx, g):
        if g.dim() and 0 in g.stride():
            g = torch.zeros_like(g).index_put([torch.zeros((), dtype=torch.long)] * g.dim(), g.flatten()[0])
        return super().backward(ctx, g)


class WrongUnderFunc(Right):
    @classmethod
    def backward(cls, ctx, g):
        return super().backward(ctx, 2 * g if torch._C._are_functorch_transforms_active() else g)


class CoarseInHalf(Right):
    @staticmethod
    def gradient(g, X, *options):
        step = 0.0 if g.dtype is torch.float64 else 1 / 16
        return tuple(d if d is None or not step else (d / step).round() * step for d in Right.gradient(g, X))


class LeavesMemory(Right):
    """A wrong rule: it never writes the last entry of the gradient."""

    @classmethod
    def backward(cls, ctx, g):
        found = super().backward(ctx, g)
        if torch.is_grad_enabled() or found[0] is None or torch._C._are_functorch_transforms_active():
            return found
        dx = torch.empty_like(found[0])
        dx.view(-1)[:-1] = found[0].reshape(-1)[:-1]
        return dx, *found[1:]


class NeverTheSame(Right):
    calls = itertools.count()

    @classmethod
    def elementwise(cls, x, t):
        return Right.elementwise(x, t) * (1 + 1e-15 * next(cls.calls))


# the rule, the check meant for it, and whether only that check can find the mistake
MISTAKES = [
    (Zero, "definition", False),
    (OnePercentMore, "definition", False),
    (NotANumber, "definition", False),
    (Transposed, "definition", False),
    (ForgetsTheMean, "definition", False),
    (IgnoresUpstream, "definition", False),
    (Overflows, "oracle", True),
    (SignAtTheKink, "kinks", True),
    (WrongSecond, "second", True),
    (WrongForward, "forward", True),
    (ScalesASavedTensor, "layout", False),
    (OverwritesItsInput, "purity", False),
    (ReadsStridesWrong, "layout", True),
    (WrongUnderFunc, "transforms", True),
    (CoarseInHalf, "parity", True),
    (LeavesMemory, "parity", False),
    (NeverTheSame, "purity", False),
]


@pytest.mark.parametrize(("rule", "check", "alone"), MISTAKES, ids=lambda v: getattr(v, "__name__", None))
def test_a_wrong_rule_is_caught_by_the_check_meant_for_it(rule, check, alone):
    report = gradcheck.audit([dataclasses.replace(SPEC, fn=functional(rule))], settings=QUICK)
    assert check in report.caught_by(), report
    if alone:
        assert report.caught_by() == {check}, report


class AnyOrder(TorchDispatchMode):
    """Multiply matrices as a BLAS may: in parts, in an order that varies with threads and from run to run."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        dtypes = {t.dtype for t in args if isinstance(t, torch.Tensor)}
        if name in ("mm", "bmm", "addmm", "addmm_", "baddbmm") and len(dtypes) > 1:
            raise RuntimeError(f"expected one dtype, not {dtypes}")
        if name in ("mm", "bmm"):
            result = self.product(*args)
            return kwargs["out"].copy_(result) if "out" in kwargs else result
        if name in ("addmm", "addmm_", "baddbmm"):
            bias, a, b = args
            beta = kwargs.get("beta", 1)
            result = self.product(a, b) + beta * bias if beta else self.product(a, b)
            target = bias if name == "addmm_" else kwargs.get("out")
            return result if target is None else target.copy_(result)
        assert not {"matmul", "linear", "tensordot"} & {name}
        return func(*args, **kwargs)

    def product(self, a, b):
        self.calls += 1
        wide = torch.promote_types(a.dtype, torch.float32)
        draw = torch.Generator().manual_seed(100 * self.calls + torch.get_num_threads())
        order = torch.randperm(a.shape[-1], generator=draw)
        parts = order.chunk(1 + self.calls % 3 + torch.get_num_threads())
        return sum(a[..., k].to(wide) @ b[..., k, :].to(wide) for k in parts).to(a.dtype)


@pytest.mark.parametrize("name", [name for name in specs.NAMES if specs.load(name).multiplies])
def test_products_may_be_summed_in_any_order(name):
    spec = specs.load(name)
    with AnyOrder() as blas:
        small = spec.case(QUICK)
        large = small.at({k: t.repeat(99, *[1] * (t.dim() - 1)) for k, t in small.tensors.items()})
        if name == "linear_cross_entropy":
            once, again = (large.differentiate()[1]["linear_weight"] for _ in range(2))
            assert not torch.equal(once, again)
        report = gradcheck.audit(
            [spec], ("claims", "layout", "parity"), QUICK
        )  # the checks that require identical bits
    assert report and blas.calls > 1000, report


class Scores(torch.autograd.Function):
    """The sum of squares of x W^T."""

    @staticmethod
    def forward(ctx, x, W):
        ctx.save_for_backward(x, W)
        return (x @ W.mT).square().sum()

    @classmethod
    def backward(cls, ctx, g):
        x, W = ctx.saved_tensors
        r = 2 * g * (x @ W.mT)
        return r @ W, cls.of_weight(r, x)

    @staticmethod
    def of_weight(r, x):
        return r.mT @ x


class LosesARow(Scores):
    """A data race: two threads write to the same place, and one thread's contribution to a row is lost."""

    @staticmethod
    def of_weight(r, x):
        kept = slice(1, None) if torch.get_num_threads() > 1 else slice(None)
        return Scores.of_weight(r[kept], x[kept])


class AddsToWhatWasThere(Scores):
    @staticmethod
    def of_weight(r, x):
        fresh = torch.empty_like(r.mT @ x)
        return Scores.of_weight(r, x) + (fresh - fresh)


def multiplying(rule):
    return Spec(
        fn=lambda input, weight: rule.apply(input, weight),
        name="scores",
        family="linear",
        inputs=(Input("input"), Input("weight", batch=None)),
        definition=lambda input, weight: (input @ weight.mT).square().sum(),
        samples={"typical": lambda draw: dict(input=draw.normal(3, 5), weight=draw.normal(4, 5))},
        order=1,
        promises=(),
        kernels=specs.KERNELS,
    )


def test_what_is_more_than_the_rounding_of_a_product_is_caught():
    wide = dataclasses.replace(
        QUICK, dtypes=(torch.float64, torch.float32)
    )  # in half dtypes the rule rounds its scores
    with AnyOrder():
        assert gradcheck.audit([multiplying(Scores)], ("parity", "claims", "layout", "definition"), wide)
    assert caught(multiplying(AddsToWhatWasThere), "parity") == {"parity"}
    assert caught(multiplying(LosesARow), "parity") == ({"parity"} if kernels.loaded() else set())


def caught(spec, *checks):
    return gradcheck.audit([spec], checks or None, QUICK).caught_by()


def test_a_call_that_a_layout_breaks_is_named():
    report = gradcheck.check(lambda x: x.view(-1).sin(), None, {"x": (3, 4)}, settings=QUICK)
    assert report.caught_by() == {"layout"} and "the call fails for a memory layout" in str(report)


def test_a_leaf_that_is_made_in_the_call_is_no_parameter():
    def offset(x):
        return x.sin() + torch.tensor(0.0, dtype=x.dtype, requires_grad=True)

    report = gradcheck.check(offset, torch.sin, {"x": (3,)}, settings=QUICK)
    assert report.caught_by() == {"claims"} and "no input does" in str(report)


def test_a_gradient_that_is_not_promised_is_caught():
    silent = (Input("input"), Input("target", differentiable=False))
    assert caught(dataclasses.replace(SPEC, inputs=silent, pins=())) == {"claims"}


def test_a_bad_call_that_is_accepted_is_caught():
    error = Error(dict(target=lambda target, **_: target[:, :1]), RuntimeError, "target")
    assert caught(dataclasses.replace(SPEC, errors=(error,))) == {"claims"}


def test_finite_differences_do_not_trust_the_definition():
    def detached(input, target, reduction="mean"):  # autograd of this is wrong in the same way as the rule
        return definition(input, target, reduction) + 0.01 * reduce(input - input.detach(), reduction)

    class Alike(Right):
        @staticmethod
        def first(x, t):
            dx, dt = Right.first(x, t)
            return dx + 0.01, dt

    wrong = dataclasses.replace(SPEC, fn=functional(Alike), definition=detached, oracle=None, pins=())
    assert caught(wrong, "definition", "claims", "layout", "forward") == set()
    assert caught(wrong, "differences") == {"differences"}


@pytest.mark.parametrize(
    "kinks",
    [
        {},
        {1: lambda input, target, **_: input - target - 0.25},
        {1: lambda input, target, **_: input - target, 2: lambda input, **_: input - 0.5},
        {1: lambda input, target, **_: input - target, 2: lambda input, **_: input - 99},
    ],
    ids=["not declared", "elsewhere", "one that is none", "one that no sample crosses"],
)
def test_wrong_kinks_are_caught(kinks):
    assert caught(dataclasses.replace(SPEC, kinks=kinks), "kinks") == {"kinks"}


def test_a_kink_of_the_curvature_that_is_not_declared_is_caught():
    assert caught(dataclasses.replace(specs.load("huber_loss"), kinks={}), "kinks") == {"kinks"}


def test_a_pin_that_is_no_subgradient_is_caught():
    pin = Pin(dict(input=[0.0], target=[0.0]), "too steep", gradient=dict(input=[1.75]))

    class AsPinned(Right):
        @staticmethod
        def first(x, t):
            dx, dt = Right.first(x, t)
            return torch.where(x == t, 1.75, dx), dt

    report = gradcheck.audit([dataclasses.replace(SPEC, fn=functional(AsPinned), pins=(pin,))], ["kinks"], QUICK)
    assert any("not between the one-sided slopes" in r.message for r in report.failures), report


def test_a_function_that_compiles_to_another_one_is_caught():
    def fn(input, target, reduction="mean"):
        value = definition(input, target, reduction)
        return 2 * value if torch.compiler.is_compiling() else value

    case = dataclasses.replace(SPEC, fn=fn).case(Settings())
    assert not all(r.ok for r in transforms.in_graphs([case], backend="aot_eager"))
    case = dataclasses.replace(SPEC, fn=definition).case(Settings())
    assert all(r.ok for r in transforms.in_graphs([case], backend="aot_eager"))


def test_a_formula_that_differs_from_its_kernel_is_caught(monkeypatch):
    monkeypatch.setattr(HuberLossFunction, "first", lambda x, t, delta: (1.01 * (x - t).clamp(-delta, delta),) * 2)
    found = caught(specs.load("huber_loss"), "definition", "parity")
    assert found == ({"parity"} if kernels.loaded() else {"definition", "parity"})


def test_a_sample_outside_the_domain_is_caught():
    narrow = (Input("input", domain=(-0.1, 0.1)), Input("target"))
    report = gradcheck.audit([dataclasses.replace(SPEC, inputs=narrow)], ["definition"], QUICK)
    assert "input leaves [-0.1, 0.1]" in str(report)


def test_a_rule_that_raises_is_a_failure_and_hides_no_other_case():
    def fn(input, target, reduction="mean"):
        if reduction == "none":
            raise RuntimeError("no such reduction")
        return functional(Right)(input, target, reduction)

    report = gradcheck.audit([dataclasses.replace(SPEC, fn=fn)], ["definition"], QUICK)
    assert [r.case for r in report.failures] == ["square, reduction='none'"]
    assert sum(r.ok for r in report.results) == 6


A = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("actual", "expected", "bound", "ok", "message"),
    [
        (A, A, 1, True, ""),
        (A * (1 + 1e-15), A, 8, True, ""),
        (A, A, 1e14, False, "vacuous: 1.01 times it"),
        (A, A, 1e17, False, "vacuous: 0 instead"),
        (0 * A, 0 * A, 8, True, ""),
        (0 * A, 0 * A, float("inf"), False, "vacuous: 1 more"),
        (12 * A, A, 8, False, "12 times what is expected"),
        (3 * A, A, 8, False, "is the 1/N of a mean missing? There are 3 entries"),
        (0 * A, A, 8, False, "zero everywhere"),
        (-A, A, 8, False, "-1 times what is expected: the opposite sign"),
        (
            torch.stack([A, 2 * A, 5 + A]).T,
            torch.stack([A, 2 * A, 5 + A]),
            8,
            False,
            "the transpose of what is expected",
        ),
        (A / 0, A, 8, False, "NaN in 1 of 3 entries"),
        (A / 0, A / 0, 8, False, "NaN"),
        (A[:2], A, 8, False, "has shape [2], expected [3]"),
        (None, A, 8, False, "got None, expected a tensor of shape [3]"),
        (A, None, 8, False, "got a tensor of shape [3], expected None"),
        (None, 0 * A, 8, True, ""),
    ],
)
def test_compare(actual, expected, bound, ok, message):
    result = compare("x", actual, expected, bound)
    assert result.ok is ok
    assert message in error(related(result))


def test_nan_equals_nan_only_where_that_is_said():
    assert compare("x", A / 0, A / 0, 8, nan=True).ok
    assert not compare("x", A, A / 0, 8, nan=True).ok


def test_compare_componentwise():
    wrong = A + torch.tensor([0.0, 0.0, 1e-20])
    assert compare("x", wrong, A, 8).ok
    assert not compare("x", wrong, A, 8, scale=A).ok


def test_every_word_of_the_vocabulary_is_used_by_a_check():
    used = set()

    class Watched(Spec):
        def __getattribute__(self, name):
            used.add(name)
            return super().__getattribute__(name)

    fields = {f.name: getattr(SPEC, f.name) for f in dataclasses.fields(Spec)}
    others = {"peer": torch.nn.functional.l1_loss, "chapter": "A title.\n\n.. math::\n    e = 1 \\tag{1}\n"}
    gradcheck.audit([Watched(**{**fields, **others})], settings=QUICK)
    # "large" is run on a device only, and "smooth" is read where a kink is found that is not declared
    assert set(fields) - {"large", "smooth"} <= used


def test_losses_and_specs_mirror_each_other():
    losses = {path.stem for path in (ROOT / "manual_grad" / "losses").glob("*/[!_]*.py")}
    assert losses == set(specs.NAMES)
    assert all(specs.load(name).name == name for name in specs.NAMES)


@pytest.mark.parametrize("name", specs.NAMES)
def test_a_spec_is_complete(name):
    spec = specs.load(name)
    assert spec.definition and spec.oracle and spec.regimes and spec.pins and spec.errors and spec.kernels
    assert spec.order >= 2 and set(spec.promises) == {"forward", "nested", "vmap", "compile", "capture"}
    assert {p.get("reduction") for p in spec.params} >= {"mean", "none", "sum"}


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return ((x - y) ** 2).mean()

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        dx = g * 2 * (x - y) / x.numel()
        return dx, -dx


def test_a_function_of_ones_own():
    def mean_square(x, y):
        return ((x - y) ** 2).mean()

    inputs = {"x": (3, 4), "y": (3, 4)}
    assert gradcheck.check(Square.apply, mean_square, inputs, settings=QUICK)
    assert gradcheck.check(Square.apply, None, inputs, settings=QUICK)
    report = gradcheck.check(lambda x, y: 12 * Square.apply(x, y), mean_square, inputs, settings=QUICK)
    assert "definition" in report.caught_by()
    report = gradcheck.check(Square.apply, mean_square, inputs, promises=("forward",), settings=QUICK)
    assert report.caught_by() == {"forward"}, report


class Leaks(torch.autograd.Function):
    """Its gradient depends on the weight, a constant, in forward mode too."""

    @staticmethod
    def forward(x, weight):
        return x * x * weight

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g * 2 * x * weight, None

    @staticmethod
    def jvp(ctx, v, _):
        x, weight = ctx.saved_tensors
        return 2 * x * weight * v


def test_a_tangent_of_the_gradient_alone():
    inputs, claims = {"x": (3, 4), "weight": (3, 4)}, dict(differentiable=["x"], order=2, promises=("forward",))
    report = gradcheck.check(Leaks.apply, lambda x, weight: x * x * weight.detach(), inputs, settings=QUICK, **claims)
    assert {r.what for r in report.failures} == {"d/dx of forward along weight"}, report
    report = gradcheck.check(lambda x, w: Leaks.apply(x, w.detach()), None, inputs, settings=QUICK, **claims)
    assert report, report


def test_a_function_of_ones_own_with_examples_domains_and_digits():
    def fn(p, y, scale=1.0):
        return -scale * torch.where(y == 1, p, 1 - p).log()

    report = gradcheck.check(
        fn,
        fn,
        {"p": (6,), "y": torch.tensor([0, 1, 1, 0, 1, 0])},
        domain={"p": (0.0, 1.0)},
        params=[{}, {"scale": 3.0}],
        oracle=lambda p, y, scale=1, **_: -scale * mpmath.log(p if y == 1 else 1 - p),
        order=2,
        promises=("forward", "vmap"),
        settings=QUICK,
    )
    assert report, report
    assert any(r.check == "oracle" and not r.note for r in report.results)


def test_a_notebook_shows_the_cause_and_every_failure():
    report = gradcheck.check(lambda x: 2 * x.sin(), torch.sin, {"x": (3, 4)}, name="sine", settings=QUICK)
    shown = report._repr_html_()
    assert "WRONG sine: the value is wrong" in shown and report.caught_by()
    assert "<summary>the value is wrong: 2 times what is expected" in shown
    assert "<script" not in shown and "<details" not in gradcheck.check(torch.sin, torch.sin, {"x": (3,)})._repr_html_()


def test_bad_usage_of_the_library():
    with pytest.raises(ValueError, match="inputs"):
        gradcheck.check(torch.sin)
    with pytest.raises(ValueError, match="not among inputs: z"):
        gradcheck.check(torch.sin, torch.sin, {"x": (3,)}, differentiable=["z"])


def test_draws_are_the_same_numbers_in_every_dtype():
    wide, narrow = Draw(3).normal(5), Draw(3, torch.float16).normal(5)
    assert torch.equal(wide.half(), narrow)


def test_command_line(tmp_path, capsys):
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    arguments = ["huber_loss", "--check", "definition", "oracle", "--quick", "--json", str(report), "--html", str(page)]
    assert cli.main(arguments) == 0
    assert "all passed" in capsys.readouterr().out
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["ok"] and not found["interrupted"]
    assert {r["check"] for r in found["results"]} == {"definition", "oracle"}
    assert {"Python", "torch", "mpmath", "CPU kernels", "manual_grad"} <= set(found["environment"])
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text and "huber_loss" in text and "boundary" in text
    assert "http" not in text and "src=" not in text


def test_command_line_fails_when_a_rule_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(specs, "load", lambda name: dataclasses.replace(SPEC, fn=functional(Zero)))
    report, page = tmp_path / "report.json", tmp_path / "page.html"
    assert cli.main(["huber_loss", "--check", "definition", "--json", str(report), "--html", str(page)]) == 1
    out = capsys.readouterr().out
    assert "FAIL right / definition at square, reduction='mean': gradient of input" in out
    assert "zero everywhere" in out
    assert not json.loads(report.read_text(encoding="utf-8"))["ok"]
    assert "failed" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments", [["no_such_loss"], ["--check", "taste"], ["--dtype", "int8"], ["--json", "/no/such/folder/x.json"]]
)
def test_command_line_bad_usage(arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_command_line_without_a_device(capsys):
    assert cli.main(["l1_loss", "--device", "cuda", "--check", "parity", "--quick"]) == 0
    printed = capsys.readouterr()
    assert "there is no CUDA device" in printed.err
    assert "there is no CUDA device, so that" in printed.out


def test_processes_find_the_same(tmp_path):
    found = []
    for jobs in "12":
        report = tmp_path / f"{jobs}.json"
        which = ["l1_loss", "mse_loss", "--check", "definition", "kinks", "--quick"]
        assert cli.main([*which, "--jobs", jobs, "--json", str(report)]) == 0
        found.append(json.loads(report.read_text(encoding="utf-8"))["results"])
    assert found[0] == found[1] != []


def test_an_interrupt_keeps_what_there_is(tmp_path, capsys, monkeypatch):
    def interrupted(spec, settings):
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(gradcheck.run.CHECKS, "oracle", interrupted)
    report = tmp_path / "report.json"
    assert cli.main(["huber_loss", "--check", "definition", "oracle", "--json", str(report)]) == 130
    assert "interrupted" in capsys.readouterr().out
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["interrupted"] and {r["check"] for r in found["results"]} == {"definition"}


@pytest.mark.parametrize("installed", [True, False], ids=["rich", "no rich"])
def test_terminal(installed, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    if not installed:
        monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["huber_loss", "--check", "definition"]) == 0
    assert "huber_loss" in capsys.readouterr().out


def test_as_a_module():
    command = [sys.executable, "-m", "gradcheck", "l1_loss", "--check", "definition"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "l1_loss" in done.stdout and "all passed" in done.stdout
