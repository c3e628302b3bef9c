"""Fuzz every functional: on unusual arguments, results and errors must agree with torch's and with the formulas.

``MANUAL_GRAD_FUZZ=5000`` runs that many examples per functional, instead of the same few every time;
``--hypothesis-seed`` then selects them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import manual_grad.functional as M
import strategies
from calls import FUNCTIONALS
from manual_grad import kernels
from manual_grad.engine import older_torch
from strategies import HALVES, REDUCTIONS, Draw, described

EXAMPLES = int(os.environ.get("MANUAL_GRAD_FUZZ", "0"))
# relative to the largest entry, because the fuzzer looks for values from the wrong place; torch's 1e-12 is a float32
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
FEWEST_DIGITS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)

Arguments = dict[str, Any]
calls = dict.fromkeys(M.__all__, 0)  # calls of our functionals; a call with its backward counts once


@dataclass
class Outcome:
    """The outcome of a call and its backward."""

    value: Tensor | None = None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    error: Exception | None = None
    backward_error: Exception | None = None


def outcome(function: Callable[..., Tensor], arguments: Arguments, upstream: Callable[[Tensor], Tensor]) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = function(**arguments)
        except Exception as error:
            return Outcome(error=error)
        leaves = {k: t for k, t in tensors_of(arguments).items() if t.requires_grad}
        if not (leaves and value.requires_grad):
            return Outcome(value.detach(), dict.fromkeys(leaves))
        try:
            found = torch.autograd.grad(value, list(leaves.values()), upstream(value), allow_unused=True)
        except Exception as error:
            return Outcome(value.detach(), backward_error=error)
        return Outcome(value.detach(), dict(zip(leaves, found, strict=True)))


def tensors_of(arguments: Arguments) -> dict[str, Tensor]:
    return {k: t for k, t in arguments.items() if isinstance(t, Tensor)}


def widened(arguments: Arguments) -> Arguments:
    def wide(t: Any) -> Any:
        if isinstance(t, Tensor) and t.is_floating_point():
            return t.detach().double().requires_grad_(t.requires_grad)
        return t

    return {k: wide(t) for k, t in arguments.items()}


# -- where torch is not the reference

# the README: "a gradient for each input that torch differentiates, and for some that torch does not"
MORE_GRADIENTS = {
    ("binary_cross_entropy", "weight"),
    ("binary_cross_entropy_with_logits", "weight"),
    ("binary_cross_entropy_with_logits", "pos_weight"),
    ("soft_margin_loss", "target"),
}
ROWWISE = {"cross_entropy", "linear_cross_entropy"}
CLASS_MARGIN = {"multi_margin_loss", "multilabel_margin_loss"}
MORE_DTYPES = {*CLASS_MARGIN, "ctc_loss"}  # on the CPU, torch has no bfloat16 and float16 for these


def classes_of(name: str, call: Arguments) -> int | None:
    """The number of classes that an index may select from."""
    if name == "linear_cross_entropy":
        return len(call["linear_weight"]) if call["linear_weight"].dim() else None
    x = call.get("input")
    return x.shape[min(1, x.dim() - 1)] if name in ("nll_loss", "cross_entropy") and x.dim() else None


def refused(name: str, call: Arguments, theirs: Exception | None) -> type[Exception] | None:
    """The error that we raise where torch raises none, or a different one."""
    target = call.get("target")
    if name in CLASS_MARGIN and not target.numel() and target.dtype is not torch.int64 and theirs is None:
        return RuntimeError  # torch accepts any shape without labels
    bias = call.get("linear_bias")
    if name == "linear_cross_entropy" and bias is not None and bias.dtype is not call["input"].dtype and theirs is None:
        return RuntimeError  # for a single row torch promotes it, for several it raises as we do
    weight = call.get("weight")
    if name == "nll_loss" and weight is not None and weight.dim() != 1 and theirs is None:
        return RuntimeError  # torch only checks the number of weights
    if name in CLASS_MARGIN and not call["input"].numel() and weight is not None and theirs is None:
        return RuntimeError if weight.dtype is not call["input"].dtype else None  # torch has not checked it yet
    if isinstance(theirs, UnicodeDecodeError):
        return IndexError  # torch prints a wrong uint8 index as a character
    positions = call["linear_weight"].dim() - 2 if name == "linear_cross_entropy" else 0
    rows = rows_without_classes(name, call) == "some"
    if (
        rows
        and target.dim() == max(call["input"].dim() - 1, 0) + positions
        and type(theirs) in (type(None), RuntimeError, IndexError)
    ):
        return IndexError  # without classes, every index is out of range
    return None


def rows_without_classes(name: str, call: Arguments) -> str:
    """Whether there are rows but no classes, and if so, whether all rows are ignored or some count."""
    if classes_of(name, call) != 0 or not call["target"].numel():
        return "none"
    ignore_index = call.get("ignore_index")
    kept = call["target"] != (-100 if ignore_index is None else ignore_index)
    return "some" if kept.any() else "ignored"


def accepted(name: str, call: Arguments, theirs: Exception | None) -> bool:
    """Whether we accept what torch rejects, or report the other one of two faults."""
    if theirs is None:
        return False
    weight = call.get("weight")
    if name in ("l1_loss", "mse_loss", "huber_loss") and weight is not None and weight.shape != call["input"].shape:
        return True
    if name in ("cross_entropy", "nll_loss") and (call["target"].dim() == 0 or call["target"].dtype is not torch.int64):
        return True
    if name == "cross_entropy" and call["input"].dim() == 1 and "doesn't match the broadcast shape" in str(theirs):
        return True  # one row with a target of shape (1,), which torch accepts unless it smooths labels
    if name == "linear_cross_entropy" and call["target"].is_floating_point() and "target dtype" in str(theirs):
        return True  # probabilities for a different number of classes
    if name == "linear_cross_entropy" and call["target"].dim() == 0:
        return "tensor has no dimensions" in str(theirs)
    if name == "linear_cross_entropy" and weight is not None and weight.shape != (classes_of(name, call),):
        return "batch_size" in str(theirs)  # the target is wrong, too
    if name in ("cross_entropy", "nll_loss", "linear_cross_entropy"):
        if rows_without_classes(name, call) == "ignored":  # torch needs at least one class to reshape an image
            return "size mismatch" in str(theirs)
        # for rows with positions, torch accepts only int64
        wanted = re.search("Long but found Byte|Expected dtype int32/int64", str(theirs))
        return call["target"].dtype is torch.uint8 and wanted is not None
    if name.startswith("triplet"):  # the norm of an empty vector is 0 for any degree
        return "this dimension is empty" in str(theirs)
    return False


def unsafe(name: str, call: Arguments) -> bool:
    """Whether torch would read out of bounds: its ctc_loss does not check labels, and checks lengths only partly."""
    if name != "ctc_loss":
        return False
    x, targets = call["log_probs"], call["targets"]
    lengths = [torch.as_tensor(call[k]).flatten() for k in ("input_lengths", "target_lengths")]
    if any(n.is_floating_point() for n in lengths):
        return True
    frames, labels = (n.tolist() for n in lengths)
    if x.dim() == 2:
        x = x.unsqueeze(1)
    if x.dim() != 3 or not x.numel() or not 1 <= targets.dim() <= 2 or not len(frames) == len(labels) == x.shape[1]:
        return True
    if not (all(0 <= n <= len(x) for n in frames) and all(0 <= n <= targets.shape[-1] for n in labels)):
        return True
    if targets.dim() == 1:
        spoken = targets if len(targets) == sum(labels) else None
    else:
        rows = [row[:n] for row, n in zip(targets, labels, strict=False)]
        spoken = torch.cat(rows) if len(targets) == x.shape[1] else None
    return spoken is None or bool(((spoken < 0) | (spoken >= x.shape[2])).any())


def result_type(name: str, call: Arguments, theirs: torch.dtype) -> torch.dtype:
    if name == "binary_cross_entropy_with_logits":  # torch uses the dtype of the target alone
        tensors = [*tensors_of(call).values()]
        for t in [t for t in tensors if t.dim()] or tensors:
            theirs = torch.promote_types(theirs, t.dtype)
    return theirs


def excused(name: str, call: Arguments, value: Tensor) -> Tensor:
    """Which losses of reduction 'none' differ from torch's on purpose, given torch's."""
    nothing = torch.zeros(value.shape, dtype=torch.bool)
    if meaningless(name, call):
        return ~nothing
    x, t = (call.get(k) for k in ("input", "target"))
    if name == "ctc_loss":  # also for a label that no path has reached yet
        return ~nothing if holds_nan(call) else nothing
    if name == "binary_cross_entropy_with_logits":
        return value.isnan() & (x == -torch.inf)  # the limit
    if name == "multilabel_soft_margin_loss":
        return value.isnan() & x.isinf().any()
    if name == "soft_margin_loss":
        return value.isinf()  # it overflows
    if name == "huber_loss":  # delta |x - t| minus half delta squared
        return value.isnan() & (x - t).isinf() & torch.tensor(call["delta"] == torch.inf)
    if name == "kl_div":  # 0 log 0; and an infinite probability
        return value.isnan() & ((t == 0) & (not call["log_target"]) | t.isinf())
    if name == "poisson_nll_loss":
        if call["log_input"]:
            return value.isnan() & (x == -torch.inf) & (t == 0)
        # an infinite count times a logarithm that is 0, but not exactly so in float64
        return value.isnan() & (x + call["eps"] == 0) & (t == 0) | t.isinf() & (x.float() + call["eps"] == 1)
    if name == "hinge_embedding_loss":  # if a target counts as both, x + max(0, m - x) has the limit m
        return value.isnan() & (x == -torch.inf)
    if name in ("l1_loss", "mse_loss") and call.get("weight") is not None and x.shape != value.shape:
        # torch sums the weights before broadcasting them
        return ~nothing if call["reduction"] == "mean" else nothing
    if name in CLASS_MARGIN:  # torch loses NaNs, including that of inf - inf
        return ~x.isfinite().all(-1).view(value.shape)
    if name == "cross_entropy":  # 0 log 0
        return value.isnan() & (x == -torch.inf).any(min(1, x.dim() - 1))
    if name == "linear_cross_entropy":
        return value.isnan() & ~torch.stack([u.isfinite().all() for u in tensors_of(call).values()]).all()
    if name.startswith("triplet") and len({call[k].shape[-1:] for k in ("anchor", "positive", "negative")}) > 1:
        return ~nothing  # torch computes these itself, in float16 without widening
    if name == "cosine_embedding_loss" and call["input1"].shape[-1] != call["input2"].shape[-1]:
        return ~nothing  # torch computes the norm of a vector before broadcasting it
    return nothing


def open_to_choice(
    name: str, call: Arguments, value: Tensor, argument: str, gradient: Tensor, ours: Tensor | None
) -> Tensor:
    """Where our gradient of an argument may differ from torch's, given torch's gradient and losses."""
    t = call[argument]
    # where the loss itself is NaN or differs from torch's, accept any gradient
    wrong = of_rows(name, call, value.isnan() | excused(name, call, value), t)
    lost = gradient.isnan()
    if name in ("cosine_embedding_loss", "margin_ranking_loss", *ROWWISE) or name.startswith("triplet"):
        # torch multiplies 0 by infinity or by an ignored NaN, also for the distance that swap discards
        wrong = wrong | lost & of_rows(name, call, (value == 0) | value.isinf(), t)
    if not value.numel():  # an empty gradient
        wrong = wrong | lost
    if argument == "target" and name == "binary_cross_entropy":
        certain = (call["input"] == 0) | (call["input"] == 1)  # there the slope is clamped at 100
        wrong = wrong | certain.sum_to_size(t.shape) > 0
    if argument == "target" and name == "poisson_nll_loss":
        wrong = wrong | lost & (t <= 1)  # torch masks it after it has become NaN
    if argument == "target" and name == "kl_div":
        wrong = wrong | lost & ((t == 0) | ~t.isfinite())
    if argument == "var":
        wrong = wrong | ~t.isfinite()
    if name == "ctc_loss":
        wrong = wrong | lost & (t == -torch.inf)  # torch's inf - inf
    if ours is not None and t.dtype is torch.float16 and t.numel() < value.numel():
        wrong = wrong | ~ours.isfinite()  # terms may overflow before they are summed; in float64 they do not
    if name == "ctc_loss" and (call["targets"] == call["blank"]).any():
        return torch.ones_like(wrong)  # torch loses paths through a last label that is the blank
    return wrong


def meaningless(name: str, call: Arguments) -> bool:
    """Whether a probability or its weight is infinite: then inf - inf depends on the order of operations."""
    if name == "ctc_loss":
        return bool((call["log_probs"] == torch.inf).any())
    if name in ("binary_cross_entropy_with_logits", "multilabel_soft_margin_loss", *ROWWISE):
        factors = (call.get(k) for k in ("target", "weight", "pos_weight"))
        return any(t.isinf().any() for t in factors if t is not None and t.is_floating_point())
    return False


def of_rows(name: str, call: Arguments, rows: Tensor, t: Tensor) -> Tensor:
    """Which entries of an argument affect one of these losses."""
    if name in ("cross_entropy", "nll_loss") and t is call["input"] and t.dim():
        rows = rows.unsqueeze(min(1, t.dim() - 1))
    elif name == "ctc_loss" and rows.dim():
        rows = rows[:, None]
    elif name.startswith(("multi", "triplet", "cosine")):
        rows = rows.unsqueeze(-1) if t.dim() else rows
    try:
        every = rows.expand(torch.broadcast_shapes(rows.shape, t.shape))
        return every.double().sum_to_size(t.shape) > 0
    except RuntimeError:  # a class weight or a matrix
        return rows.any().expand(t.shape)


# -- comparisons


def differences(
    label: str, a: Tensor | None, b: Tensor | None, dtype: torch.dtype, bound: float, wrong: Tensor | None = None
) -> Iterator[str]:
    """Compare ``a``, computed in ``dtype``, with ``b``, possibly in float64; entries in ``wrong`` are skipped."""
    if a is None or b is None:
        present = b if a is None else a
        if present is not None and present.any():
            yield f"{label}: {a} against {b}"
        return
    if a.shape != b.shape:
        yield f"{label}: shape {tuple(a.shape)} against {tuple(b.shape)}"
        return
    if a.dtype is not dtype:
        yield f"{label}: {a.dtype} instead of {dtype}"
        return
    if wrong is not None and wrong.all():
        return
    largest, a, b = torch.finfo(dtype).max, a.double(), b.double()
    b = torch.where(b.abs() > largest, b.sign() * torch.inf, b)
    near = (a.abs() > 0.99 * largest) & (b.abs() > 0.99 * largest) & (a.sign() == b.sign())
    different = ~(((a - b).abs() <= bound) | near | (a.isnan() & b.isnan()))
    if wrong is not None:
        different &= ~wrong
    if different.any():
        yield f"{label}: {a[different][:5].tolist()} against {b[different][:5].tolist()}"


def largest(*tensors: Tensor | None) -> float:
    finite = [t[t.isfinite()].abs().double() for t in tensors if t is not None]
    return max((float(t.max()) for t in finite if t.numel()), default=0.0)


def bound(dtype: torch.dtype, exact: Tensor | None, theirs: Tensor | None = None, scale: float = 0.0) -> float:
    """The tolerance: a fraction of the largest entry, and a few times torch's own error in that dtype."""
    error = 0.0
    if theirs is not None and exact is not None and theirs.shape == exact.shape:
        error = largest(theirs.double() - exact.double())
    least = max(1e-12, torch.finfo(dtype).smallest_normal)
    return TOLERANCE[dtype] * max(largest(exact), scale) + 4 * error + least


def precision(call: Arguments) -> torch.dtype:
    """The least precise dtype among the arguments."""
    return min((t.dtype for t in tensors_of(call).values() if t.is_floating_point()), key=FEWEST_DIGITS.index)


def against_formulas(name: str, call: Arguments, ours: Outcome, formulas: Outcome, scale: float) -> Iterator[str]:
    if ours.error or formulas.error:
        if type(ours.error) is not type(formulas.error):
            yield f"raises {ours.error!r} against {formulas.error!r}"
        return
    digits = precision(call)
    wrong = torch.tensor(meaningless(name, call) or (name == "ctc_loss" and holds_nan(call)))
    tolerance = bound(digits, formulas.value, scale=scale)
    yield from differences("value", ours.value, formulas.value, formulas.value.dtype, tolerance, wrong)
    if ours.backward_error or formulas.backward_error:
        if type(ours.backward_error) is not type(formulas.backward_error):
            yield f"backward raises {ours.backward_error!r} against {formulas.backward_error!r}"
        return
    for k, d in formulas.gradients.items():
        tolerance = bound(digits, d, scale=cancelling(name, call, k))
        open_ = wrong
        if d is not None and name.startswith("triplet"):
            open_ = wrong | of_rows(name, call, undecided(call), call[k])
        yield from differences(f"gradient of {k}", ours.gradients[k], d, call[k].dtype, tolerance, open_)


def undecided(call: Arguments) -> Tensor:
    """The triplets whose distances to the negative are equal in float32, in which formulas compute half dtypes."""
    if not call.get("swap") or precision(call) not in HALVES:
        return torch.tensor(False)
    a, p, n = (call[k].detach().double() for k in ("anchor", "positive", "negative"))
    if not n.numel() or not n.dim():
        return torch.tensor(False)
    distances = [torch.nn.functional.pairwise_distance(u, n, call.get("p", 2.0)) for u in (a, p)]
    return (distances[0] - distances[1]).abs() <= 1e-6 * distances[0]


def against_torch(
    name: str, call: Arguments, ours: Outcome, theirs: Outcome, exact: Outcome, scale: float, values: Tensor | None
) -> Iterator[str]:
    """``values`` are torch's losses with reduction 'none'."""
    refusal = refused(name, call, theirs.error)
    if refusal is not None:
        if type(ours.error) not in (refusal, type(theirs.error)):
            yield f"raises {ours.error!r}, not {refusal.__name__}"
        return
    if ours.error or theirs.error:
        # either of two faults may be reported
        both = ours.error and re.search("not differentiable with respect to|var has negative", str(theirs.error))
        if type(ours.error) is not type(theirs.error) and not (both or accepted(name, call, theirs.error)):
            yield f"raises {ours.error!r} against {theirs.error!r}"
        return
    if classes_of(name, call) == 0 or values is None:  # torch divides by it
        return
    digits = precision(call)
    wrong = excused(name, call, values)
    if call["reduction"] != "none":
        wrong = wrong.any() if wrong.numel() or name not in CLASS_MARGIN else torch.tensor(True)
    dtype = result_type(name, call, theirs.value.dtype)
    if digits in HALVES and call.get("distance_function") is not None:  # the rounded distances cancel
        return
    tolerance = bound(digits, exact.value, theirs.value, scale)
    yield from differences("value", ours.value, exact.value, dtype, tolerance, wrong)
    if ours.backward_error and not theirs.backward_error:
        yield f"backward raises {ours.backward_error!r}"
    if ours.backward_error or theirs.backward_error or exact.backward_error:
        return
    for k, d in ours.gradients.items():
        if (name, k) in MORE_GRADIENTS:
            continue
        c = exact.gradients[k]
        wrong = None if c is None else open_to_choice(name, call, values, k, c, d)
        tolerance = bound(digits, c, theirs.gradients.get(k), cancelling(name, call, k))
        yield from differences(f"gradient of {k}", d, c, call[k].dtype, tolerance, wrong)


def cancelling(name: str, call: Arguments, argument: str) -> float:
    """The size of the terms that cancel in the gradient of a mean's weight or in a matrix product."""
    if name == "cross_entropy" and call["target"].is_floating_point() and argument == "input":
        return largest(call["target"].detach())  # Q p - q
    if name == "linear_cross_entropy":
        return largest(call["input"].detach(), call["linear_weight"].detach())
    if (name, argument) not in (("l1_loss", "weight"), ("mse_loss", "weight")) or call["reduction"] != "mean":
        return 0.0
    x, t, w = (call[k].detach().double() for k in ("input", "target", "weight"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return largest(getattr(torch.nn.functional, name)(x, t, reduction="none") / w.sum())


def of_torch(name: str, call: Arguments, upstream: Callable[[Tensor], Tensor]) -> tuple[Outcome, Outcome]:
    """torch's outcome, and its outcome in float64."""
    function = older_torch.loss(name)
    if name == "ctc_loss":  # torch ignores the stride of concatenated targets
        call = {**call, "targets": call["targets"].contiguous()}
    theirs = outcome(function, call, upstream)
    while found := re.search(r"not differentiable with respect to argument '(\w+)'", str(theirs.error)):
        if (name, found[1]) not in MORE_GRADIENTS:
            break
        call = {**call, found[1]: call[found[1]].detach()}
        theirs = outcome(function, call, upstream)
    first = next(iter(tensors_of(call).values()))
    if name in MORE_DTYPES and "not implemented for" in str(theirs.error) and first.dtype in HALVES:
        weight = call.get("weight")
        if weight is not None and weight.dtype is not first.dtype:  # other dtypes raise an error
            refusal = Outcome(error=RuntimeError("expected one dtype"))
            return refusal, refusal
        exact = outcome(function, widened(call), upstream)
        if exact.value is None:
            return exact, exact
        exact = amended(name, call, exact, upstream)
        return Outcome(exact.value.to(first.dtype), exact.gradients), exact
    if theirs.error:
        return theirs, theirs
    exact = outcome(function, widened(call), upstream)
    return amended(name, call, theirs, upstream), amended(name, call, exact, upstream)


def amended(name: str, call: Arguments, found: Outcome, upstream: Callable[[Tensor], Tensor]) -> Outcome:
    """torch's ctc_loss adds the probabilities to the gradient, which cancel only behind a softmax."""
    d = found.gradients.get("log_probs")
    if d is None:
        return found
    g = upstream(found.value)
    x, lengths = call["log_probs"].detach(), torch.as_tensor(call["input_lengths"]).flatten()
    g = g.double().expand(lengths.shape)
    if call["reduction"] == "mean":
        g = g / (torch.as_tensor(call["target_lengths"]).flatten().clamp(1) * len(lengths))
    spoken = torch.arange(len(x))[:, None] < lengths
    added = torch.where(spoken[..., None], g[:, None] * x.reshape(len(x), len(lengths), -1).exp(), 0).view(x.shape)
    if call["zero_infinity"]:
        settings = {**widened(call), "zero_infinity": False, "reduction": "none"}
        impossible = torch.nn.functional.ctc_loss(**settings).detach().isinf()
        added = torch.where(impossible.view(-1, 1), 0, added.view(len(x), len(lengths), -1)).view(x.shape)
    d = d - added
    return replace(found, gradients={**found.gradients, "log_probs": d})


def holds_nan(call: Arguments) -> bool:
    return bool(call["log_probs"].isnan().any())


def bits(t: Tensor) -> bytes:
    return t.view(torch.uint8).numpy().tobytes()


def problems(name: str, draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[str]:
    """The faults of one call of the loss, with all reductions."""
    ours = getattr(M, name)
    d = Draw(draw)
    d.dtype = d.mostly(torch.float32, torch.float64, *HALVES, weight=2)
    known = hasattr(strategies, name)
    arguments = getattr(strategies, name)(d) if known else strategies.of_spec(name, d)
    tensors = tensors_of(arguments)
    for k, t in tensors.items():
        if t.is_floating_point() and d.mostly(True, False, weight=4):
            arguments[k] = t.detach().requires_grad_()
    seed, factor, stride_0 = d.draw(st.sampled_from(range(100))), d.mostly(1.0, 0.5, -3.0), d.chance(4)

    def upstream(value: Tensor) -> Tensor:
        if stride_0 or value.dim() == 0:
            return torch.full((), factor, dtype=value.dtype).expand(value.shape)
        g = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return g.to(value.dtype)

    before = {k: bits(s) for k, s in d.storages.items()}
    versions = {k: t._version for k, t in tensors.items()}
    found: list[str] = []
    values, scale = None, 0.0
    for reduction in REDUCTIONS:
        call = {**arguments, "reduction": reduction}
        calls[name] += 2
        result = outcome(ours, call, upstream)
        with kernels.switched(False):
            formulas = outcome(ours, call, upstream)
        if reduction == "none" and formulas.value is not None:
            scale = largest(formulas.value)
            if name.startswith("triplet"):  # distances cancel, each known to float32's eps or its own
                eps = torch.finfo(torch.promote_types(d.dtype, torch.float32)).eps
                scale += 100 * eps / TOLERANCE[d.dtype] * largest(*(t.detach() for t in tensors.values()))
        elif reduction == "sum" and values is not None:
            scale *= values.numel()
        found += [f"{reduction}, against formulas: {p}" for p in against_formulas(name, call, result, formulas, scale)]
        if not known:  # to torch
            continue
        if unsafe(name, call):
            if result.error is None:
                found.append(f"{reduction}: was accepted")
            continue
        theirs, exact = of_torch(name, call, upstream)
        values = exact.value if reduction == "none" else values
        rows = against_torch(name, call, result, theirs, exact, scale, values)
        found += [f"{reduction}, against torch: {p}" for p in rows]
    for k, t in tensors.items():
        if bits(d.storages[k]) != before[k] or t._version != versions[k]:
            found.append(f"{k} was written to")
    return [*found, described(arguments)] if found else []


@pytest.mark.parametrize("name", FUNCTIONALS)
@settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_fuzz(name: str, data: st.DataObject) -> None:
    found = problems(name, data.draw)
    assert not found, "\n".join(found)
