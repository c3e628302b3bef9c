"""Cross entropy with an adaptive softmax: a head, and two clusters with a tail each.

As in the spec of linear cross entropy, every feature affects one class of the head or of one tail, with a power of two
as its weight. So no product is rounded, and no sum cancels in the gradient of a feature.
"""

from __future__ import annotations

import torch
from torch.func import functional_call
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Module, Pin, Spec, reduce
from manual_grad.losses.linear import adaptive_log_softmax_with_loss
from manual_grad.losses.linear.adaptive_log_softmax_with_loss import AdaptiveLogSoftmaxWithLoss, adaptive_cross_entropy
from manual_grad.specs.rowwise.cross_entropy import GAPS, NAN
from manual_grad.specs.rowwise.cross_entropy import oracle as row
from manual_grad.study import curves

CUTOFFS = (2, 4, 7)
# The features that affect the head (4 classes), tail 1 (1 dimension, 2 classes) and tail 2 (2 dimensions, 3 classes).
HEAD, TAIL_1, TAIL_2, FEATURES = slice(0, 4), slice(4, 5), slice(5, 7), 7
SHAPES = dict(head_weight=(4, FEATURES), down_1=(1, FEATURES), up_1=(2, 1), down_2=(2, FEATURES), up_2=(3, 2))


def adaptive(input, head_weight, target, down_1, up_1, down_2, up_2, head_bias=None, reduction="mean"):
    tails = [(down_1, up_1), (down_2, up_2)]
    return adaptive_cross_entropy(input, target, head_weight, tails, CUTOFFS, head_bias, reduction)


def definition(input, head_weight, target, down_1, up_1, down_2, up_2, head_bias=None, reduction="mean"):
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < CUTOFFS[-1]:
        raise RuntimeError("no such class")
    whole = log_prob(input, head_weight, down_1, up_1, down_2, up_2, head_bias)
    return reduce(-whole.gather(-1, target.unsqueeze(-1)).squeeze(-1), reduction)


def log_prob(input, head_weight, down_1, up_1, down_2, up_2, head_bias=None, **_):
    head = F.linear(input, head_weight, head_bias).log_softmax(-1)
    tails = [(input @ down.T @ up.T).log_softmax(-1) for down, up in ((down_1, up_1), (down_2, up_2))]
    first = CUTOFFS[0]
    return torch.cat([head[..., :first], *(head[..., first + i, None] + tail for i, tail in enumerate(tails))], -1)


def predict(**arguments):
    return log_prob(**arguments).argmax(-1)


def oracle(input, head_weight, target, down_1, up_1, down_2, up_2, head_bias=None, **_):
    def product(weight, x):
        return [sum(a * b for a, b in zip(w, x, strict=True)) for w in weight]

    first, scores = CUTOFFS[0], product(head_weight, input)
    if head_bias is not None:
        scores = [z + b for z, b in zip(scores, head_bias, strict=True)]
    if target < first:
        return row(scores, target)[0]
    i = 0 if target < CUTOFFS[1] else 1
    down, up = ((down_1, up_1), (down_2, up_2))[i]
    return row(scores, first + i)[0] + row(product(up, product(down, input)), target - CUTOFFS[i])[0]


def symbols(input, head_weight, target, down_1, up_1, down_2, up_2, head_bias=None, **_):
    i = int(target >= CUTOFFS[1])
    tail = (up_1, up_2)[i]
    return {"x": input, "y": target, "W": head_weight, "b": head_bias or [0.0] * 4, "A": {0: down_1, 1: down_2},
            "B": {0: up_1, 1: up_2}, "c": list(CUTOFFS), "i": i, **dict.fromkeys("jk", Each(range(len(head_weight)))),
            **dict.fromkeys("ln", Each(range(len(tail))))}  # fmt: skip


def peer(input, head_weight, target, down_1, up_1, down_2, up_2, head_bias=None, reduction="mean"):
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(**sizes(head_bias))
    parameters = state(head_weight, down_1, up_1, down_2, up_2, head_bias)
    return reduce(-functional_call(module, parameters, (input, target)).output, reduction)


def sizes(head_bias=None):
    *cutoffs, classes = CUTOFFS
    return dict(in_features=FEATURES, n_classes=classes, cutoffs=cutoffs, head_bias=head_bias is not None)


def state(head_weight, down_1, up_1, down_2, up_2, head_bias=None):
    weights = {"head.weight": head_weight, "head.bias": head_bias, "tail.0.0.weight": down_1, "tail.0.1.weight": up_1,
               "tail.1.0.weight": down_2, "tail.1.1.weight": up_2}  # fmt: skip
    return {k: w for k, w in weights.items() if w is not None}


def value(result, reduction="mean"):
    return result.loss if reduction == "mean" else reduce(-result.output, reduction)


def weights(size):
    """The weights of the head and the tails, with the given number for each feature."""
    made = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    for name, features in (("head_weight", HEAD), ("down_1", TAIL_1), ("down_2", TAIL_2)):
        made[name][:, features] = torch.diag(size[features])
    made["up_1"].fill_diagonal_(0.5)
    made["up_2"].fill_diagonal_(0.5)
    return made


def eighths(draw, *shape):
    return draw.tensor(draw.integers(*shape, low=-15, high=16).double() / 8)


def indices(*target, bias=False):
    def sample(draw):
        size = 2.0 ** draw.integers(FEATURES, low=-1, high=2).cpu() * draw.sign(FEATURES).cpu().double()
        made = {name: draw.tensor(weight) for name, weight in weights(size).items()}
        made |= dict(input=eighths(draw, len(target), FEATURES), target=draw.tensor(list(target)))
        return {**made, "head_bias": eighths(draw, 4)} if bias else made

    return sample


def confident(gap, scale=1.0):
    """Targets whose scores lead by a gap in the head and in their tails, or trail if it is negative."""
    lead = torch.tensor([[0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0, 1]]).double()

    def sample(draw):
        made = {name: draw.tensor(weight) for name, weight in weights(torch.full((FEATURES,), 2.0).double()).items()}
        made["head_weight"] = made["head_weight"] / 2
        values = draw.normal(3, FEATURES, scale=scale) + draw.tensor(gap * lead)
        return dict(input=values, target=draw.tensor([1, 2, 5]), **made)

    return sample


SIMPLE = dict(head_weight=[[1.0], [0.0], [0.0], [0.0]], down_1=[[1.0]], up_1=[[1.0], [0.0]], down_2=[[1.0]],
              up_2=[[1.0], [0.0], [0.0]])  # fmt: skip

SPEC = Spec(
    name="adaptive_log_softmax_with_loss",
    fn=adaptive,
    modules=(
        Module(AdaptiveLogSoftmaxWithLoss, sizes, state, value, methods={"log_prob": log_prob, "predict": predict}),
    ),
    peer=peer,
    inputs=(
        Input("input"),
        Input("head_weight", batch=None),
        Input("target"),
        *(Input(name, batch=None) for name in ("down_1", "up_1", "down_2", "up_2", "head_bias")),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    chapter=adaptive_log_softmax_with_loss.__doc__,
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={  # each has a word of every cluster, since a tail without one gets no gradient
        "typical": indices(1, 5, 3),
        "biased": indices(0, 2, 6, 1, bias=True),
        "rare words": indices(3, 4, 4),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(-gap) for gap in GAPS},
        "tiny": confident(0, scale=1e-30),
        "saturated": confident(1e4),
        "huge": confident(0, scale=1e30),
    },
    pins=(
        Pin(dict(SIMPLE, input=[[0.0]], target=[0], reduction="none"), "one of four", value=[1.3862943611198906]),
        Pin(dict(SIMPLE, input=[0.0], target=0, reduction="none"), "likewise without a batch",
            value=1.3862943611198906),
        Pin(dict(SIMPLE, input=[[0.0]], target=[6], reduction="none"), "one of four, then one of three",
            value=[2.4849066497880004]),
        Pin(dict(SIMPLE, input=[[0.0], [NAN]], target=[0, 6], reduction="none"), "NaN in a row makes the row NaN",
            value=[1.3862943611198906, NAN]),
    ),
    errors=(
        Error(dict(target=lambda target, **_: 0 * target + 7), RuntimeError, r"Target values should be in \[0, 6\]"),
        Error(dict(target=lambda target, **_: 0 * target - 1), RuntimeError, r"Target values should be in \[0, 6\]"),
        Error(dict(target=lambda target, **_: target + 4), RuntimeError, r"Target values should be in \[0, 6\]"),
        Error(dict(target=lambda target, **_: target - 100), RuntimeError, r"Target values should be in \[0, 6\]"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "same size in the batch dimension"),
        Error(dict(target=lambda target, **_: target[0]), RuntimeError, "0D target tensor expects 1D input"),
        Error(dict(input=lambda input, **_: input[:, 0]), RuntimeError, "1D target tensor expects 2D input"),
        Error(dict(target=lambda target, **_: target[None]), RuntimeError, "multi-target not supported"),
        Error(dict(target=lambda target, **_: target.int()), RuntimeError, "target dtype"),
    ),
    order=3,
)  # fmt: skip


def growing(s, target):
    """Classes 0 and 1 are in the head, 2 and 3 in one cluster."""
    head = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], dtype=s.dtype)
    tail = (torch.tensor([[1.0, -1.0]], dtype=s.dtype), torch.tensor([[0.5], [-0.5]], dtype=s.dtype))
    return dict(
        input=curves.features(s), target=curves.classes(s, int(target)), head_weight=head, tails=[tail], cutoffs=[2, 4]
    )


CURVE = curves.Curve(
    "features, as a multiple of a fixed direction",
    (-3, 4),
    growing,
    {"target": curves.Slider("target: 0 and 1 are frequent, 2 and 3 rare", 2.0, 0.0, 3.0, 1.0)},
    adaptive_cross_entropy,
)
