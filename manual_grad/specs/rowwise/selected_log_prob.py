"""The log-probability of a chosen class and the entropy: each alone, and both, so that neither's gradient is lost."""

from __future__ import annotations

import math

from mpmath import exp, log, tanh
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise import selected_log_prob as loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 20, 40, 60)


def selected_log_prob(input, index, output="log_prob", reduction="none", **options):
    """One of the outputs, or a combination of both; the classes are dimension 1, as in the other losses of rows."""
    input = input.movedim(1, -1) if input.dim() > 2 else input
    if output == "log_prob":
        return reduce(loss.selected_log_prob(input, index, **options), reduction)
    log_prob, entropy = loss.log_prob_and_entropy(input, index, **options)
    return reduce(entropy if output == "entropy" else 2 * entropy - log_prob, reduction)


def definition(
    input, index, output="log_prob", temperature=1.0, softcap=None, logit_scale=1.0, ignore_index=-100, reduction="none"
):
    input = input.movedim(1, -1) if input.dim() > 2 else input
    z = logit_scale * input
    z = (z if softcap is None else (softcap * (z / softcap).tanh()).where(z > -INF, z)) / temperature
    kept = index != ignore_index
    log_p = z.log_softmax(-1)
    log_prob = log_p.gather(-1, index.where(kept, 0).unsqueeze(-1)).squeeze(-1)
    entropy = -(log_p.exp() * log_p.where(log_p > -INF, 0.0)).sum(-1)
    lse = z.logsumexp(-1)
    outputs = {"log_prob": log_prob, "entropy": entropy, "lse": lse, "both": 2 * entropy - log_prob}
    return reduce(outputs[output].where(kept, 0.0), reduction)


def oracle(input, index, output="log_prob", temperature=1, softcap=None, logit_scale=1, ignore_index=-100, **_):
    if index == ignore_index:
        return 0
    z = [logit_scale * x for x in input]
    z = [(x if softcap is None or x == -INF else softcap * tanh(x / softcap)) / temperature for x in z]
    lse = log(sum(map(exp, z)))
    log_prob, entropy = z[index] - lse, sum(exp(x - lse) * (lse - x) for x in z)
    return {"log_prob": log_prob, "entropy": entropy, "lse": lse, "both": 2 * entropy - log_prob}[output]


def confident(gap, right=True, scale=1.0):
    """Scores of which those of the class asked for, or of the one after it, lead by a gap."""

    def sample(draw):
        index = draw.integers(3, high=5)
        lead = gap * F.one_hot(index if right else (index + 1) % 5, 5)
        return dict(input=draw.normal(3, 5, scale=scale) + draw.tensor(lead.double()), index=index)

    return sample


def symbols(
    draw, input, index, output="log_prob", temperature=1.0, softcap=None, logit_scale=1.0, ignore_index=-100, **_
):
    if index == ignore_index or len(input) > 5:  # second derivatives by differences take their time
        return None
    classes = range(len(input))
    upstream = {"log_prob": (1.0, 0.0, 0.0), "entropy": (0.0, 1.0, 0.0), "lse": (0.0, 0.0, 1.0)}
    g_y, g_entropy, g_lse = upstream.get(output, (-1.0, 2.0, 0.0))
    return {"x": input, "y": index, "k": max(classes, key=input.__getitem__), "a": logit_scale, "T": temperature,
            r"\kappa": softcap or 1e9, "or": int(softcap is None), "g_y": g_y, "g_H": g_entropy, "g_s": g_lse,
            "q": draw.uniform(len(input)).tolist(),
            **dict.fromkeys("cij", Each(classes)), r"\dot z": draw.normal(len(input)).tolist()}  # fmt: skip


SPEC = Spec(
    fn=selected_log_prob,
    chapter=loss.__doc__,
    inputs=(Input("input"), Input("index")),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        {},
        dict(output="both", reduction="none"),
        dict(output="entropy"),
        dict(output="both", reduction="mean"),
        dict(output="both", reduction="sum"),
        dict(output="both", temperature=0.75),
        dict(output="both", temperature=0.5, softcap=2.0, logit_scale=1.5),
        dict(output="entropy", softcap=30.0),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 5), index=draw.integers(3, high=5)),
        "ignored": lambda draw: dict(input=draw.normal(4, 5), index=draw.tensor([2, 1, 0, 2]), ignore_index=2),
        "sequence": lambda draw: dict(input=draw.normal(2, 5, 3), index=draw.integers(2, 3, high=5)),
        "unbatched": lambda draw: dict(input=draw.normal(5), index=draw.integers(high=5)),
        "many classes": lambda draw: dict(input=draw.normal(2, 70), index=draw.integers(2, high=70)),
        "one class": lambda draw: dict(input=draw.normal(3, 1), index=draw.integers(3, high=1)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in GAPS},
        "tiny": confident(0, scale=1e-30),
        "saturated": confident(1e4),
        "offset": lambda draw: dict(input=1e4 + draw.normal(3, 5), index=draw.integers(3, high=5)),
        "tied leaders": lambda draw: dict(input=draw.tensor([[9.0, 9.0, -30.0], [0.0, 0.0, 0.0]]),
                                          index=draw.tensor([0, 1])),
        "beyond the softcap": lambda draw: dict(input=draw.normal(3, 5, scale=20.0), index=draw.integers(3, high=5),
                                                softcap=2.0),
    },
    pins=(
        Pin(dict(input=[[0.0, -INF, 0.0]], index=[0], output="both"), "an impossible class", value=[3 * math.log(2)],
            gradient=dict(input=[[-0.5, 0.0, 0.5]])),
        Pin(dict(input=[[0.0, -INF]], index=[1], output="log_prob"), "the impossible class is asked for", value=[-INF],
            gradient=dict(input=[[-1.0, 1.0]])),
        Pin(dict(input=[[3.0, -INF, -INF]], index=[0], output="both"), "only one class is possible", value=[0.0],
            gradient=dict(input=[[0.0, 0.0, 0.0]])),
        Pin(dict(input=[[-INF, -INF]], index=[0], output="both"), "no class is possible", value=[NAN]),
        Pin(dict(input=[[NAN, 0.0]], index=[1], output="both"), "NaN in a row makes the row NaN", value=[NAN]),
        Pin(dict(input=[[NAN, INF], [0.0, 0.0]], index=[-100, 1], output="both"),
            "the contents of an ignored row do not matter", value=[0.0, 3 * math.log(2)],
            gradient=dict(input=[[0.0, 0.0], [0.5, -0.5]])),
    ),
    errors=(
        Error(dict(index=lambda index, **_: index + 5), IndexError, r"[Tt]arget \d+ is out of bounds"),
        Error(dict(index=lambda index, **_: index[:2]), RuntimeError, "index: expected shape"),
        Error(dict(index=lambda index, **_: index.int()), RuntimeError, "index: expected scalar type Long"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "floating point"),
        Error(dict(input=lambda input, **_: input[0, 0]), IndexError, "[Dd]imension"),
        Error(dict(temperature=0.0), ValueError, "temperature"),
        Error(dict(temperature="hot"), TypeError, "temperature"),
        Error(dict(softcap=-1.0), ValueError, "softcap"),
        Error(dict(logit_scale=INF), ValueError, "logit_scale"),
        Error(dict(ignore_index=1.5), TypeError, "ignore_index"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "score of the class asked for; the others are 0 and the rival's",
    (-6, 8),
    lambda s, rival: dict(input=curves.rows(s, s, 0, rival), index=curves.classes(s, 0), output="both"),
    {"rival": curves.Slider("rival, the score of another class", 0.0, -2.0, 4.0, 1.0)},
)
