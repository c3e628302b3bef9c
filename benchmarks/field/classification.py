"""Losses on logits and on probabilities: focal, asymmetric, poly, label smoothing, divergences, sparse mappings."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.field.table import Point, entry

LABELS, BITS = torch.tensor([0, 2, 1]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
ROWS: dict[str, Any] = {"x": (3, 3), "t": LABELS}
BINARY: dict[str, Any] = {"x": (3, 2), "t": BITS}
FIRST: dict[str, Any] = dict(differentiable={"x"})

# -- formulas


def log_p(m: Any, x: Any, t: Any) -> Any:
    """The log-probability of each row's class under softmax."""
    return (m.one_hot(t, x) * x).sum(-1) - m.logsumexp(x)


def softmax_focal(m: Any, x: Any, t: Any, gamma: float = 2.0) -> Any:
    wrong = m.logsumexp(m.where(m.one_hot(t, x) == 1, x - 1e6, x)) - m.logsumexp(x)
    return (-m.exp(gamma * wrong) * log_p(m, x, t)).mean()


def sigmoid_focal(m: Any, x: Any, t: Any, gamma: float = 2.0, alpha: float | None = None) -> Any:
    u = (2 * t - 1) * x
    loss = m.exp(-gamma * m.softplus(u)) * m.softplus(-u)
    return (loss if alpha is None else (alpha * t + (1 - alpha) * (1 - t)) * loss).mean()


def focal_of_probabilities(m: Any, x: Any, t: Any, gamma: float = 2.0, eps: float = 0.0) -> Any:
    p = (m.one_hot(t, x) * x).sum(-1)
    return ((1 - p) ** gamma * -m.log(p + eps)).mean()


def smoothed(m: Any, x: Any, t: Any, by: float = 0.1) -> Any:
    return ((1 - by) * -log_p(m, x, t) + by * -(x - m.logsumexp(x)[..., None]).mean(-1)).mean()


def soft_cross_entropy(m: Any, x: Any, t: Any) -> Any:
    return -(t * (x - m.logsumexp(x)[..., None])).sum(-1).mean()


def log_softmax(m: Any, x: Any) -> Any:
    return x - m.logsumexp(x)[..., None]


def cross_entropy(m: Any, x: Any, t: Any) -> Any:
    return -log_p(m, x, t).mean()


def asymmetric(m: Any, x: Any, t: Any, eps: float = 0.0) -> Any:
    """ASL: the probability of a negative is shifted by a margin of 0.05 before its log; gamma is 1 and 4."""
    p = m.exp(-m.softplus(-x))
    shifted = m.relu(p - 0.05)
    above = -m.log1p(-m.where(t == 1, 0 * p, shifted)) * shifted**4
    below = (-m.log(m.maximum(p, 0 * p + eps)) if eps else m.softplus(-x)) * m.exp(-m.softplus(x))
    return m.where(t == 1, below, above).sum() / x.shape[0]


def asymmetric_softmax(m: Any, x: Any, t: Any, positive: float = 1.0, negative: float = 4.0, by: float = 0.1) -> Any:
    one = m.one_hot(t, x)
    log = x - m.logsumexp(x)[..., None]
    p = m.exp(log)
    weight = m.where(one == 1, (1 - p) ** positive, p**negative)
    return -((one * (1 - by) + by / x.shape[-1]) * log * weight).sum(-1).mean()


def poly(m: Any, x: Any, t: Any, epsilon: float = 2.0) -> Any:
    log = log_p(m, x, t)
    return (-log + epsilon * (1 - m.exp(log))).mean()


def binary_poly(m: Any, x: Any, t: Any, epsilon: float = 2.0, gamma: float = 0.0) -> Any:
    u = (2 * t - 1) * x
    wrong = m.exp(-m.softplus(u))
    return (m.softplus(-u) * wrong**gamma + epsilon * wrong ** (1 + gamma)).mean()


def two_way(m: Any, x: Any, t: Any, tp: float = 4.0, tn: float = 1.0) -> Any:
    total = 0
    for axis in (0, 1):
        positive = m.logsumexp(m.where(t == 1, -x / tp, x * 0 - 1e4), axis) * tp
        negative = m.logsumexp(m.where(t == 1, x * 0 - 1e4, x / tn), axis) * tn
        total = total + m.softplus(positive + negative).mean()
    return total


def zlpr(m: Any, x: Any, t: Any) -> Any:
    return (
        m.log1p(m.where(t == 1, 0 * x, m.exp(x)).sum(-1)) + m.log1p(m.where(t == 1, m.exp(-x), 0 * x).sum(-1))
    ).mean()


def jensen_shannon_and_cross_entropy(m: Any, x: Any, t: Any, alpha: float = 12.0, splits: int = 3) -> Any:
    n = len(x) // splits
    logs = [x[i * n : (i + 1) * n] - m.logsumexp(x[i * n : (i + 1) * n])[..., None] for i in range(splits)]
    mixture = m.log(sum(m.exp(log) for log in logs) / splits)
    divergence = sum((m.exp(log) * (log - mixture)).sum(-1).mean() for log in logs) / splits
    return -(m.one_hot(t[:n], x) * logs[0]).sum(-1).mean() + alpha * divergence


def kl(m: Any, x: Any, t: Any) -> Any:
    """KL(t ‖ x) of probabilities, row by row."""
    return (t * (m.log(t) - m.log(x))).sum(-1).mean()


def js(m: Any, x: Any, t: Any) -> Any:
    middle = (x + t) / 2
    return (t * (m.log(t) - m.log(middle)) / 2 + x * (m.log(x) - m.log(middle)) / 2).sum(-1).mean()


def js_of_logs(m: Any, x: Any, t: Any, beta: float = 0.5) -> Any:
    """Liger: x and t are log-probabilities; the mean over the rows."""
    p, q = m.exp(t), m.exp(x)
    middle = m.log(beta * p + (1 - beta) * q)
    return (beta * p * (t - middle) + (1 - beta) * q * (x - middle)).sum(-1).mean()


def balanced_focal(m: Any, x: Any, t: Any, gamma: float = 2.0) -> Any:
    one = m.one_hot(t, x)
    u = (2 * one - 1) * x
    return (m.exp(-gamma * m.softplus(u)) * m.softplus(-u)).sum() / one.sum()


def sparsemax(m: Any, x: Any) -> Any:
    return m.stack([row - _threshold(row, 1) for row in x]).clip(0)


def entmax15(m: Any, x: Any) -> Any:
    return m.stack([(row / 2 - _root(m, row / 2)).clip(0) ** 2 for row in x])


def _threshold(row: Any, budget: float) -> Any:
    """The τ with Σ max(0, x - τ) = budget."""
    ordered = sorted(row.tolist(), reverse=True)
    support = max(k for k in range(1, len(ordered) + 1) if budget + k * ordered[k - 1] > sum(ordered[:k]))
    return ((row * (row >= ordered[support - 1])).sum() - budget) / support


def _root(m: Any, row: Any) -> Any:
    """The τ with Σ max(0, x - τ)² = 1."""
    ordered = sorted(row.tolist(), reverse=True)
    for k in range(len(ordered), 0, -1):
        chosen = row[row >= ordered[k - 1]]
        mean = chosen.sum() / k
        spread = ((chosen - mean) ** 2).sum()
        if spread <= 1:
            tau = mean - m.sqrt(((1 - spread) / k).reshape(1) if hasattr(spread, "reshape") else [(1 - spread) / k])[0]
            if tau <= ordered[k - 1]:
                return tau
    raise ValueError("no support")


def sparsemax_loss(m: Any, x: Any, t: Any) -> Any:
    p = sparsemax(m, x)
    return (1 - (p**2).sum(-1)) / 2 + ((p - m.one_hot(t, x)) * x).sum(-1)


def entmax15_loss(m: Any, x: Any, t: Any) -> Any:
    root = m.stack([(row / 2 - _root(m, row / 2)).clip(0) for row in x])
    return (1 - (root**3).sum(-1)) / 0.75 + ((root**2 - m.one_hot(t, x)) * x).sum(-1)


# -- points


def logits(*gaps: float, **params: Any) -> dict[str, Point]:
    """Two classes, the first of which is right: by a gap that is positive if the logits say so, too."""
    return {f"gap {g:+g}": Point({"x": [[g, 0.0]], "t": [0]}, params) for g in gaps}


def margins(*gaps: float, **params: Any) -> dict[str, Point]:
    """One logit of a positive."""
    named = "".join(f", {k} {v:g}" for k, v in params.items())
    return {f"logit {g:+g}, t = 1{named}": Point({"x": [[g]], "t": [[1.0]]}, params) for g in gaps}


def negatives(*gaps: float, **params: Any) -> dict[str, Point]:
    return {f"logit {g:+g}, t = 0": Point({"x": [[g]], "t": [[0.0]]}, params) for g in gaps}


WIDE = (-100.0, -20.0, 5.0, 12.0)
SPARSE: dict[str, Point] = {
    "ties": Point({"x": [[1.0, 1.0, 0.0]]}, kink=True),
    "a single one": Point({"x": [[30.0, 0.0, 0.0]]}),
    "large and close": Point({"x": [[1000.5, 1000.0, 999.0]]}),
}
SPARSE_LOSS: dict[str, Point] = {
    "right": Point({"x": [[30.0, 0.0, 0.0]], "t": [0]}),
    "wrong": Point({"x": [[30.0, 0.0, 0.0]], "t": [1]}),
    "close": Point({"x": [[0.5, 0.25, 0.0]], "t": [0]}),
    "nearly right": Point({"x": [[0.999, 0.0]], "t": [0]}),
}
THREE: dict[str, Any] = {"x": torch.tensor([[0.3, -0.2, 0.9], [1.4, 0.1, 0.2]], dtype=torch.float64)}
THREE_LABELLED: dict[str, Any] = {**THREE, "t": torch.tensor([1, 0])}

# -- kornia

entry(
    "kornia.losses:focal_loss",
    call=lambda f, x, t, gamma=2.0: f(x[..., None, None], t[..., None, None], None, gamma, "mean"),
    formula=lambda m, x, t, gamma=2.0: softmax_focal(m, x, t, gamma) / x.shape[1],  # the mean is over classes, too
    inputs=ROWS,
    points={**logits(*WIDE), "gap +30, gamma 0.5": Point({"x": [[30.0, 0.0]], "t": [0]}, {"gamma": 0.5})},
    options=FIRST,
)
entry(
    "kornia.losses:focal_loss",
    variant="2¹⁹ values",  # from where on the backward pass is written by hand
    call=lambda f, x, t, gamma=2.0: f(x[..., None, None], t[..., None, None], None, gamma, "mean"),
    formula=lambda m, x, t, gamma=2.0: softmax_focal(m, x, t, gamma) / x.shape[1],
    inputs={"x": (4096, 128), "t": torch.arange(4096) * 7 % 128},
    points={},
    options={**FIRST, "checks": ("definition", "differences", "second", "layout", "purity")},
)
entry(
    "kornia.losses:binary_focal_loss_with_logits",
    call=lambda f, x, t, gamma=2.0: f(x, t, None, gamma, "mean"),
    formula=sigmoid_focal,
    inputs=BINARY,
    points={**margins(*WIDE), **negatives(30.0, -12.0), **margins(30.0, gamma=0.5)},
    options=FIRST,
)
P = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64)
Q = torch.tensor([[0.3, 0.3, 0.4], [0.1, 0.8, 0.1]], dtype=torch.float64)
CLOSE = {"close": Point({"x": [[0.5, 0.25, 0.25]], "t": [[0.5, 0.2500305, 0.2499695]]})}
TINY = {"tiny probability": Point({"x": [[1e-30, 0.5, 0.5]], "t": [[0.5, 0.25, 0.25]]})}
entry(
    "kornia.losses:kl_div_loss_2d",
    call=lambda f, x, t: f(x[:, None, None], t[:, None, None]),
    formula=kl,
    inputs={"x": P, "t": Q},
    points=TINY,
    by=("x", "t"),
)
entry(
    "kornia.losses:js_div_loss_2d",
    call=lambda f, x, t: f(x[:, None, None], t[:, None, None]),
    formula=js,
    inputs={"x": P, "t": Q},
    points={**TINY, **CLOSE},
    by=("x", "t"),
)

# -- segmentation-models-pytorch, whose FocalLoss is the same in every mode

SMP = "segmentation_models_pytorch.losses"
entry(
    f"{SMP}:FocalLoss",
    call=lambda f, x, t, gamma=2.0: f("binary", gamma=gamma)(x, t),
    formula=sigmoid_focal,
    inputs=BINARY,
    points={**margins(*WIDE), **negatives(30.0), **margins(30.0, gamma=0.5)},
    options=FIRST,
)
entry(
    f"{SMP}:SoftCrossEntropyLoss",
    call=lambda f, x, t: f(smooth_factor=0.1)(x, t),
    formula=smoothed,
    inputs=ROWS,
    points=logits(-100.0, 100.0, 5.0),
    options=FIRST,
)

# -- MONAI

entry(
    "monai.losses:FocalLoss",
    call=lambda f, x, t, gamma=2.0: f(gamma=gamma)(x, t),
    formula=sigmoid_focal,
    inputs=BINARY,
    points={**margins(*WIDE), **negatives(30.0), **margins(30.0, gamma=0.5)},
    options=FIRST,
    casts=True,
)
entry(
    "monai.losses.focal_loss:softmax_focal_loss",
    call=lambda f, x, t, gamma=2.0: f(x, torch.nn.functional.one_hot(t, x.shape[-1]), gamma).sum(-1).mean(),
    formula=softmax_focal,
    inputs=ROWS,
    points={**logits(*WIDE), "gap +30, gamma 0.5": Point({"x": [[30.0, 0.0]], "t": [0]}, {"gamma": 0.5})},
    options=FIRST,
)

# -- timm

TIMM = "timm.loss"
entry(
    f"{TIMM}:AsymmetricLossMultiLabel",
    call=lambda f, x, t: f()(x, t),
    formula=asymmetric,
    inputs=BINARY,
    points={**margins(-30.0, -15.0, 5.0), **negatives(5.0, 30.0, -30.0)},
    options=FIRST,
    casts=True,
    guard={"eps": 1e-8},
)
entry(
    f"{TIMM}:AsymmetricLossSingleLabel",
    call=lambda f, x, t: f()(x, t),
    formula=asymmetric_softmax,
    inputs=ROWS,
    points=logits(-30.0, 5.0, 12.0, 30.0),
    options=FIRST,
)
entry(
    f"{TIMM}:PolyCrossEntropy",
    call=lambda f, x, t: f()(x, t),
    formula=poly,
    inputs=ROWS,
    points=logits(-100.0, 5.0, 12.0),
    options=FIRST,
    casts=True,
)
entry(
    f"{TIMM}:PolyBinaryCrossEntropy",
    call=lambda f, x, t, gamma=0.0: f(gamma=gamma)(x, t),
    formula=binary_poly,
    inputs=BINARY,
    points={**margins(-100.0, 5.0, 12.0), **margins(30.0, gamma=0.5)},
    options=FIRST,
    casts=True,
)
entry(
    f"{TIMM}:TwoWayLoss",
    call=lambda f, x, t: f()(x, t),
    formula=two_way,
    inputs={"x": (2, 2), "t": torch.tensor([[1.0, 0.0], [0.0, 1.0]])},
    points={
        "right by 30": Point({"x": [[30.0, -30.0], [-30.0, 30.0]], "t": [[1.0, 0.0], [0.0, 1.0]]}),
        "wrong by 100": Point({"x": [[-100.0, 100.0], [100.0, -100.0]], "t": [[1.0, 0.0], [0.0, 1.0]]}),
    },
    options=FIRST,
    casts=True,
)
entry(
    f"{TIMM}:ZlprLoss",
    call=lambda f, x, t: f()(x, t),
    formula=zlpr,
    inputs=BINARY,
    points={
        "right by 12": Point({"x": [[12.0, -12.0]], "t": [[1.0, 0.0]]}),
        "wrong by 100": Point({"x": [[-100.0, 100.0]], "t": [[1.0, 0.0]]}),
        "no positive": Point({"x": [[1.0, -2.0]], "t": [[0.0, 0.0]]}),
    },
    options=FIRST,
    casts=True,
)
entry(
    f"{TIMM}:JsdCrossEntropy",
    call=lambda f, x, t: f(smoothing=0)(x, t),
    formula=jensen_shannon_and_cross_entropy,
    inputs={"x": (3, 3), "t": LABELS},
    points={
        "one class certain": Point({"x": [[20.0, 0.0], [22.0, 0.0], [24.0, 0.0]], "t": [0, 0, 0]}),
        "wrong": Point({"x": [[-20.0, 0.0], [-21.0, 0.0], [-24.0, 0.0]], "t": [0, 0, 0]}),
    },
    options=FIRST,
)
entry(
    f"{TIMM}:LabelSmoothingCrossEntropy",
    call=lambda f, x, t: f(0.1)(x, t),
    formula=smoothed,
    inputs=ROWS,
    points=logits(-100.0, 100.0, 5.0),
    options=FIRST,
)
entry(
    f"{TIMM}:SoftTargetCrossEntropy",
    call=lambda f, x, t: f()(x, t),
    formula=soft_cross_entropy,
    inputs={"x": (2, 3), "t": P},
    points={"far apart": Point({"x": [[100.0, 0.0]], "t": [[0.25, 0.75]]})},
    options=FIRST,
)

# -- catalyst

entry(
    "catalyst.contrib.losses:FocalLossBinary",
    call=lambda f, x, t, gamma=2.0, turned=False: f(gamma=gamma, alpha=None)(*((x.T, t.T) if turned else (x, t))),
    formula=lambda m, x, t, gamma=2.0, turned=False: sigmoid_focal(m, x, t, gamma),
    inputs=BINARY,
    points={
        **margins(*WIDE),
        **negatives(30.0),
        **margins(30.0, gamma=0.5),
        "transposed": Point({"x": [[0.5, 1.0], [0.25, -1.0]], "t": [[1.0, 0.0], [0.0, 1.0]]}, {"turned": True}),
    },
    options=FIRST,
)
entry(
    "catalyst.contrib.losses:BPRLoss",
    call=lambda f, x, y: f()(x, y),
    formula=lambda m, x, y, gamma=0.0: (-m.log(gamma + m.sigmoid(x - y)) if gamma else m.softplus(y - x)).mean(),
    inputs={"x": (4,), "y": (4,)},
    points={f"apart by {g:+g}": Point({"x": [g], "y": [0.0]}) for g in (-100.0, -30.0, -5.0, 5.0, 12.0)},
    by=("x", "y"),
    guard={"gamma": 1e-10},
)

# -- focal-loss-torch, balanced-loss

entry(
    "focal_loss.focal_loss:FocalLoss",
    call=lambda f, x, t, gamma=2.0: f(gamma)(x, t),
    formula=focal_of_probabilities,
    inputs={"x": P, "t": torch.tensor([1, 0])},
    points={
        "nearly 1": Point({"x": [[0.999, 0.001]], "t": [0]}),
        "1e-20": Point({"x": [[1e-20, 1.0]], "t": [0]}),
        "1e-12": Point({"x": [[1e-12, 1.0]], "t": [0]}),
    },
    options={**FIRST, "domain": {"x": (0.0, 1.0)}},
    guard={"eps": 1e-16},
)
entry(
    "balanced_loss:Loss",
    call=lambda f, x, t, gamma=2.0: f("focal_loss", fl_gamma=gamma)(x, t),
    formula=balanced_focal,
    inputs=ROWS,
    points={
        "logits 5": Point({"x": [[5.0, -5.0]], "t": [0]}),
        "logit -100 of the class": Point({"x": [[-100.0, 0.0]], "t": [0]}),
        "logit -80 of the class": Point({"x": [[-80.0, 0.0]], "t": [0]}),
        "logit -100 of another": Point({"x": [[0.0, -100.0]], "t": [0]}),
    },
    single=True,
)

# -- entmax: hand-written backward passes

for path in ("sparsemax", "sparsemax_bisect"):
    entry(f"entmax:{path}", call=lambda f, x: f(x), formula=sparsemax, inputs=THREE, points=SPARSE)
for path in ("entmax15", "entmax_bisect"):
    entry(f"entmax:{path}", call=lambda f, x: f(x), formula=entmax15, inputs=THREE, points=SPARSE)
for path in ("sparsemax_loss", "sparsemax_bisect_loss"):
    entry(
        f"entmax:{path}",
        call=lambda f, x, t: f(x, t),
        formula=sparsemax_loss,
        inputs=THREE_LABELLED,
        points=SPARSE_LOSS,
        curved="close",
    )
for path in ("entmax15_loss", "entmax_bisect_loss"):
    entry(
        f"entmax:{path}",
        call=lambda f, x, t: f(x, t),
        formula=entmax15_loss,
        inputs=THREE_LABELLED,
        points=SPARSE_LOSS,
        curved="close",
    )
entry(
    "entmax:budget_bisect",
    call=lambda f, x: f(x, budget=1.5),
    formula=lambda m, x: m.stack([budget(row) for row in x]),
    inputs={"x": torch.tensor([[0.3, 0.1, 0.5], [0.2, 0.6, 0.4]], dtype=torch.float64)},
    points={"large": Point({"x": [[100.25, 100.0, 100.5]]}), "ordinary": Point({"x": [[0.25, 0.0, 0.5]]})},
)


def budget(row: Any) -> Any:
    """Where no entry is at 0 or at 1: the sum is the budget of 1.5."""
    return row - (row.sum() - 1.5) / len(row)


# -- Liger-Kernel: kernels in float32, here in Triton's interpreter

LIGER = "liger_kernel.transformers.functional"
entry(
    f"{LIGER}:liger_cross_entropy",
    call=lambda f, x, t: f(x, t),
    formula=cross_entropy,
    inputs=ROWS,
    points={**logits(-100.0, 5.0, 12.0, 20.0), "ordinary": Point({"x": [[1.0, -0.5], [0.25, 2.0]], "t": [0, 1]})},
    single=True,
)
entry(
    f"{LIGER}:liger_jsd",
    call=lambda f, x, t, beta=0.5: f(x, t, beta=beta),
    formula=js_of_logs,
    inputs={"x": P.log(), "t": Q.log()},
    points={
        "ordinary": Point({"x": [[-0.5, -0.9327521]], "t": [[-1.0, -0.45867515]]}),
        "beta 0.1": Point({"x": [[-0.5, -0.9327521]], "t": [[-1.0, -0.45867515]]}, {"beta": 0.1}),
        "close": Point({"x": [[-0.6931472, -0.6931472]], "t": [[-0.6932, -0.6930943]]}),
        "log-probability -100 of one": Point({"x": [[-100.0, 0.0]], "t": [[-0.6931472, -0.6931472]]}),
        "log-probability -120 of both": Point({"x": [[-120.0, 0.0]], "t": [[-120.0, 0.0]]}),
    },
    single=True,
)
entry(
    f"{LIGER}:liger_sparsemax",
    call=lambda f, x: f(x),
    formula=sparsemax,
    inputs=THREE,
    points={"ordinary": Point({"x": [[0.3, -0.2, 0.9]]}), **SPARSE},
    single=True,
)
entry(
    f"{LIGER}:liger_softmax",
    call=lambda f, x: f(x),
    formula=lambda m, x: m.exp(x - m.logsumexp(x)[..., None]),
    inputs=THREE,
    points={"ordinary": Point({"x": [[0.3, -0.2, 0.9]]}), "apart by 8": Point({"x": [[8.0, 0.0, 1.0]]})},
    single=True,
)
entry(
    f"{LIGER}:liger_fused_linear_cross_entropy",
    call=lambda f, x, w, t: f(x, w, t),
    formula=lambda m, x, w, t: cross_entropy(m, x @ w.T, t),
    inputs={"x": (2, 2), "w": (3, 2), "t": torch.tensor([0, 2])},
    points={
        "ordinary": Point({"x": [[1.0, -0.5], [0.25, 2.0]], "w": [[1.0, 0.5], [0.0, 1.0], [0.5, 0.25]], "t": [0, 2]}),
        "gap +12": Point({"x": [[1.0, 0.0]], "w": [[12.0, 0.0], [0.0, 1.0]], "t": [0]}),
        "gap -100": Point({"x": [[1.0, 0.0]], "w": [[-100.0, 0.0], [0.0, 1.0]], "t": [0]}),
    },
    by=("x", "w"),
    single=True,
)

entry(
    f"{LIGER}:liger_fused_linear_jsd",
    call=lambda f, x, w, y, u: f(x, w, y, u),
    formula=lambda m, x, w, y, u: js_of_logs(m, log_softmax(m, x @ w.T), log_softmax(m, y @ u.T)),
    inputs={"x": (2, 2), "w": (3, 2), "y": (2, 2), "u": (3, 2)},
    points={
        "ordinary": Point(
            {
                "x": [[1.0, -0.5], [0.25, 2.0]],
                "w": [[1.0, 0.5], [0.0, 1.0], [0.5, 0.25]],
                "y": [[0.5, -0.5], [0.75, 1.0]],
                "u": [[0.5, 0.5], [0.25, 1.0], [-0.5, 0.25]],
            }
        ),
        "apart by 100": Point(
            {"x": [[1.0, 0.0]], "w": [[100.0, 0.0], [0.0, 1.0]], "y": [[1.0, 0.0]], "u": [[-100.0, 0.0], [0.0, 1.0]]}
        ),
    },
    by=("x", "w"),
    single=True,
)

# -- torchmetrics

entry(
    "torchmetrics.functional:kl_divergence",
    call=lambda f, x, t: f(t, x, log_prob=True),
    formula=lambda m, x, t: (m.exp(t) * (t - x)).sum(-1).mean(),
    inputs={"x": P.log(), "t": Q.log()},
    points={"log-probability -100": Point({"x": [[-100.0, 0.0]], "t": [[-0.6931472, -0.6931472]]})},
    by=("x", "t"),
)
entry(
    "torchmetrics.functional:log_cosh_error",
    call=lambda f, x, y: f(x, y),
    formula=lambda m, x, y: (m.softplus(2 * (x - y)) - (x - y) - m.log(2 + 0 * x)).mean(),
    inputs={"x": (4,), "y": (4,)},
    points={f"difference {d:g}": Point({"x": [d], "y": [0.0]}) for d in (1e-4, 0.01, 1.0, 30.0, 100.0)},
    by=("x", "y"),
)
