"""The symmetric contrastive loss, with a scale that is a number or is learned."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from gradcheck.spec import Pin, Spec, reduce
from manual_grad.losses.contrastive.clip_loss import clip_loss
from manual_grad.specs import pairs
from manual_grad.specs.pairs import GAPS, LOG2, NAN, dot, lse
from manual_grad.study import curves


def definition(image_features, text_features, logit_scale, reduction="none"):
    z = logit_scale * image_features @ text_features.mT
    own = torch.arange(len(z), device=z.device)
    loss = F.cross_entropy(z, own, reduction="none") + F.cross_entropy(z.mT, own, reduction="none")
    return reduce(loss / 2, reduction)


def oracle(image_features, text_features, logit_scale, **_):
    of_image = lse([logit_scale * dot(image_features[0], y) for y in text_features])
    of_text = lse([logit_scale * dot(x, text_features[0]) for x in image_features])
    return (of_image + of_text) / 2 - logit_scale * dot(image_features[0], text_features[0])


def symbols(draw, image_features, text_features, logit_scale, **_):
    if len(image_features[0]) > 4:
        return None  # second derivatives by differences take their time
    return pairs.letters(draw, dict(x=image_features, y=text_features), dict(a=logit_scale))


def learned(N):
    return lambda draw: {**pairs.captioned_at_random(N)(draw), "logit_scale": pairs.learned(draw)}


def confident(gap, right=True, scale=1.0):
    return pairs.captioned(
        lambda draw: (*pairs.scored(draw, pairs.leading(draw, 3, 3, gap, right)), dict(logit_scale=scale))
    )


SPEC = Spec(
    fn=clip_loss,
    inputs=pairs.features("image_features", "text_features", logit_scale=pairs.POSITIVE),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    blocks=pairs.BLOCKS,
    params=(
        dict(reduction="mean", logit_scale=2.0),
        dict(reduction="none", logit_scale=1.5),
        dict(reduction="sum", logit_scale=0.7),
    ),
    samples={
        "typical": pairs.captioned_at_random(3),
        "learned scale": learned(3),
        "few features": pairs.captioned(lambda draw: [draw.tensor(pairs.eighths(draw, 3, 2)) for _ in range(2)]),
        "few features, two pairs": pairs.captioned(
            lambda draw: [draw.tensor(pairs.eighths(draw, 2, 3)) for _ in range(2)]
        ),
        "one pair": pairs.captioned_at_random(1),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in (20, 80)},
        "learned, confident 20": lambda draw: {**confident(20)(draw), "logit_scale": pairs.learned(draw)},
        "tiny": pairs.captioned_at_random(3, 2.0**-60),
        "saturated": confident(1e4),
        "tied": pairs.captioned(lambda draw: pairs.scored(draw, torch.zeros(3, 3))),
    },
    pins=(
        Pin(dict(image_features=[[1.0], [2.0]], text_features=[[0.0], [0.0]], logit_scale=3.0, reduction="mean"),
            "all texts are alike, and so are all images for them", value=LOG2,
            gradient=dict(image_features=[[0.0], [0.0]])),
        Pin(dict(image_features=[[3.0]], text_features=[[2.0]], logit_scale=1.0, reduction="mean"), "the only pair",
            value=0.0, gradient=dict(image_features=[[0.0]], text_features=[[0.0]])),
        Pin(dict(image_features=[[NAN], [0.0]], text_features=[[1.0], [1.0]], logit_scale=1.0, reduction="none"),
            "NaN reaches every text", value=[NAN, NAN]),
    ),
    errors=(
        *pairs.errors("image_features", "text_features", "logit_scale"),
        *pairs.not_positive("logit_scale", "image_features"),
    ),
    widens=True,
    order=3,
)  # fmt: skip


def turning(s, others, logit_scale):
    return pairs.turning_image(s, others, logit_scale=logit_scale)


CURVE = curves.Curve(
    "angle of an image to its text, in radians",
    (-3.1, 3.1),
    turning,
    {
        "others": curves.Slider("angle of the other text", 2.0, 0.0, 3.0, 0.5),
        "logit_scale": curves.Slider("scale", 2.0, 0.5, 8.0, 0.5),
    },
    pairs.at_each(clip_loss),
)
