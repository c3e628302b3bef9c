"""Contrastive and metric losses on embeddings, and losses on preferences and on sequences."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from benchmarks.field.table import Point, entry

TEMPERATURE = "temperature"


def unit(m: Any, x: Any) -> Any:
    return x / m.sqrt((x * x).sum(-1))[..., None]


def cosines(m: Any, x: Any, y: Any) -> Any:
    return unit(m, x) @ unit(m, y).T


def rows_without(s: Any, i: int, *others: int) -> list[int]:
    return [j for j in range(s.shape[1]) if j not in (i, *others)]


def info_nce(m: Any, x: Any, y: Any, temperature: float = 0.1) -> Any:
    s = cosines(m, x, y) / temperature
    return sum(m.logsumexp(s[i : i + 1])[0] - s[i, i] for i in range(len(s))) / len(s)


def nt_xent(m: Any, x: Any, y: Any, temperature: float = 0.5) -> Any:
    """Each of 2 N rows against all others; the positive of i is i ± N."""
    z = m.concat([x, y])
    s, n = cosines(m, z, z) / temperature, len(x)
    terms = [m.logsumexp(s[i : i + 1, rows_without(s, i)])[0] - s[i, (i + n) % (2 * n)] for i in range(2 * n)]
    return sum(terms) / len(terms)


def decoupled(m: Any, x: Any, y: Any, temperature: float = 0.1) -> Any:
    """DCL: without the positive in the denominator."""
    n, total = len(x), 0
    for a, b in ((x, y), (y, x)):
        s = m.concat([cosines(m, a, a), cosines(m, a, b)], 1) / temperature
        total = total + sum(m.logsumexp(s[i : i + 1, rows_without(s, i, i + n)])[0] - s[i, i + n] for i in range(n))
    return total / (2 * n)


def supervised(m: Any, x: Any, t: Any, temperature: float = 0.1, inside: bool = False) -> Any:
    """SupCon: over each row's positives the mean of the log, or (inside) the log of the mean."""
    s, total = cosines(m, x, x) / temperature, 0
    for i in range(len(x)):
        others = rows_without(s, i)
        positives = [j for j in others if t[j] == t[i]]
        whole = m.logsumexp(s[i : i + 1, others])[0]
        if inside:
            part = m.logsumexp(s[i : i + 1, positives])[0] - m.log(0 * x[0, :1] + len(positives))[0]
        else:
            part = s[i, positives].sum() / len(positives)
        total = total + whole - part
    return total / len(x)


def barlow(m: Any, x: Any, y: Any, weight: float, within: float, biased: bool) -> Any:
    """The cross-correlation against the identity; ``within`` is added to the variance."""

    def centred(z: Any) -> Any:
        z = z - z.mean(0)
        return z / m.sqrt((z * z).sum(0) / (len(z) - (not biased)) + within)

    c = centred(x).T @ centred(y) / len(x)
    diagonal = m.stack([c[i, i] for i in range(len(c))])
    return ((diagonal - 1) ** 2).sum() + weight * ((c * c).sum() - (diagonal**2).sum())


def vicreg(m: Any, x: Any, y: Any) -> Any:
    def spread(z: Any) -> Any:
        z = z - z.mean(0)
        c = z.T @ z / (len(z) - 1)
        diagonal = m.stack([c[i, i] for i in range(len(c))])
        return m.relu(1 - m.sqrt(diagonal + 1e-4)).mean() * 12.5 + ((c * c).sum() - (diagonal**2).sum()) / len(c)

    return 25 * ((x - y) ** 2).mean() + spread(x) + spread(y)


def hypersphere(m: Any, x: Any, y: Any) -> Any:
    a, b = unit(m, x), unit(m, y)

    def uniform(z: Any) -> Any:
        pairs = list(itertools.combinations(range(len(z)), 2))
        terms = m.stack([((z[i] - z[j]) ** 2).sum() for i, j in pairs])
        return m.log(m.stack([m.exp(-terms).mean()]))[0]

    return ((a - b) ** 2).sum(-1).mean() + (uniform(a) + uniform(b)) / 2


def koleo(m: Any, x: Any, eps: float = 0.0) -> Any:
    """The log of the distance to the nearest."""
    z, total = unit(m, x), 0
    for i in range(len(z)):
        d = m.stack([((z[i] - z[j] + eps) ** 2).sum() for j in range(len(z)) if j != i])
        total = total - m.log(m.sqrt(d) + eps)[min(range(len(d)), key=lambda j: float(d[j]))]
    return total / len(z)


def circle(m: Any, x: Any, t: Any, margin: float, gamma: float, fixed: Any) -> Any:
    """Of unit vectors, over all pairs; the weights are constants, of the point ``fixed``."""
    s, w = x @ x.T, fixed @ fixed.T
    positive, negative = [], []
    for i, j in itertools.combinations(range(len(x)), 2):
        if t[i] == t[j]:
            positive.append(-max(0.0, float(1 + margin - w[i, j])) * (s[i, j] - 1 + margin) * gamma)
        else:
            negative.append(max(0.0, float(w[i, j] + margin)) * (s[i, j] - margin) * gamma)
    return m.softplus(m.logsumexp(m.stack([m.stack(negative)])) + m.logsumexp(m.stack([m.stack(positive)])))


def arcface(m: Any, x: Any, w: Any, t: Any, degrees: float = 28.6, scale: float = 64.0) -> Any:
    """Where no angle is beyond 180° less the margin."""
    c = cosines(m, x, w)
    one, margin = m.one_hot(t, c), degrees / 180 * 3.14159265358979323846
    inside = (one * c).sum(-1)
    turned = m.cos(m.acos(inside) + margin)
    z = scale * (c + one * (turned - inside)[:, None])
    return (m.logsumexp(z) - (one * z).sum(-1)).mean()


def cosface(m: Any, x: Any, w: Any, t: Any, margin: float = 0.35, scale: float = 64.0) -> Any:
    c = cosines(m, x, w)
    one = m.one_hot(t, c)
    z = scale * (c - margin * one)
    return (m.logsumexp(z) - (one * z).sum(-1)).mean()


def multi_similarity(m: Any, x: Any, t: Any) -> Any:
    """alpha 2, beta 50, base 0.5."""
    s, total = cosines(m, x, x), 0
    for i in range(len(x)):
        near = [j for j in rows_without(s, i) if t[j] == t[i]]
        far = [j for j in rows_without(s, i) if t[j] != t[i]]
        one = 0 * s[i : i + 1, :1]
        total = total + m.logsumexp(m.concat([2 * (0.5 - s[i : i + 1, near]), one], 1))[0] / 2
        total = total + m.logsumexp(m.concat([50 * (s[i : i + 1, far] - 0.5), one], 1))[0] / 50
    return total / len(x)


def n_pairs(m: Any, x: Any, y: Any, normalized: bool = False) -> Any:
    s = cosines(m, x, y) if normalized else x @ y.T
    return sum(m.logsumexp(s[i : i + 1])[0] - s[i, i] for i in range(len(s))) / len(s)


def contrastive(m: Any, x: Any, y: Any, t: Any) -> Any:
    """Distance squared for a 0, the hinge of 1 less the distance squared for a 1; halved."""
    d2 = ((x - y) ** 2).sum(-1)
    return ((1 - t) * d2 + t * m.relu(1 - m.sqrt(d2)) ** 2).mean() / 2


def gaussian_mmd(m: Any, x: Any, y: Any, blur: float = 0.5) -> Any:
    def kernel(a: Any, b: Any) -> Any:
        d = [[((p - q) ** 2).sum() for q in b] for p in a]
        return m.exp(-m.stack([m.stack(row) for row in d]) / (2 * blur**2)).mean()

    return kernel(x, x) / 2 + kernel(y, y) / 2 - kernel(x, y)


def negative_cosine(m: Any, x: Any, y: Any) -> Any:
    return -(unit(m, x) * unit(m, y)).sum(-1).mean()


def chain(m: Any, x: Any, t: Any) -> Any:
    """A linear-chain CRF with two tags, by all paths. The transition scores are 0.5, -0.25, 0, 1."""
    moves, first, last = ((0.5, -0.25), (0.0, 1.0)), (0.1, -0.2), (0.3, 0.0)

    def score(row: Any, path: Any) -> Any:
        total = first[path[0]] + last[path[-1]]
        total = total + sum(moves[a][b] for a, b in itertools.pairwise(path))
        return total + sum(row[i, tag] for i, tag in enumerate(path))

    total = 0
    for row, tags in zip(x, t, strict=True):
        paths = m.stack([score(row, path) for path in itertools.product((0, 1), repeat=len(row))])
        total = total + m.logsumexp(m.stack([paths]))[0] - score(row, [int(k) for k in tags])
    return total


def crf(f: Any, x: Any, t: Any) -> Any:
    model = f(2, batch_first=True).requires_grad_(False)
    model.transitions.data = torch.tensor([[0.5, -0.25], [0.0, 1.0]], dtype=x.dtype)
    model.start_transitions.data = torch.tensor([0.1, -0.2], dtype=x.dtype)
    model.end_transitions.data = torch.tensor([0.3, 0.0], dtype=x.dtype)
    return -model(x, t)


def with_weights(f: Any, x: Any, w: Any, t: Any) -> Any:
    loss = f(num_classes=len(w), embedding_size=x.shape[1])
    loss.requires_grad_(False).W.data = w.T.contiguous()
    return loss(x, t)


def preference(m: Any, x: Any, w: Any, t: Any, gamma: float, mean: bool, beta: float = 0.1) -> Any:
    """Of the mean, or the sum, of the log-probabilities of a chosen and of a rejected sequence."""
    z = [row @ w.T for row in x]
    logs = [((m.one_hot(k, a) * a).sum(-1) - m.logsumexp(a)).sum() for a, k in zip(z, t, strict=True)]
    logs = [log / t.shape[1] if mean else log for log in logs]
    return m.softplus(m.stack([gamma - beta * (logs[0] - logs[1])]))


PAIRS: dict[str, Any] = {"x": (3, 4), "y": (3, 4)}
TWO = [[1.0, 0.5, -0.25], [-0.5, 1.0, 0.75]]
NEAR = [[1.0, 0.5, -0.2], [-0.5, 1.0, 0.8]]
LABELS = torch.tensor([0, 1, 0, 1])
FOUR = [[1.0, 0.5, -0.25], [-0.5, 1.0, 0.75], [0.75, 0.5, 0.0], [-0.25, 1.0, 1.0]]


def pairs(*temperatures: float) -> dict[str, Point]:
    """Each row near its positive, and each row near the other's."""
    near = {f"temperature {t:g}": Point({"x": TWO, "y": NEAR}, {TEMPERATURE: t}) for t in temperatures}
    far = {f"temperature {t:g}, wrong": Point({"x": TWO, "y": NEAR[::-1]}, {TEMPERATURE: t}) for t in temperatures}
    return {**far, **near}


def labelled(*temperatures: float) -> dict[str, Point]:
    near = {f"temperature {t:g}": Point({"x": FOUR, "t": [0, 1, 0, 1]}, {TEMPERATURE: t}) for t in temperatures}
    far = {f"temperature {t:g}, wrong": Point({"x": FOUR, "t": [0, 0, 1, 1]}, {TEMPERATURE: t}) for t in temperatures}
    return {**far, **near}


entry(
    "info_nce:info_nce",
    call=lambda f, x, y, temperature=0.1: f(x, y, temperature=temperature),
    formula=info_nce,
    inputs=PAIRS,
    points={**pairs(0.5, 0.1, 0.01), "the same vectors": Point({"x": TWO, "y": TWO})},
    by=("x", "y"),
)
entry(
    "monai.losses:ContrastiveLoss",
    call=lambda f, x, y, temperature=0.5: f(temperature)(x, y),
    formula=nt_xent,
    inputs=PAIRS,
    points={**pairs(0.5, 0.1, 0.01), "the same vectors": Point({"x": TWO, "y": TWO})},
    by=("x", "y"),
)
entry(
    "catalyst.contrib.losses:NTXentLoss",
    call=lambda f, x, y, temperature=0.5: f(temperature)(x, y),
    formula=nt_xent,
    inputs=PAIRS,
    points={**pairs(0.5, 0.1, 0.05, 0.01), "the same vectors": Point({"x": TWO, "y": TWO})},
    by=("x", "y"),
)
entry(
    "catalyst.contrib.losses.supervised_contrastive:SupervisedContrastiveLoss",
    call=lambda f, x, t, temperature=0.5: f(temperature)(x, t),
    formula=lambda m, x, t, temperature=0.5: supervised(m, x, t, temperature, inside=True),
    inputs={"x": (4, 3), "t": LABELS},
    points=labelled(0.5, 0.1, 0.05, 0.01),
)
entry(
    "catalyst.contrib.losses:CircleLoss",
    call=lambda f, x, t: f(0.25, 32.0)(x, t).reshape(1),
    formula=lambda m, x, t: circle(m, x, t, 0.25, 32.0, _still(x)),
    inputs={"x": torch.nn.functional.normalize(torch.tensor(FOUR, dtype=torch.float64)), "t": LABELS},
    points={"unit vectors": Point({"x": [[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]], "t": [0, 1, 0, 1]})},
    options={"checks": ("definition", "layout", "purity", "claims", "parity")},  # its weights are detached
)


def _still(x: Any) -> Any:
    return x.detach() if torch.is_tensor(x) else x


entry(
    "catalyst.contrib.losses:ContrastiveEmbeddingLoss",
    call=lambda f, x, y, t: f()(x, y, t),
    formula=contrastive,
    inputs={"x": (3, 4), "y": (3, 4), "t": torch.tensor([0.0, 1.0, 1.0])},
    points={
        "ordinary": Point({"x": [[0.5, 0.25]], "y": [[0.25, 0.75]], "t": [1.0]}),
        "equal, alike": Point({"x": [[0.5, 0.25]], "y": [[0.5, 0.25]], "t": [0.0]}),
        "equal, different": Point({"x": [[0.5, 0.25]], "y": [[0.5, 0.25]], "t": [1.0]}, kink=True),
    },
    by=("x", "y"),
)
entry(
    "catalyst.contrib.losses:ContrastivePairwiseEmbeddingLoss",
    call=lambda f, x, y: f()(x, y),
    formula=n_pairs,
    inputs=PAIRS,
    points={
        "large": Point({"x": [[10.0, 0.0], [0.0, 10.0]], "y": [[0.0, 10.0], [10.0, 0.0]]}),
        "ordinary": Point({"x": TWO, "y": NEAR}),
    },
    by=("x", "y"),
)
entry(
    "catalyst.contrib.losses:BarlowTwinsLoss",
    call=lambda f, x, y: f()(x, y),
    formula=lambda m, x, y: barlow(m, x, y, 1.0, 1e-12, biased=False),
    inputs={"x": (5, 3), "y": (5, 3)},
    points={
        "ordinary": Point({"x": FOUR, "y": [[0.5, 0.25, 0.0], [0.0, 1.0, 0.5], [1.0, 0.25, -0.5], [0.25, 0.5, 1.0]]}),
        "a constant feature": Point(
            {"x": [[1.0, 0.5], [1.0, 0.25], [1.0, -0.5]], "y": [[0.5, 0.25], [0.25, 0.5], [1.0, -1.0]]}
        ),
    },
    by=("x", "y"),
)
entry(
    "lightly.loss.barlow_twins_loss:BarlowTwinsLoss",
    call=lambda f, x, y: f()(x, y),
    formula=lambda m, x, y: barlow(m, x, y, 0.005, 1e-5, biased=True),
    inputs={"x": (5, 3), "y": (5, 3)},
    points={
        "ordinary": Point({"x": FOUR, "y": [[0.5, 0.25, 0.0], [0.0, 1.0, 0.5], [1.0, 0.25, -0.5], [0.25, 0.5, 1.0]]})
    },
    by=("x", "y"),
)
entry(
    "lightly.loss.vicreg_loss:VICRegLoss",
    call=lambda f, x, y: f()(x, y),
    formula=vicreg,
    inputs={"x": (5, 3), "y": (5, 3)},
    points={"collapsed": Point({"x": [[1.0, 0.5], [1.0, 0.5]], "y": [[0.5, 0.25], [1.0, 0.25]]})},
    by=("x", "y"),
)
entry(
    "lightly.loss.dcl_loss:DCLLoss",
    call=lambda f, x, y, temperature=0.1: f(temperature)(x, y),
    formula=decoupled,
    inputs=PAIRS,
    points=pairs(0.5, 0.1, 0.01),
    by=("x", "y"),
)
entry(
    "lightly.loss.hypersphere_loss:HypersphereLoss",
    call=lambda f, x, y: f()(x, y),
    formula=hypersphere,
    inputs=PAIRS,
    points={"ordinary": Point({"x": TWO, "y": NEAR}), "the same vectors": Point({"x": TWO, "y": TWO})},
    by=("x", "y"),
)
entry(
    "lightly.loss.koleo_loss:KoLeoLoss",
    call=lambda f, x: f()(x),
    formula=koleo,
    inputs={"x": (4, 3)},
    points={
        "ordinary": Point({"x": FOUR}),
        "close by 1e-3": Point({"x": [[1.0, 0.0], [1.0, 0.001], [0.0, 1.0]]}),
    },
    guard={"eps": 1e-8},
)
entry(
    "lightly.loss.negative_cosine_similarity:NegativeCosineSimilarity",
    call=lambda f, x, y: f()(x, y),
    formula=negative_cosine,
    inputs=PAIRS,
    points={
        "ordinary": Point({"x": TWO, "y": NEAR}),
        "short vectors": Point({"x": [[1e-6, 2e-6]], "y": [[3e-6, 1e-6]]}),
    },
    by=("x", "y"),
)
PML = "pytorch_metric_learning.losses"
CENTRES: dict[str, Any] = {"x": (2, 3), "w": (3, 3), "t": torch.tensor([0, 2])}
CLOSE: dict[str, Any] = {"x": [[1.0, 0.25]], "w": [[1.0, 0.5], [0.0, 1.0]], "t": [0]}
ALIGNED = Point({"x": [[1.0, 0.0]], "w": [[1.0, 0.0], [0.0, 1.0]], "t": [0]}, kink=True)
entry(
    f"{PML}:ArcFaceLoss",
    call=with_weights,
    formula=arcface,
    inputs={
        "x": torch.tensor([[1.0, 0.5, 0.2], [0.1, 0.6, 1.0]], dtype=torch.float64),
        "w": torch.tensor([[0.8, 0.1, 0.3], [0.1, 1.0, 0.0], [0.3, 0.2, 0.9]], dtype=torch.float64),
        "t": torch.tensor([0, 2]),
    },
    points={"ordinary": Point(CLOSE), "at the centre of its class": ALIGNED},
)
entry(
    f"{PML}:CosFaceLoss",
    call=with_weights,
    formula=cosface,
    inputs=CENTRES,
    points={
        "ordinary": Point(CLOSE),
        "at the centre of another class": Point({"x": [[1.0, 0.0]], "w": [[1.0, 0.0], [0.0, 1.0]], "t": [1]}),
    },
)
entry(
    f"{PML}:NTXentLoss",
    call=lambda f, x, y, temperature=0.5: f(temperature)(
        torch.cat([x, y]), torch.arange(len(x), device=x.device).repeat(2)
    ),
    formula=nt_xent,
    inputs=PAIRS,
    points=pairs(0.5, 0.1, 0.01),
    by=("x", "y"),
)
entry(
    f"{PML}:SupConLoss",
    call=lambda f, x, t, temperature=0.1: f(temperature)(x, t),
    formula=supervised,
    inputs={"x": (4, 3), "t": LABELS},
    points=labelled(0.5, 0.1, 0.01),
)
entry(
    f"{PML}:MultiSimilarityLoss",
    call=lambda f, x, t: f()(x, t),
    formula=multi_similarity,
    inputs={"x": (4, 3), "t": LABELS},
    points={"ordinary": Point({"x": FOUR, "t": [0, 1, 0, 1]})},
)
entry(
    f"{PML}:NPairsLoss",
    call=lambda f, x, y: f()(torch.stack([x, y], 1).flatten(0, 1), torch.arange(len(x)).repeat_interleave(2)),
    formula=lambda m, x, y: n_pairs(m, x, y, normalized=True),
    inputs=PAIRS,
    points={"ordinary": Point({"x": TWO, "y": NEAR})},
    by=("x", "y"),
)
entry(
    "geomloss:SamplesLoss",
    call=lambda f, x, y: f("gaussian", blur=0.5, backend="tensorized")(x, y),
    formula=gaussian_mmd,
    inputs={"x": (3, 2), "y": (4, 2)},
    points={
        "ordinary": Point({"x": [[0.0, 0.5], [1.0, 0.25]], "y": [[0.25, 0.5], [0.75, 0.0]]}),
        "the same points": Point({"x": [[0.0, 0.5], [1.0, 0.25]], "y": [[0.0, 0.5], [1.0, 0.25]]}),
        "close": Point({"x": [[0.0, 0.5], [1.0, 0.25]], "y": [[0.0, 0.501], [1.0, 0.25]]}),
        "far from the origin": Point({"x": [[100.0, 0.5], [101.0, 0.25]], "y": [[100.25, 0.5], [100.75, 0.0]]}),
    },
    by=("x", "y"),
    curved="ordinary",
)
entry(
    "torchcrf:CRF",
    call=crf,
    formula=chain,
    inputs={"x": (2, 3, 2), "t": torch.tensor([[0, 1, 1], [1, 0, 0]])},
    points={
        "ordinary": Point({"x": [[[0.5, -0.25], [1.0, 0.0], [0.25, 0.75]]], "t": [[0, 1, 1]]}),
        "wrong by 100": Point({"x": [[[100.0, 0.0], [100.0, 0.0]]], "t": [[1, 1]]}),
        "right by 8": Point({"x": [[[8.0, 0.0], [0.0, 8.0]]], "t": [[0, 1]]}),
    },
)
LIGER = "liger_kernel.chunked_loss"
SEQUENCES: dict[str, Any] = {
    "x": (2, 2, 3),
    "w": (3, 3),
    "t": torch.tensor([[0, 1], [2, 0]]),
}
WORDS = [[1.0, 0.5], [0.0, 1.0], [-0.5, 0.25]]
CHOICE = {"x": [[[1.0, -0.5], [0.25, 2.0]], [[0.5, 0.5], [-1.0, 0.25]]], "w": WORDS, "t": [[0, 1], [2, 0]]}
SURE = {"x": [[[400.0, 0.0], [400.0, 0.0]], [[400.0, 0.0], [400.0, 0.0]]], "w": WORDS, "t": [[0, 0], [2, 2]]}
for name, gamma, mean, how in (
    ("DPO", 0.0, True, dict(use_ref_model=False, average_log_prob=True)),
    ("SimPO", 0.5, True, dict(compute_nll_loss=False)),
    ("CPO", 0.0, False, dict(compute_nll_loss=False)),
):
    entry(
        f"{LIGER}:LigerFusedLinear{name}Loss",
        call=lambda f, x, w, t, how=how: f(compiled=False, **how)(w, x, t)[0].reshape(1),
        formula=lambda m, x, w, t, gamma=gamma, mean=mean: preference(m, x, w, t, gamma, mean),
        inputs=SEQUENCES,
        points={"ordinary": Point(CHOICE), "sure by 600": Point(SURE)},
        by=("x", "w"),
        single=True,
    )
