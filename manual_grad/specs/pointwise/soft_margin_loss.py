"""Soft margin: the logistic loss of target times score."""

from __future__ import annotations

from mpmath import exp, log

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.soft_margin_loss import soft_margin_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 15, 20, 40, 80)


def definition(input, target, reduction="mean"):
    return reduce((1 + (-target * input).exp()).log(), reduction)


def oracle(input, target, **_):
    return log(1 + exp(-target * input))


def confident(gap):
    """Predictions with a logit gap: two right, two wrong."""
    return lambda draw: dict(input=gap * draw.tensor([1.0, -1.0, 1.0, -1.0]) + draw.normal(4, scale=0.01),
                             target=draw.tensor([1.0, -1.0, -1.0, 1.0]))  # fmt: skip


SPEC = Spec(
    fn=soft_margin_loss,
    inputs=(Input("input"), Input("target")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, **_: {"x": input, "t": target},
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=draw.sign(3, 4)),
        "soft targets": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.tensor(-1.0)),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3), target=draw.sign(3)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.sign(2, 3, 2, 2)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=draw.sign(8)),
        "overflowing": lambda draw: dict(input=draw.tensor([200.0, -200.0, 1e4, -1e4]),
                                         target=draw.tensor([-1.0, 1.0, -1.0, 1.0])),
        "underflowing": lambda draw: dict(input=draw.tensor([85.0, -85.0, 1e4, -1e4]),
                                          target=draw.tensor([1.0, -1.0, 1.0, -1.0])),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.sign(8)),
        "steep": lambda draw: dict(input=draw.normal(8, scale=10.0), target=draw.normal(8, scale=10.0)),
    },
    pins=(
        Pin(dict(input=[INF, -INF], target=[1.0, -1.0], reduction="none"), "certain and right: loss and gradient 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0], target=[0.0, 0.0])),
        Pin(dict(input=[INF, -INF, NAN], target=[-1.0, 1.0, 1.0], reduction="none"), "certain and wrong",
            value=[INF, INF, NAN], gradient=dict(input=[1.0, -1.0, NAN], target=[-INF, INF, NAN])),
        Pin(dict(input=[200.0], target=[-1.0], reduction="none"), "nothing overflows",
            value=[200.0], gradient=dict(input=[1.0], target=[-200.0])),
        Pin(dict(input=[0.0, 3.0], target=[1.0, 0.0], reduction="none"), "a margin of 0: q is 1/2",
            value=[0.6931471805599453] * 2, gradient=dict(input=[-0.5, 0.0], target=[0.0, -1.5])),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[None]), RuntimeError, "output with shape .* target"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "input"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "score x", (-5, 5), lambda s, target: dict(input=s, target=curves.everywhere(s, target)), {"target": curves.SIGN}
)
