"""The sigmoid loss of pairs, with scale and bias that are numbers or are learned."""

from __future__ import annotations

import torch
from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import REAL, Pin, Spec, reduce
from manual_grad.losses.contrastive.siglip_loss import siglip_loss
from manual_grad.specs import pairs
from manual_grad.specs.pairs import GAPS, LOG2, NAN, dot
from manual_grad.study import curves


def definition(image_features, text_features, logit_scale, logit_bias, reduction="none"):
    z = logit_scale * image_features @ text_features.mT + logit_bias
    signs = 2 * torch.eye(len(z), dtype=z.dtype, device=z.device) - 1
    return reduce(-F.logsigmoid(signs * z).sum(1), reduction)


def oracle(image_features, text_features, logit_scale, logit_bias, **_):
    scores = [logit_scale * dot(image_features[0], y) + logit_bias for y in text_features]
    return sum(log(1 + exp(z)) for z in (-scores[0], *scores[1:]))


def symbols(draw, image_features, text_features, logit_scale, logit_bias, **_):
    if len(image_features[0]) > 4:
        return None  # second derivatives by differences take their time
    made = pairs.letters(draw, dict(x=image_features, y=text_features), dict(a=logit_scale, b=logit_bias))
    return made | {"j": Each(range(len(text_features)))}


def learned(draw):
    numbers = dict(logit_scale=draw.tensor(2.0), logit_bias=draw.tensor(-0.75))
    return {**pairs.captioned_at_random(3)(draw), **numbers}


def confident(gap, right=True, **numbers):
    """All pairs are told by a score of this size, with the right sign or the wrong one."""
    sign = 2 * torch.eye(3, dtype=torch.float64) - 1
    size = gap if right else -gap
    numbers = {"logit_scale": 1.0, "logit_bias": 0.0, **numbers}
    return pairs.captioned(lambda draw: (*pairs.scored(draw, pairs.eighths(draw, 3, 3) + size * sign), numbers))


SPEC = Spec(
    fn=siglip_loss,
    inputs=pairs.features("image_features", "text_features", logit_scale=REAL, logit_bias=REAL),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    blocks=pairs.BLOCKS,
    params=(
        dict(reduction="mean", logit_scale=4.0, logit_bias=-4.0),
        dict(reduction="none", logit_scale=0.5, logit_bias=0.25),
        dict(reduction="sum", logit_scale=-2.0, logit_bias=0.5),
    ),
    samples={
        "typical": pairs.captioned_at_random(3),
        "learned": learned,
        "few features": pairs.captioned(lambda draw: [draw.tensor(pairs.eighths(draw, 3, 2)) for _ in range(2)]),
        "few features, two pairs": pairs.captioned(
            lambda draw: (
                *(draw.tensor(pairs.eighths(draw, 2, 3)) for _ in range(2)), dict(logit_scale=0.5, logit_bias=0.25)
            )
        ),
        "one pair": pairs.captioned_at_random(1),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in (20, 80)},
        "by the bias": confident(0, logit_bias=-16.0),
        "tiny": pairs.captioned_at_random(3, 2.0**-60),
        "saturated": confident(1e4),
        "tied": pairs.captioned(lambda draw: pairs.scored(draw, torch.zeros(3, 3))),
    },
    pins=(
        Pin(dict(image_features=[[0.0], [0.0]], text_features=[[1.0], [2.0]], logit_scale=3.0, logit_bias=0.0,
                 reduction="mean"), "nothing is told", value=2 * LOG2),
        Pin(dict(image_features=[[NAN], [0.0]], text_features=[[1.0], [1.0]], logit_scale=1.0, logit_bias=0.0,
                 reduction="none"), "NaN stays in its row", value=[NAN, 2 * LOG2]),
    ),
    errors=pairs.errors("image_features", "text_features", "logit_scale"),
    widens=True,
    order=3,
)  # fmt: skip


def turning(s, others, logit_bias):
    return pairs.turning_image(s, others, logit_scale=4.0, logit_bias=logit_bias)


CURVE = curves.Curve(
    "angle of an image to its text, in radians",
    (-3.1, 3.1),
    turning,
    {
        "others": curves.Slider("angle of the other text", 2.0, 0.0, 3.0, 0.5),
        "logit_bias": curves.Slider("bias", -2.0, -8.0, 2.0, 1.0),
    },
    pairs.at_each(siglip_loss),
)
