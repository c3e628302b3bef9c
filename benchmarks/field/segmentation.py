"""Overlap losses, on logits or on probabilities."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.field.table import Point, entry

MASK: dict[str, Any] = {"x": (1, 6), "t": torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]])}
SHARES: dict[str, Any] = {
    "x": torch.tensor([[0.7, 0.4, 0.8, 0.3, 0.15, 0.45]], dtype=torch.float64),
    "t": MASK["t"],
}
FIRST: dict[str, Any] = dict(differentiable={"x"})
PROBABILITY: dict[str, Any] = dict(differentiable={"x"}, domain={"x": (0.0, 1.0)})
PIXELS = torch.tensor([[0, 1, 0, 2]])
CLASSES: dict[str, Any] = {"x": (1, 3, 4), "t": PIXELS}


def counts(m: Any, x: Any, t: Any, logits: bool = True) -> Any:
    """True positives, false positives and false negatives, of probabilities."""
    p = m.sigmoid(x) if logits else x
    return (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()


def tversky(m: Any, x: Any, t: Any, over: float, under: float, smooth: float = 0.0, logits: bool = True) -> Any:
    tp, fp, fn = counts(m, x, t, logits)
    return 1 - (tp + smooth) / (tp + over * fp + under * fn + smooth)


def log_dice(m: Any, x: Any, t: Any, eps: float = 0.0) -> Any:
    tp, fp, fn = counts(m, x, t)
    score = m.stack([tp / (tp + fp / 2 + fn / 2)])
    return -m.log(m.maximum(score, score * 0 + eps) if eps else score)


def softmax(m: Any, x: Any) -> Any:
    """Over the classes, the second axis."""
    return m.exp(x - m.logsumexp(x, 1)[:, None])


def one_hot_pixels(m: Any, x: Any, t: Any) -> Any:
    return m.stack([m.one_hot(row, x.swapaxes(1, 2)).T for row in t])


def micro_dice(m: Any, x: Any, t: Any, eps: float = 0.0) -> Any:
    p, one = softmax(m, x), one_hot_pixels(m, x, t)
    return 1 - (2 * (p * one).sum((1, 2)) / (p.sum((1, 2)) + one.sum((1, 2)) + eps)).mean()


def macro_tversky(m: Any, x: Any, t: Any, over: float, under: float, eps: float = 0.0) -> Any:
    """Over the classes that occur."""
    p, one = softmax(m, x), one_hot_pixels(m, x, t)
    scores = []
    for q, o in zip(p, one, strict=True):
        tp, fp, fn = (q * o).sum(-1), (q * (1 - o)).sum(-1), ((1 - q) * o).sum(-1)
        occurs = o.sum(-1) > 0
        scores.append((tp / (tp + over * fp + under * fn + eps))[occurs].mean())
    return 1 - sum(scores) / len(scores)


def lovasz(m: Any, errors: Any, t: Any) -> Any:
    """The Lovász extension of the Jaccard loss."""
    order = sorted(range(len(errors)), key=lambda i: -float(errors[i]))
    total, before, positives = 0, 0.0, float(sum(t))
    missed, extra = 0.0, 0.0
    for i in order:
        missed, extra = missed + float(t[i]), extra + 1 - float(t[i])
        jaccard = (missed + extra) / (positives + extra)
        total, before = total + errors[i] * (jaccard - before), jaccard
    return total


def lovasz_hinge(m: Any, x: Any, t: Any) -> Any:
    return sum(lovasz(m, m.relu(1 - a * (2 * b - 1)), b) for a, b in zip(x, t, strict=True)) / len(x)


def lovasz_softmax(m: Any, x: Any, t: Any) -> Any:
    p, one = softmax(m, x), one_hot_pixels(m, x, t)
    each = [lovasz(m, m.abs(o - q), o) for a, b in zip(p, one, strict=True) for q, o in zip(a, b, strict=True)]
    return sum(each) / len(each)


def matthews(m: Any, x: Any, t: Any, inside: float = 0.0, nr: float = 0.0, dr: float = 0.0) -> Any:
    tp, fp, fn = (c + inside for c in counts(m, x, t, logits=False))
    tn = ((1 - x) * (1 - t)).sum() + inside
    square = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + dr
    return 1 - (tp * tn - fp * fn + nr) * square**-0.5


def generalized_dice(m: Any, x: Any, t: Any) -> Any:
    """Of two classes, x and 1 - x, each weighted by 1 / (its pixels)²; smooth_nr and smooth_dr are 1e-5."""
    p = m.sigmoid(x)
    over: Any = 0
    under: Any = 0
    for q, o in ((p[:, 0], t[:, 0]), (p[:, 1], t[:, 1])):
        weight = 1 / float(o.sum()) ** 2
        over, under = over + weight * (q * o).sum(), under + weight * (q.sum() + o.sum())
    return 1 - (2 * over + 1e-5) / (under + 1e-5)


def giou(m: Any, x: Any, t: Any) -> Any:
    area = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (x, t)]
    sides = [m.relu(m.minimum(x[:, i + 2], t[:, i + 2]) - m.maximum(x[:, i], t[:, i])) for i in (0, 1)]
    hull = [m.maximum(x[:, i + 2], t[:, i + 2]) - m.minimum(x[:, i], t[:, i]) for i in (0, 1)]
    common, around = sides[0] * sides[1], hull[0] * hull[1]
    union = area[0] + area[1] - common
    return (1 - common / union + (around - union) / around).mean()


def wing(m: Any, x: Any, y: Any, width: float = 5.0, curvature: float = 0.5) -> Any:
    d = m.abs(x - y)
    constant = width - width * m.log1p(0 * d + width / curvature)
    return m.where(d < width, width * m.log1p(d / curvature), d - constant).mean()


SATURATED: dict[str, Point] = {
    "all right by 20": Point({"x": [[20.0, -20.0]], "t": [[1.0, 0.0]]}),
    "all wrong by 5": Point({"x": [[-5.0, 5.0]], "t": [[1.0, 0.0]]}),
    "one wrong by 12": Point({"x": [[-12.0, 12.0, 3.0]], "t": [[1.0, 1.0, 0.0]]}),
    "all missed, logits -10": Point({"x": [[-10.0, -10.0]], "t": [[1.0, 0.0]]}),
}
SURE: dict[str, Point] = {
    "half right": Point({"x": [[0.75, 0.25, 0.5]], "t": [[1.0, 0.0, 0.0]]}),
    "all right, probabilities 0 and 1": Point({"x": [[1.0, 0.0]], "t": [[1.0, 0.0]]}),
    "all wrong, probabilities 0 and 1": Point({"x": [[0.0, 1.0]], "t": [[1.0, 0.0]]}),
}
LOGS: dict[str, Point] = {
    "all missed, logits -5": Point({"x": [[-5.0, -5.0]], "t": [[1.0, 0.0]]}),
    "all missed, logits -20": Point({"x": [[-20.0, -20.0]], "t": [[1.0, 0.0]]}),
}
SMP, MONAI, CATALYST, KORNIA = (
    "segmentation_models_pytorch.losses",
    "monai.losses",
    "catalyst.contrib.losses",
    "kornia.losses",
)

for name, over, under in (("DiceLoss", 0.5, 0.5), ("JaccardLoss", 1.0, 1.0), ("TverskyLoss", 0.3, 0.7)):
    entry(
        f"{SMP}:{name}",
        call=lambda f, x, t, over=over, under=under, name=name: f(
            "binary", **(dict(alpha=over, beta=under) if name == "TverskyLoss" else {})
        )(x[:, None], t[:, None]),
        formula=lambda m, x, t, over=over, under=under: tversky(m, x, t, over, under),
        inputs=MASK,
        points=SATURATED,
        options=FIRST,
    )
entry(
    f"{SMP}:DiceLoss",
    variant="log_loss=True",
    call=lambda f, x, t: f("binary", log_loss=True)(x[:, None], t[:, None]).reshape(1),
    formula=log_dice,
    inputs=MASK,
    points=LOGS,
    options=FIRST,
    guard={"eps": 1e-7},
)
entry(
    f"{SMP}:LovaszLoss",
    call=lambda f, x, t, double=False: f("binary")((x.double() if double else x)[:, None], t[:, None]),
    formula=lambda m, x, t, double=False: lovasz_hinge(m, x, t),
    inputs=MASK,
    points={**SATURATED, "float64": Point({"x": [[0.5, -0.25]], "t": [[1.0, 0.0]]}, {"double": True})},
    options=FIRST,
    casts=True,
)
entry(
    f"{SMP}:MCCLoss",
    call=lambda f, x, t: f()(x[:, None], t[:, None]),
    formula=lambda m, x, t: matthews(m, x, t, inside=1e-5, nr=0.0),
    inputs=SHARES,
    points=SURE,
    options=PROBABILITY,
)
for name, over, under in (("DiceLoss", 0.5, 0.5), ("TverskyLoss", 0.3, 0.7)):
    smooth = {"DiceLoss": 0.5e-5, "TverskyLoss": 1e-5}[name]  # Dice: 1e-5 in 2 TP / (2 TP + FP + FN)
    entry(
        f"{MONAI}:{name}",
        call=lambda f, x, t, over=over, under=under, name=name: f(
            sigmoid=True, **(dict(alpha=over, beta=under) if name == "TverskyLoss" else {})
        )(x[:, None], t[:, None]),
        formula=lambda m, x, t, over=over, under=under, smooth=smooth: tversky(m, x, t, over, under, smooth),
        inputs=MASK,
        points=SATURATED,
        options=FIRST,
    )
entry(
    f"{MONAI}:GeneralizedDiceLoss",
    call=lambda f, x, t: f(sigmoid=True)(x, t),
    formula=generalized_dice,
    inputs={"x": (1, 2, 4), "t": torch.tensor([[[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]])},
    points={
        "right by 12": Point({"x": [[[12.0, -12.0], [-12.0, 12.0]]], "t": [[[1.0, 0.0], [0.0, 1.0]]]}),
        "wrong by 5": Point({"x": [[[-5.0, 5.0], [5.0, -5.0]]], "t": [[[1.0, 0.0], [0.0, 1.0]]]}),
    },
    options=FIRST,
    casts=True,
)
entry(
    f"{MONAI}:MCCLoss",
    call=lambda f, x, t: f()(x[:, None], t[:, None]),
    formula=lambda m, x, t: matthews(m, x, t, nr=0.0, dr=1e-5),
    inputs=SHARES,
    points={k: p for k, p in SURE.items() if "all right" not in k},
    options=PROBABILITY,
)
BOXES = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 4.0, 3.0]], dtype=torch.float64)
entry(
    f"{MONAI}:BoxGIoULoss",
    call=lambda f, x, t: f()(x, t),
    formula=giou,
    inputs={"x": BOXES, "t": torch.tensor([[0.5, 0.25, 3.0, 2.5], [1.5, 0.5, 3.5, 3.5]], dtype=torch.float64)},
    points={
        "far apart": Point({"x": [[0.0, 0.0, 1.0, 1.0]], "t": [[1000.0, 0.0, 1001.0, 1.0]]}, kink=True),
        "small and far from the origin": Point(
            {"x": [[1000.0, 1000.0, 1001.0, 1001.0]], "t": [[1000.25, 1000.25, 1001.5, 1001.5]]}
        ),
    },
    single=True,
)
for name, over, under in (("DiceLoss", 0.5, 0.5), ("IoULoss", 1.0, 1.0), ("TrevskyLoss", 0.7, 0.3)):
    entry(
        f"{CATALYST}:{name}",
        call=lambda f, x, t, name=name: f(**({"alpha": 0.3} if name == "TrevskyLoss" else {}))(x[:, None], t[:, None]),
        formula=lambda m, x, t, over=over, under=under, name=name, eps=0.0: catalyst(m, x, t, over, under, name, eps),
        inputs=SHARES,
        points=SURE,
        options=PROBABILITY,
        guard={"eps": 1e-7},
    )


def catalyst(m: Any, x: Any, t: Any, over: float, under: float, name: str, eps: float) -> Any:
    """eps is in the denominator only, of 2 TP + FP + FN for Dice."""
    tp, fp, fn = counts(m, x, t, logits=False)
    return 1 - tp / (tp + over * fp + under * fn + (eps / 2 if name == "DiceLoss" else eps))


entry(
    f"{CATALYST}:WingLoss",
    call=lambda f, x, y: f()(x, y),
    formula=wing,
    inputs={"x": (6,), "y": (6,)},
    points={f"difference {d:g}": Point({"x": [d], "y": [0.0]}) for d in (1e-5, 0.01, 1.0, 100.0)},
    by=("x", "y"),
)
OF_CLASSES = {
    "wrong by 12": Point({"x": [[[-12.0, 0.5], [0.0, 0.0], [0.0, 1.0]]], "t": [[0, 1]]}),
    "right by 20": Point({"x": [[[20.0, 0.0], [0.0, 20.0], [0.0, 0.0]]], "t": [[0, 1]]}),
}
entry(
    f"{KORNIA}:dice_loss",
    call=lambda f, x, t: f(x[..., None], t[..., None]),
    formula=micro_dice,
    inputs=CLASSES,
    points=OF_CLASSES,
    options=FIRST,
    guard={"eps": 1e-8},
)
LABELS = torch.arange(2 * 5600).reshape(2, 5600) * 7 % 3
entry(
    f"{KORNIA}:dice_loss",
    variant="2¹⁵ values",  # from where on another path is taken
    call=lambda f, x, t: f(x[..., None], t[..., None]),
    formula=micro_dice,
    inputs={"x": (2, 3, 5600), "t": LABELS},
    points={},
    options={**FIRST, "checks": ("definition", "differences", "second", "layout", "purity")},
    guard={"eps": 1e-8},
)
entry(
    f"{KORNIA}:tversky_loss",
    call=lambda f, x, t: f(x[..., None], t[..., None], 0.3, 0.7),
    formula=lambda m, x, t, eps=0.0: macro_tversky(m, x, t, 0.3, 0.7, eps),
    inputs=CLASSES,
    points=OF_CLASSES,
    options=FIRST,
    guard={"eps": 1e-8},
)
entry(
    f"{KORNIA}:lovasz_hinge_loss",
    call=lambda f, x, t: f(x[:, None, :, None], t[..., None]),
    formula=lovasz_hinge,
    inputs=MASK,
    points=SATURATED,
    options=FIRST,
)
entry(
    f"{KORNIA}:lovasz_softmax_loss",
    call=lambda f, x, t: f(x[..., None], t[..., None]),
    formula=lovasz_softmax,
    inputs=CLASSES,
    points={"one class certain": Point({"x": [[[12.0, 0.5], [0.0, 0.0], [0.0, 1.0]]], "t": [[0, 1]]})},
    options=FIRST,
)
