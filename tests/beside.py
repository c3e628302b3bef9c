"""Compare a call of torch's loss with the same call of ours, and list all differences.

A *probe* is something that a program does with a loss: ``probe(loss, arguments)`` returns, by name, everything that the
program can observe. Intended differences are in ``INTENDED``, each with its reason and a call that shows it.
"""

from __future__ import annotations

import functools
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import manual_grad
import manual_grad.functional as M
from closeness import assert_no_further_than_torch
from gradcheck import Settings
from gradcheck.spec import Case
from manual_grad import specs

F = torch.nn.functional
TORCHS = {name: getattr(F, name) for name in M.__all__ if hasattr(F, name)}  # also while they are patched
NAMES = tuple(TORCHS)

Arguments = Mapping[str, Any]
Loss = Callable[..., Tensor]
Probe = Callable[[Loss, Arguments], Mapping[str, Any]]


@dataclass
class Outcome:
    """The observable outcome of a call: the error or the results, and the warnings."""

    error: Exception | None = None
    seen: Mapping[str, Any] = field(default_factory=dict)
    warned: list[tuple[type, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    loss: str
    what: str
    ours: Any
    torchs: Any
    arguments: Arguments

    def __str__(self) -> str:
        call = ", ".join(f"{k}={shown(v)}" for k, v in self.arguments.items())
        return f"{self.loss}({call})\n    {self.what}: ours {shown(self.ours)}, torch's {shown(self.torchs)}"


def shown(value: Any) -> str:
    if isinstance(value, Tensor):
        kind = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        few = value.numel() <= 2 and not value.is_meta and value.layout is torch.strided
        return f"{kind}={value.tolist()}" if few else kind
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {next(iter(str(value).splitlines()), '')[:150]}"
    return repr(value)[:200]


# warnings about limitations of torch's own implementations
OF_TORCHS_OWN = (
    "There is a performance drop",  # in vmap, without a batching rule
    "An output with one or more elements was resized",  # in vmap of its pointwise losses
    "Attempted to insert a get_attr Node",  # in make_fx
    "`torch.jit.script` is deprecated",  # in forward mode, by a decomposition
)


def observe(loss: Loss, arguments: Arguments, probe: Probe) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome = Outcome(seen=probe(loss, arguments))
        except Exception as error:
            # a traceback would keep its frames alive, such as the hooks of a checkpoint in torch 2.10
            traceback.clear_frames(error.__traceback__)
            outcome = Outcome(error)
    warned = ((w.category, str(w.message)) for w in caught)
    outcome.warned = [(kind, message) for kind, message in warned if not message.startswith(OF_TORCHS_OWN)]
    return outcome


def differences(name: str, arguments: Arguments, probe: Probe | None = None) -> Iterator[Difference]:
    """The differences between ours and torch's, without the intended ones."""
    probe = probe or requiring(*differentiated(name, arguments))
    yield from unintended(all_differences(name, arguments, probe))


def unintended(found: Iterable[Difference]) -> Iterator[Difference]:
    return (difference for difference in found if not any(intended.covers(difference) for intended in INTENDED))


def while_patched(name: str, arguments: Arguments, probe: Probe) -> Iterator[Difference]:
    """The differences of ``probe(mode, arguments)`` with and without :func:`manual_grad.patch`."""
    yield from unintended(compare(name, arguments, probe, manual_grad.patch, nullcontext))


def all_differences(name: str, arguments: Arguments, probe: Probe) -> Iterator[Difference]:
    yield from compare(name, arguments, probe, called(name, M), called(name, F))


def compare(name: str, arguments: Arguments, probe: Probe, our_loss: Any, torchs_loss: Any) -> Iterator[Difference]:
    """The outcomes of ``probe`` for both."""

    def differs(what: str, a: Any, b: Any) -> Difference:
        return Difference(name, what, a, b, arguments)

    ours, torchs = (observe(loss, arguments, probe) for loss in (our_loss, torchs_loss))
    if ours.error or torchs.error:
        # a subclass of torch's error is caught wherever torch's is
        if torchs.error is None or not isinstance(ours.error, type(torchs.error)):
            yield differs("error", ours.error, torchs.error)
        return
    if ours.warned != torchs.warned:
        yield differs("warnings", ours.warned, torchs.warned)
    if ours.seen.keys() != torchs.seen.keys():
        yield differs("what is seen", list(ours.seen), list(torchs.seen))
        return
    apart = [what for what, a in ours.seen.items() if not near(a, torchs.seen[what])]
    exact = exact_outcome(torchs_loss, arguments, probe).seen if apart else {}
    for what in apart:
        a, b = ours.seen[what], torchs.seen[what]
        if not as_exact(a, b, exact.get(what)):
            yield differs(what, a, b)


def called(name: str, module: Any) -> Loss:
    loss = TORCHS[name] if module is F else getattr(module, name)
    return behind_log_softmax(loss) if name == "ctc_loss" else loss


def behind_log_softmax(loss: Loss) -> Loss:
    """ctc_loss after a log_softmax: torch's gradient is that of the scores, so it can be compared only there.

    It is written in plain ops, because the forward mode of torch.log_softmax writes in place, and reverse mode cannot
    differentiate through that.
    """

    def behind(log_probs: Any, **others: Any) -> Tensor:
        if floating(log_probs) and log_probs.dim():
            log_probs = log_probs - log_probs.exp().sum(-1, keepdim=True).log()
        return loss(log_probs, **others)

    return behind


def exact_outcome(torchs_loss: Any, arguments: Arguments, probe: Probe) -> Outcome:
    """torch's result in float64, for the same values."""
    # torch rejects some options in float64; without them the result is the same
    wide = {k: v.double() if floating(v) else v for k, v in arguments.items() if k != "options"}
    with torch.autocast("cpu", enabled=False):
        return observe(torchs_loss, wide, probe)


def comparable(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and type(a) is type(b) and a.dtype is b.dtype and a.shape == b.shape


def near(a: Any, b: Any) -> bool:
    """Whether they are equal, numbers up to rounding."""
    if not comparable(a, b):
        return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and bool(a == b))
    if a.is_meta or b.is_meta:
        return a.is_meta and b.is_meta
    if not a.is_floating_point():
        return torch.equal(a, b)
    eps = torch.finfo(a.dtype).eps
    scale = b.abs().max().item() if b.numel() else 0.0
    if not scale < float("inf"):
        return torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
    # values below eps² are a rounded zero
    return torch.allclose(a.double(), b.double(), rtol=0, atol=(16 if eps < 1e-10 else 2) * eps * scale + eps**2)


def as_exact(a: Any, b: Any, exact: Any) -> bool:
    """Whether ours is no further from the exact result than torch's."""
    if not (comparable(a, b) and a.is_floating_point() and comparable(b.double(), exact)):
        return False
    exact = exact.detach()
    try:  # with mixed dtypes, torch's float64 result may be rounded to the lowest of them
        assert_no_further_than_torch(a.detach(), exact if b.dtype is torch.float64 else b.detach(), exact)
    except AssertionError:
        return False
    return True


# -- calls


def cases(name: str, dtype: torch.dtype = torch.float32, every: bool = False) -> Iterator[Case]:
    """Cases that cover every sample and every set of parameters of the spec, or (``every``) all combinations."""
    spec, settings = specs.load(name), Settings()
    yield from spec.cases(settings, dtype) if every else spec.covering(settings, dtype)


def floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def tensors(arguments: Arguments) -> dict[str, Tensor]:
    return {k: v for k, v in arguments.items() if isinstance(v, Tensor)}


UNDIFFERENTIATED = {  # torch raises for these
    "binary_cross_entropy": {"weight"},
    "binary_cross_entropy_with_logits": {"weight", "pos_weight"},
    "multi_margin_loss": {"weight"},
    "nll_loss": {"weight"},
    "soft_margin_loss": {"target"},
}


def differentiated(name: str, arguments: Arguments) -> list[str]:
    """The names of the tensors that both libraries differentiate."""
    without = set(UNDIFFERENTIATED.get(name, ()))
    if name in ("cross_entropy", "linear_cross_entropy") and not floating(arguments.get("target")):
        without.add("weight")
    return [k for k, v in arguments.items() if floating(v) and k not in without]


# -- probes


def leaves(arguments: Arguments, requiring: Iterable[str]) -> dict[str, Any]:
    asked = set(requiring)
    made = {k: v.detach() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    return {k: v.requires_grad_() if k in asked else v for k, v in made.items()}


def upstream(value: Tensor) -> Tensor:
    g = torch.linspace(0.5, 1.5, max(1, value.numel()), dtype=torch.float64, device=value.device)
    return g[: value.numel()].reshape(value.shape).to(value.dtype)


def gradients(value: Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {k: v for k, v in inputs.items() if isinstance(v, Tensor) and v.requires_grad}
    if not (value.requires_grad and wanted):
        return {}
    found = torch.autograd.grad(value, list(wanted.values()), upstream(value), allow_unused=True)
    return {f"gradient of {k}": d for k, d in zip(wanted, found, strict=True)}


def requiring(*names: str) -> Probe:
    """A probe of the value and the gradients of the tensors ``names``."""

    def probe(loss: Loss, arguments: Arguments) -> dict[str, Any]:
        inputs = leaves(arguments, names)
        value = loss(**inputs)
        return {"value": value, "requires_grad": value.requires_grad, **gradients(value, inputs)}

    return probe


# -- intended differences


@dataclass(frozen=True)
class Intended:
    """An intended difference: the reason, a predicate that recognizes it, and a call that shows it."""

    why: str
    covers: Callable[[Difference], bool]
    loss: str
    example: Arguments | None  # None if it depends on chance or on torch's version
    probe: Probe | None = None


def refusal(message: str, *losses: str, ours: str | None = None) -> Callable[[Difference], bool]:
    """torch raises this error; ours returns a result or raises ``ours``."""

    def covers(d: Difference) -> bool:
        if d.what != "error" or d.torchs is None or (losses and d.loss not in losses):
            return False
        ours_fits = d.ours is None if ours is None else d.ours is None or re.search(ours, str(d.ours))
        return bool(ours_fits and re.search(message, f"{type(d.torchs).__name__}: {d.torchs}"))

    return covers


def numbers(d: Difference) -> bool:
    """Whether only numbers differ, not dtypes, shapes or errors."""
    return comparable(d.ours, d.torchs)


def of_bytes(d: Difference) -> bool:
    return numbers(d) and any(t.dtype is torch.uint8 for t in tensors(d.arguments).values())


def broadcasts(d: Difference, *names: str) -> bool:
    return len({t.shape for k, t in tensors(d.arguments).items() if k in names}) > 1


def promoted(d: Difference) -> bool:
    """Or wider, where a Module has converted its weights."""
    floats = [t.dtype for t in d.arguments.values() if floating(t)]
    wide = torch.promote_types(d.ours.dtype, functools.reduce(torch.promote_types, floats))
    return d.ours.dtype is wide and d.torchs.dtype is d.arguments["target"].dtype


def names_the_argument(d: Difference) -> bool:
    """An argument of the wrong type, which fails somewhere in torch's Python code."""
    names_it = re.search(r"argument '\w+' must be \w+.*, not \w+", str(d.ours))
    return isinstance(d.ours, TypeError) and names_it is not None


def as_without_a_mode(d: Difference) -> bool:
    plain = observe(TORCHS[d.loss], d.arguments, requiring(*differentiated(d.loss, d.arguments))).seen
    return any(near(d.ours, result) for result in plain.values())


def spoiled(loss: Loss, arguments: Arguments) -> dict[str, Any]:
    """Modify the input before backward."""
    inputs = leaves(arguments, ["input"])
    x = inputs["input"] + 0
    value = loss(**{**inputs, "input": x})
    x.zero_()
    return gradients(value, inputs)


def spoiled_second(loss: Loss, arguments: Arguments) -> dict[str, Any]:
    inputs = leaves(arguments, ["input1"])
    value = loss(**inputs)
    inputs["input2"].zero_()
    return gradients(value, inputs)


def blank_is_a_label(d: Difference) -> bool:
    return bool((d.arguments["targets"] == d.arguments.get("blank", 0)).any())


X = torch.tensor([[0.5, -1.25], [2.0, 0.25]])
P = X.sigmoid()
Y = torch.tensor([1, 0])
BYTES = torch.tensor([1, 255], dtype=torch.uint8)
CTC = dict(
    log_probs=torch.linspace(-2, 0, 18).reshape(3, 2, 3),
    targets=torch.tensor([[1, 2], [2, 1]]),
    input_lengths=torch.tensor([3, 3]),
    target_lengths=torch.tensor([2, 1]),
)
MARGINS = ("multi_margin_loss", "multilabel_margin_loss")
INDEXED = ("cross_entropy", "linear_cross_entropy", "nll_loss")

INTENDED = (
    # -- the README's list
    Intended(
        "a gradient for some inputs that torch does not differentiate",
        refusal("not differentiable with respect to argument '(pos_)?weight'", "binary_cross_entropy_with_logits"),
        "binary_cross_entropy_with_logits", dict(input=X, target=P, weight=P), requiring("weight"),
    ),
    Intended(
        "likewise",
        refusal("not differentiable with respect to argument 'weight'", "binary_cross_entropy"),
        "binary_cross_entropy", dict(input=P, target=P, weight=P), requiring("weight"),
    ),
    Intended(
        "likewise",
        refusal("not differentiable with respect to argument 'target'", "soft_margin_loss"),
        "soft_margin_loss", dict(input=X, target=P), requiring("target"),
    ),
    Intended(
        "the result has the promoted dtype of the tensors, torch's that of the target",
        lambda d: d.loss == "binary_cross_entropy_with_logits" and d.what == "value" and promoted(d),
        "binary_cross_entropy_with_logits", dict(input=X, target=P.half()),
    ),
    Intended(
        "bfloat16 and float16 for every loss",
        refusal("not implemented for '(BFloat16|Half)'", "ctc_loss", *MARGINS, ours="weight: expected scalar type"),
        "multi_margin_loss", dict(input=X.half(), target=Y),
    ),
    Intended(
        "inputs that broadcast are the vectors they broadcast to",
        lambda d: d.loss == "cosine_embedding_loss" and numbers(d) and broadcasts(d, "input1", "input2"),
        "cosine_embedding_loss", dict(input1=X, input2=X[:, :1], target=torch.ones(2)),
    ),
    Intended(
        "the mean divides by the weight of all elements",
        lambda d: d.loss in ("l1_loss", "mse_loss") and numbers(d) and "weight" in d.arguments
        and broadcasts(d, "input", "target") and d.arguments.get("reduction", "mean") == "mean",
        "l1_loss", dict(input=X[:1], target=X, weight=P[:1]),
    ),
    Intended(
        "integer tensors hold the numbers they hold, also where torch's uint8 wraps around",
        lambda d: d.loss in ("cosine_embedding_loss", "gaussian_nll_loss", "l1_loss", "margin_ranking_loss", "mse_loss",
                             "poisson_nll_loss", "soft_margin_loss") and of_bytes(d),
        "margin_ranking_loss", dict(input1=X[0], input2=X[1], target=BYTES),
    ),
    Intended(
        "0 or nan for an empty batch, where torch returns what was in memory",
        lambda d: d.loss in MARGINS and d.what == "value" and d.arguments["input"].numel() == 0,
        "multi_margin_loss", None,
    ),
    Intended(
        "derivatives that torch does not have",
        refusal("derivative for aten::.*_backward is not implemented"
                "|Trying to use forward AD with .* that does not support",
                "ctc_loss", "huber_loss", "soft_margin_loss", *MARGINS),
        "ctc_loss", CTC, lambda loss, arguments: {"second": torch.func.hessian(
            lambda x: loss(**{**arguments, "log_probs": x}))(arguments["log_probs"])},
    ),
    Intended(
        "vmap, make_fx and tensors without values, for gaussian_nll_loss and ctc_loss, too",
        refusal("data-dependent|calling .item\\(\\) on a Tensor|get value out of a tracing tensor|[Mm]eta tensors"
                "|DynamicOutputShape|DataDependentOutput",
                "ctc_loss", "gaussian_nll_loss", *MARGINS),
        "gaussian_nll_loss", dict(input=X, target=X, var=P),
        lambda loss, arguments: {"value": torch.vmap(lambda v: loss(**{**arguments, "var": v}))(P[None])},
    ),
    # -- where torch is wrong
    Intended(
        "torch reads targets of one dimension as if they were contiguous",
        lambda d: d.loss == "ctc_loss" and numbers(d) and not d.arguments["targets"].is_contiguous(),
        "ctc_loss", {**CTC, "targets": torch.tensor([1, 2, 2, 1, 1, 1])[::2]},
    ),
    Intended(
        "with the blank among the labels torch's gradient is not the slope of its value",
        lambda d: d.loss == "ctc_loss" and d.what.startswith("gradient of log_probs") and numbers(d)
        and blank_is_a_label(d),
        "ctc_loss", {**CTC, "targets": torch.tensor([[2, 0], [1, 2]])},
    ),
    Intended(
        "torch's Stirling term of integers is float32",
        lambda d: d.loss == "poisson_nll_loss" and d.what == "value" and numbers(d) and d.arguments.get("full")
        and d.ours.dtype is torch.float64 and not floating(d.arguments["target"]),
        "poisson_nll_loss", dict(input=X.double(), target=torch.tensor([[5, 2], [3, 9]]), full=True),
    ),
    Intended(
        "torch adds 1e-12 to a denominator of the second derivative",
        lambda d: d.loss == "binary_cross_entropy" and numbers(d) and bool(
            ((d.ours - d.torchs).abs() <= 1e-9 * d.torchs.abs().max()).all()),
        "binary_cross_entropy", dict(input=P[0, 0].double(), target=P[0, 1].double()), lambda loss, arguments: {
            "second": torch.func.hessian(lambda x: loss(**{**arguments, "input": x}))(arguments["input"])},
    ),
    Intended(
        "without values torch has a shape that it does not have with them",
        lambda d: d.loss == "multi_margin_loss" and d.what in ("value", "strides", "result 0")
        and d.arguments["input"].dim() == 1 and d.arguments["target"].dim() == 0,
        "multi_margin_loss", dict(input=X[0].to("meta"), target=Y[0].to("meta"), reduction="none"), requiring(),
    ),
    Intended(
        "in a mode, such as make_fx's or that of a default device, torch forgets the weight",
        lambda d: d.loss == "l1_loss" and "weight" in d.arguments
        and (d.what.startswith(("result", "gradient of scale")) or as_without_a_mode(d)),
        "l1_loss", dict(input=X, target=P, weight=P), lambda loss, arguments: {
            "value": make_fx(lambda *x: loss(**dict(zip(arguments, x, strict=True))))(*arguments.values())(X, P, P)},
    ),
    Intended(
        "what make_fx makes of symbols is another loss in torch",
        lambda d: d.loss == "multilabel_margin_loss" and d.what == "result 0",
        "multilabel_margin_loss",
        dict(input=torch.arange(15.0).view(3, 5), target=torch.tensor([[3, 4, -1, 1, 2]] * 3)),
        lambda loss, arguments: {"result 0": make_fx(lambda x, y: loss(x, y), tracing_mode="symbolic")(
            *arguments.values())(*arguments.values())},
    ),
    # -- where torch raises because it has no implementation
    Intended(
        "sizes that are symbols, where torch 2.10 wants numbers",
        refusal("expected int at position 0, but got: SymInt|Cannot call numel\\(\\) on tensor with symbolic sizes"),
        "binary_cross_entropy", None,
    ),
    Intended(
        "a cosine of 1 has an epsilon in its denominator, which torch rounds off for bools",
        lambda d: d.loss == "cosine_embedding_loss" and numbers(d) and d.arguments["input1"].dtype is torch.bool,
        "cosine_embedding_loss", dict(input1=X < 9, input2=X < 9, target=torch.ones(2)),
    ),
    Intended(
        "labels are made int64, complex ones with torch's warning of that",
        lambda d: d.loss == "ctc_loss" and d.what == "warnings" and d.arguments["targets"].is_complex(),
        "ctc_loss", None,
    ),
    Intended(
        "bool tensors hold 0 and 1",
        refusal("the `-` operator"),
        "poisson_nll_loss", dict(input=X > 0, target=X > 0),
    ),
    Intended(
        "dtypes are promoted",
        refusal("Found dtype \\w+ but expected \\w+", "huber_loss", "mse_loss"),  # the second in torch 2.10
        "huber_loss", dict(input=X, target=X.double()),
    ),
    Intended(
        "an integer variance is a number",
        refusal("result type Float can't be cast to the desired output type", "gaussian_nll_loss"),
        "gaussian_nll_loss", dict(input=X, target=X, var=torch.ones(2, 2, dtype=torch.int64)),
    ),
    Intended(
        "integers and a negative margin",
        refusal("value cannot be converted to type uint8_t without overflow", "hinge_embedding_loss"),
        "hinge_embedding_loss", dict(input=BYTES, target=BYTES, margin=-1.0, reduction="none"),
    ),
    Intended(
        "classes of one byte, where torch's batching and meta rules want int64",
        refusal("Expected dtype int32/int64 for index|failed in the TorchScript interpreter", *INDEXED),
        "nll_loss", dict(input=X[None], target=Y.byte()),
        lambda loss, arguments: {"value": torch.vmap(lambda x: loss(x, arguments["target"]))(arguments["input"])},
    ),
    Intended(
        "vmap of a target, a weight or ignored rows",
        refusal("vmap: inplace arithmetic|vmap over `mask` in torch.masked_select", *INDEXED),
        "cross_entropy", dict(input=X, target=Y[None], label_smoothing=0.5, weight=P[0]),
        lambda loss, arguments: {
            "value": torch.vmap(lambda y: loss(**{**arguments, "target": y}))(arguments["target"])},
    ),
    Intended(
        "forward mode with a gradient to follow, where torch writes in place",
        refusal("ZeroTensors are immutable"),
        "binary_cross_entropy_with_logits", dict(input=X, target=P),
        lambda loss, arguments: {"second": torch.func.jacfwd(torch.func.jacfwd(
            lambda x: loss(**{**arguments, "input": x}).sum()))(arguments["input"])},
    ),
    Intended(
        "a gradient swept along by the forward is that of the forward's values, whatever becomes of them",
        refusal("modified by an inplace operation"),
        "mse_loss", dict(input=X.clone(), target=P), spoiled,
    ),
    Intended(
        "an unreduced loss saves its inputs, where torch saves what it has made of them",
        lambda d: d.what == "error" and d.torchs is None and "modified by an inplace operation" in str(d.ours)
        and d.arguments.get("reduction") == "none",
        "margin_ranking_loss", dict(input1=X, input2=P.clone(), target=P, reduction="none"), spoiled_second,
    ),
    Intended(
        "what was made in inference mode is copied where it has to be saved",
        refusal("Inference tensors cannot be saved"),
        "nll_loss", dict(input=X, target=torch.inference_mode()(Y.clone)()),
    ),
    Intended(
        "any memory layout",
        refusal("grad_input must be contiguous", "nll_loss"),
        "nll_loss",
        dict(input=torch.ones(2, 2, 2, 2).mT.contiguous().mT, target=torch.zeros(2, 2, 2, dtype=torch.int64)),
    ),
    Intended(
        "the backward, too, takes the class of a single row in a list of one",
        refusal(r"size mismatch \(got input: \[\d+\], target: \[1\]\)|output with shape \[\] doesn't match", *INDEXED),
        "nll_loss", dict(input=X[0], target=Y[:1]),
    ),
    Intended(
        "vectors without components are at distance 0",
        refusal("cannot compute the .* norm", "triplet_margin_loss"),
        "triplet_margin_loss", dict(anchor=X[:, :0], positive=X[:, :0], negative=X[:, :0], p=float("inf")),
    ),
    # -- where both raise
    Intended(
        "a wrong kind of argument is a TypeError that names it, whatever torch stumbles on",
        lambda d: d.what == "error" and d.torchs is not None and names_the_argument(d),
        "l1_loss", dict(input=X, target=None),
    ),
    Intended(
        "torch looks at the options only where they take effect",
        lambda d: d.what == "error" and d.torchs is None and "argument 'options' must be" in str(d.ours),
        "linear_cross_entropy", dict(input=X, linear_weight=X, target=P, options=1),
    ),
    Intended(
        "an option is a number: no tensor that requires a gradient, which torch loses or takes by chance",
        lambda d: d.what == "error" and d.torchs is None and "must be float, not Tensor" in str(d.ours),
        "gaussian_nll_loss", dict(input=X, target=X, var=P, eps=torch.tensor([0.5])),
    ),
    Intended(
        "nor does a bool stand for a tensor",
        lambda d: d.what == "error" and d.torchs is None and "must be Tensor or float" in str(d.ours),
        "gaussian_nll_loss", dict(input=X, target=np.True_, var=P),
    ),
    Intended(
        "a bool may come from numpy",
        refusal("must be bool, not numpy.bool|invalid combination of arguments - got .*numpy.bool"),
        "poisson_nll_loss", dict(input=X, target=P, full=np.True_),
    ),
    Intended(
        "of two arguments of a wrong dtype either may be named first",
        refusal("NotImplementedError: .* not implemented for '(Int|Long|Byte|Bool|ComplexFloat)'",
                ours="expected scalar type Long but found|expected target dtype to be Long|floating point (d?type)"),
        "multi_margin_loss", dict(input=X.long(), target=Y.int()),
    ),
    Intended(
        "of two arguments whose shapes do not fit either may be named first",
        refusal("size of tensor a|target batch_size|weight tensor should be defined",
                ours="Weights and input must have the same size|weight tensor should be defined"
                     "|var is of incorrect size|no classes"),
        "l1_loss", dict(input=X[:0], target=torch.ones(3, 2), weight=X),
    ),
)  # fmt: skip
