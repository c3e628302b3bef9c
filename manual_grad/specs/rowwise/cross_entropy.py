"""Cross entropy of logits: class indices or probabilities, class weights, ignored rows, label smoothing."""

from __future__ import annotations

import math

import torch
from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise.cross_entropy import cross_entropy
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 15, 20, 40, 80)


def definition(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    dim = 1 if input.dim() > 1 else 0
    classes = input.shape[dim]
    w = input.new_ones(classes) if weight is None else weight
    kept, total = torch.ones((), dtype=torch.bool), None
    if not target.is_floating_point():
        kept = target != ignore_index
        target = torch.where(kept, target, 0).long()
        total = torch.where(kept, w[target], 0.0).sum()
        target = F.one_hot(target, classes).movedim(-1, dim).to(input.dtype)
    target = (1 - label_smoothing) * target + label_smoothing / classes
    rows = -(target * input.log_softmax(dim)).movedim(dim, -1) @ w
    return reduce(torch.where(kept.to(rows.device), rows, 0.0), reduction, total)


def oracle(input, target, weight=None, ignore_index=-100, label_smoothing=0, **_):
    w = weight or [1] * len(input)
    share = 1
    if not isinstance(target, list):
        if target == ignore_index:
            return 0, 0
        share = w[target]
        target = [int(c == target) for c in range(len(input))]
    lse = log(sum(map(exp, input)))
    smooth = [(1 - label_smoothing) * t + label_smoothing / len(input) for t in target]
    return sum(wc * t * (lse - z) for wc, t, z in zip(w, smooth, input, strict=True)), share


def probabilities(draw, *shape):
    return draw.uniform(*shape, low=0.1, high=0.4)


def confident(gap, right=True, scale=1.0):
    """Logits where the target class, or the one after it, leads by a gap."""

    def sample(draw):
        target = draw.integers(3, high=5)
        leader = target if right else (target + 1) % 5
        lead = gap * F.one_hot(leader, 5)
        return dict(input=draw.normal(3, 5, scale=scale) + draw.tensor(lead.double()), target=target)

    return sample


def soft(gap):
    def sample(draw):
        lead = gap * F.one_hot(draw.integers(3, high=5), 5)
        return dict(input=draw.normal(3, 5) + draw.tensor(lead.double()), target=probabilities(draw, 3, 5))

    return sample


def symbols(draw, input, target, weight=None, ignore_index=-100, label_smoothing=0.0, **_):
    if target == ignore_index:
        return None
    classes = range(len(input))
    t = target if isinstance(target, list) else [float(c == target) for c in classes]
    direction = {rf"\dot {x}": draw.normal(len(input)).tolist() for x in "ztw"}
    return {"z": input, "t": t, "w": weight or [1.0 for _ in classes], r"\varepsilon": label_smoothing,
            "k": max(classes, key=input.__getitem__), "C": len(input), **dict.fromkeys("cij", Each(classes)),
            **direction}  # fmt: skip


def large(numel):
    classes = 32768
    z = torch.empty(numel // classes, classes, dtype=torch.bfloat16, device="cuda").normal_()
    return {"input": z, "target": torch.arange(len(z), device="cuda") % classes}, 8


SPEC = Spec(
    large=large,
    fn=cross_entropy,
    inputs=(
        Input("input"),
        Input("target", domain=UNIT),
        Input("weight", differentiable=lambda target, **_: target.is_floating_point(), batch=None),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none"),
        dict(reduction="sum"),
        dict(reduction="mean", label_smoothing=0.125),
        dict(reduction="none", label_smoothing=0.125),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 5), target=draw.integers(3, high=5)),
        "weighted": lambda draw: dict(input=draw.normal(3, 5), target=draw.integers(3, high=5),
                                      weight=draw.uniform(5, low=0.5)),
        "ignored": lambda draw: dict(input=draw.normal(4, 5), target=draw.tensor([2, 1, 0, 2]), ignore_index=2,
                                     weight=draw.uniform(5, low=0.5)),
        "probabilities": lambda draw: dict(input=draw.normal(3, 4), target=probabilities(draw, 3, 4)),
        "weighted probabilities": lambda draw: dict(input=draw.normal(3, 4), target=probabilities(draw, 3, 4),
                                                    weight=draw.uniform(4, low=0.5)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.integers(2, 2, 2, high=3)),
        "image of probabilities": lambda draw: dict(
            input=draw.normal(2, 3, 2, 1), target=probabilities(draw, 2, 3, 2, 1), weight=draw.uniform(3, low=0.5)),
        "unbatched": lambda draw: dict(input=draw.normal(5), target=draw.integers(high=5)),
        "unbatched probabilities": lambda draw: dict(input=draw.normal(5), target=probabilities(draw, 5)),
        "bytes": lambda draw: dict(input=draw.normal(3, 5), target=draw.integers(3, high=5).byte()),
        "all smooth": lambda draw: dict(input=draw.normal(3, 5), target=draw.integers(3, high=5), label_smoothing=1.0),
        "one class": lambda draw: dict(input=draw.normal(3, 1), target=probabilities(draw, 3, 1)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in GAPS},
        **{f"soft {gap}": soft(gap) for gap in (20, 80)},
        "tiny": confident(0, scale=1e-30),
        "saturated": confident(1e4),
        "huge": confident(0, scale=1e30),
        "offset": lambda draw: dict(input=1e6 + draw.normal(3, 5), target=draw.integers(3, high=5)),
        "tied leaders": lambda draw: dict(input=draw.tensor([[9.0, 9.0, -30.0], [0.0, 0.0, 0.0]]),
                                          target=draw.tensor([0, 1])),
        "weighted, confident": lambda draw: {**confident(20)(draw), "weight": draw.uniform(5, low=0.01)},
    },
    pins=(
        Pin(dict(input=[[1.0, 2.0]], target=[-100], reduction="mean"), "all rows ignored: value 0 / 0, gradient 0",
            value=NAN, gradient=dict(input=[[0.0, 0.0]])),
        Pin(dict(input=[[1.0, 2.0], [NAN, INF]], target=[-100, -100], reduction="sum"),
            "the contents of an ignored row do not matter", value=0.0, gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]])),
        Pin(dict(input=[[0.0, 0.0], [0.0, 0.0]], target=[0, 1], weight=[NAN, 1.0], reduction="none"),
            "a NaN or infinite weight affects only its class",
            value=[NAN, math.log(2)], gradient=dict(input=[[NAN, NAN], [0.5, -0.5]])),
        Pin(dict(input=[[0.0, -INF, 0.0]], target=[0], reduction="sum"), "an impossible class that is not the target",
            value=0.6931471805599453, gradient=dict(input=[[-0.5, 0.0, 0.5]])),
        Pin(dict(input=[[0.0, -INF]], target=[1], reduction="sum"), "an impossible class that is the target",
            value=INF),
        Pin(dict(input=[[0.0, -INF]], target=[1], weight=[1.0, 0.0], reduction="sum"),
            "an impossible class with weight 0: 0 log 0 = 0", value=0.0, gradient=dict(input=[[0.0, 0.0]])),
        Pin(dict(input=[[], []], target=[-100, -100]), "no classes, and all rows ignored", value=NAN),
        Pin(dict(input=[[], []], target=[-100, -100], reduction="none"), "no classes, and all rows ignored",
            value=[0.0, 0.0]),
        Pin(dict(input=[[1.0, 1.0], [0.0, 0.0]], target=[0, 1], label_smoothing=-0.5, reduction="sum"),
            "negative smoothing counts as 0, as in torch", value=2 * math.log(2),
            gradient=dict(input=[[-0.5, 0.5], [0.5, -0.5]])),
        Pin(dict(input=[[0.0, 1.0, 0.0]], target=[1], weight=[INF, 1.0, 1.0], label_smoothing=0.5, reduction="none"),
            "an infinite weight affects every class but its own", value=[INF], gradient=dict(input=[[NAN, INF, INF]])),
        Pin(dict(input=[[0.0, 1.0]], target=[[1.0, INF]], reduction="none"), "likewise an infinite target", value=[INF],
            gradient=dict(input=[[INF, NAN]])),
        Pin(dict(input=[[[0.0], [0.0]]], target=[[1]], weight=[[3.0, 5.0]], reduction="none"),
            "for images, class weights may have any shape, as in torch", value=[[5 * math.log(2)]]),
        Pin(dict(input=[[NAN, 0.0]], target=[1], reduction="none"), "NaN in a row makes the row NaN", value=[NAN]),
    ),
    errors=(
        Error(dict(target=lambda target, **_: target + 5), IndexError, r"[Tt]arget \d+ is out of bounds"),
        Error(dict(target=lambda target, **_: -1 - target), IndexError, r"[Tt]arget -\d+ is out of bounds"),
        Error(dict(target=lambda target, **_: 0 * target + 5), IndexError, "[Tt]arget 5 is out of bounds"),
        Error(dict(target=lambda target, **_: 0 * target - 1), IndexError, "[Tt]arget -1 is out of bounds"),
        Error(dict(target=lambda target, **_: target[:2]), ValueError, r"batch_size .*target batch_size"),
        Error(dict(target=lambda target, **_: target[:, None]), RuntimeError, r"is it target.squeeze\(1\)"),
        Error(dict(target=lambda target, **_: target[:, None].expand(-1, 2)), RuntimeError, r"shape \[3, 2\]$"),
        Error(dict(input=lambda input, **_: input[:, None], target=lambda target, **_: target[:, None]), RuntimeError,
              "are the classes last"),
        Error(dict(input=lambda input, **_: input[:, None], target=lambda target, **_: target[:, None].expand(-1, 2)),
              RuntimeError, r"for an input of size \[3, 1, 5\]$"),
        Error(dict(target=lambda target, **_: target.int()), RuntimeError, "target dtype"),
        Error(dict(target=lambda input, **_: input.long()), RuntimeError, "floating point type for target"),
        Error(dict(target=lambda target, **_: target[None]), ValueError, "target batch_size"),
        Error(dict(target=lambda input, **_: input.softmax(1), ignore_index=1), RuntimeError, "ignore_index"),
        Error(dict(label_smoothing=1.5), RuntimeError, "label_smoothing"),
        Error(dict(weight=lambda input, **_: input[0, :2]), RuntimeError, "weight"),
        Error(dict(weight=lambda input, **_: input[0].float()), RuntimeError, "expected scalar type|weight"),
        Error(dict(ignore_index=1.5), TypeError, "ignore_index"),
        Error(dict(input=lambda input, **_: input[0, 0]), IndexError, "[Dd]imension"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "logit of the target; the others are 0 and the rival's",
    (-6, 8),
    lambda s, rival, label_smoothing: dict(
        input=curves.rows(s, s, 0, rival), target=curves.classes(s, 0), label_smoothing=label_smoothing
    ),
    {
        "rival": curves.Slider("rival, the logit of another class", 0.0, -2.0, 4.0, 1.0),
        "label_smoothing": curves.SMOOTHING,
    },
)
