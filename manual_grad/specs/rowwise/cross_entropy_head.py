"""Cross entropy with additions: every one alone and together, on class indices and on probabilities."""

from __future__ import annotations

import math

from mpmath import exp, log, tanh

from gradcheck.formulas import Each
from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise import cross_entropy_head as loss
from manual_grad.losses.rowwise.cross_entropy import cross_entropy
from manual_grad.specs.rowwise import cross_entropy as rows
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def combined(head, output, reduction, **options):
    """The loss alone, as by a call that asks for nothing else; or a combination of all outputs with gradients."""
    if output == "loss":
        return head(reduction=reduction, **options)
    found = head(reduction=reduction, return_z_loss=True, lse=True, accuracy=True, **options)
    return found.loss + 2 * found.z_loss + reduce(found.lse, reduction)


def cross_entropy_head(input, target, weight=None, token_weight=None, output="loss", reduction="mean", **options):
    def head(**more):
        return cross_entropy(input, target, weight, token_weight=token_weight, **more)

    return combined(head, output, reduction, **options)


def definition(
    input, target, weight=None, token_weight=None, output="loss", reduction="mean", ignore_index=-100,
    label_smoothing=0.0, temperature=1.0, softcap=None, logit_scale=1.0, z_loss=0.0,
):  # fmt: skip
    dim = 1 if input.dim() > 1 else 0
    z = logit_scale * input
    z = (z if softcap is None else (softcap * (z / softcap).tanh()).where(z > -INF, z)) / temperature
    nll = rows.definition(z, target, weight, ignore_index, "none", label_smoothing)
    counts = nll.new_ones(nll.shape)
    kept = counts > 0
    if not target.is_floating_point():
        kept = target.long() != ignore_index
        if weight is not None:
            counts = weight.to(nll.dtype)[target.long().where(kept, 0)]
    counts = counts.where(kept, 0.0)
    lse = z.logsumexp(dim).where(kept, 0.0)
    w = 1.0 if token_weight is None else token_weight
    loss, added = w * (nll + z_loss * lse.square()), w * z_loss * lse.square()
    if reduction != "none":
        divisor = 1.0 if reduction == "sum" else (w * counts).sum()
        loss, added, lse = loss.sum() / divisor, added.sum() / divisor, lse.sum()
    return loss if output == "loss" else loss + 2 * added + lse


def logits(input, temperature=1, softcap=None, logit_scale=1):
    z = [logit_scale * x for x in input]
    return [(x if softcap is None or x == -INF else softcap * tanh(x / softcap)) / temperature for x in z]


def oracle(
    input, target, weight=None, token_weight=1, output="loss", reduction="mean", ignore_index=-100, label_smoothing=0,
    z_loss=0, **options,
):  # fmt: skip
    z = logits(input, **options)
    nll, share = rows.oracle(z, target, weight, ignore_index, label_smoothing)
    if not isinstance(target, list) and target == ignore_index:
        return 0, 0
    lse = log(sum(map(exp, z)))
    value = token_weight * (nll + z_loss * lse**2)
    if output != "loss":
        value += 2 * token_weight * z_loss * lse**2 + lse
    return value, token_weight * share


def symbols(
    draw, input, target, weight=None, token_weight=None, output="loss", ignore_index=-100, label_smoothing=0.0,
    z_loss=0.0, temperature=1.0, softcap=None, logit_scale=1.0, **_,
):  # fmt: skip
    if target == ignore_index or isinstance(target, list) or token_weight is not None or output != "loss":
        return None
    classes = range(len(input))
    w = weight or [1.0 for _ in classes]
    return {"x": input, "y": target, "w": w, r"\varepsilon": label_smoothing, "C": len(input),
            r"\lambda": z_loss, "a": logit_scale, "T": temperature, r"\kappa": softcap or 1e9,
            "or": int(softcap is None), **dict.fromkeys("cij", Each(classes))}  # fmt: skip


def with_tokens(sample):
    def made(draw):
        arguments = sample(draw)
        return {**arguments, "token_weight": draw.uniform(*rows_of(arguments["input"]), low=0.5)}

    return made


def rows_of(scores):
    return [*scores.shape[:1], *scores.shape[2:]] if scores.dim() > 1 else []


SAMPLES = {  # of cross entropy, and whether the tokens have weights
    "typical": False,
    "weighted": False,
    "ignored": True,
    "image": False,
    "probabilities": True,
    "weighted probabilities": False,
    "image of probabilities": True,
    "unbatched": False,
    "unbatched probabilities": False,
    "bytes": True,
    "all smooth": False,
    "one class": True,
}
REGIMES = ("confident 10", "confident 20", "confident 80", "wrong by 20", "soft 20", "soft 80", "tiny", "saturated",
           "tied leaders", "weighted, confident")  # fmt: skip


def at_zero(draw):
    """Logits whose log-sum-exp is near 0, where the slope of the z-loss changes its sign."""
    x = draw.normal(3, 5)
    return dict(input=x - x.logsumexp(1, keepdim=True) + draw.tensor([1e-3, -1e-3, 0.1])[:, None],
                target=draw.integers(3, high=5))  # fmt: skip


SPEC = Spec(
    fn=cross_entropy_head,
    chapter=loss.__doc__,
    inputs=(
        Input("input"),
        Input("target", domain=UNIT),
        Input("weight", differentiable=lambda target, **_: target.is_floating_point(), batch=None),
        Input("token_weight"),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean", z_loss=0.25, label_smoothing=0.125),
        dict(reduction="none", temperature=1.25),
        dict(reduction="sum", softcap=2.0, logit_scale=1.5),
        dict(reduction="mean", softcap=2.0, temperature=0.5, z_loss=0.25, label_smoothing=0.125),
        dict(reduction="none", output="all", z_loss=0.25),
        dict(reduction="sum", output="all", softcap=20.0, z_loss=0.25, label_smoothing=0.125),
    ),
    samples={
        name: with_tokens(rows.SPEC.samples[name]) if by_token else rows.SPEC.samples[name]
        for name, by_token in SAMPLES.items()
    },
    regimes={
        **{name: rows.SPEC.regimes[name] for name in REGIMES},
        "offset": lambda draw: dict(input=1e4 + draw.normal(3, 5), target=draw.integers(3, high=5)),
        "beyond the softcap": lambda draw: dict(input=draw.normal(3, 5, scale=20.0), target=draw.integers(3, high=5),
                                                softcap=2.0),
        "a log-sum-exp near 0": at_zero,
    },
    pins=(
        Pin(dict(input=[[NAN, 1.0], [0.0, 0.0]], target=[0, 1], token_weight=[0, 2], reduction="sum"),
            "a row of weight 0 may hold NaN", value=2 * math.log(2), gradient=dict(input=[[0.0, 0.0], [1.0, -1.0]])),
        Pin(dict(input=[[NAN, 1.0], [0.0, 0.0]], target=[[0.5, 0.5], [0.0, 1.0]], token_weight=[0, 2],
                 reduction="sum"),
            "likewise with probabilities", value=2 * math.log(2), gradient=dict(input=[[0.0, 0.0], [1.0, -1.0]])),
        Pin(dict(input=[[1.0, 2.0], [0.0, 0.0]], target=[0, -100], token_weight=[0, 1], z_loss=1.0),
            "no row counts: 0 / 0, and no gradient", value=NAN, gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]])),
        Pin(dict(input=[[0.0, -INF, 0.0]], target=[0], reduction="sum", softcap=5.0, z_loss=1.0),
            "an impossible class", value=math.log(2) + math.log(2) ** 2,
            gradient=dict(input=[[-0.5 + math.log(2), 0.0, 0.5 + math.log(2)]])),
    ),
    errors=(
        Error(dict(temperature=0.0), ValueError, "temperature"),
        Error(dict(softcap=-1.0), ValueError, "softcap"),
        Error(dict(logit_scale="1"), TypeError, "logit_scale"),
        Error(dict(z_loss=-1.0), ValueError, "z_loss"),
        Error(dict(z_loss="much"), TypeError, "z_loss"),
        Error(dict(normalizer=2.0, reduction="sum"), ValueError, "normalizer"),
        Error(dict(shift=1), TypeError, "shift"),
        Error(dict(shift=True, target=lambda input, **_: input.softmax(1)), RuntimeError, "shift"),
        Error(dict(token_weight=lambda input, **_: input[:2, 0]), RuntimeError, "token_weight"),
        Error(dict(token_weight=lambda input, **_: input[:, 0] * 1j), RuntimeError, "token_weight"),
        Error(dict(token_weight="all"), TypeError, "token_weight"),
        Error(dict(target=lambda target, **_: target + 5), IndexError, r"[Tt]arget \d+ is out of bounds"),
        Error(dict(label_smoothing=1.5), RuntimeError, "label_smoothing"),
        Error(dict(weight=lambda input, **_: input[0, :2]), RuntimeError, "weight"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "logit of the target; the others are 0 and the rival's",
    (-6, 8),
    lambda s, rival, z_loss: dict(input=curves.rows(s, s, 0, rival), target=curves.classes(s, 0), z_loss=z_loss),
    {
        "rival": curves.Slider("rival, the logit of another class", 0.0, -2.0, 4.0, 1.0),
        "z_loss": curves.Slider("factor of the z-loss", 0.1, 0.0, 0.3, 0.05),
    },
    loss=cross_entropy,
)
