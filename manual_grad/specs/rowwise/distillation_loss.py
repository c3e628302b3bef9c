"""Distillation from two rows of logits: four divergences, of students near to the teacher and far from it."""

from __future__ import annotations

import torch
from mpmath import exp, log, mpf

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Module, Pin, Spec, reduce
from manual_grad.losses.rowwise import distillation_loss as loss
from manual_grad.specs.policy import MASK
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
NAMES = ("forward_kl", "reverse_kl", "jsd", "tv")
GAPS = {10: {}, 20: {}, 80: dict(temperature=1.0)}  # where 0.75 divides 80, float32 underflows


def distillation_loss(input, teacher, **options):
    """The classes are dimension 1, as in the other losses of rows."""
    if input.dim() > 2 and teacher.dim() > 2:
        input, teacher = input.movedim(1, -1), teacher.movedim(1, -1)
    return loss.distillation_loss(input, teacher, **options)


class DistillationLoss(loss.DistillationLoss):
    def forward(self, input, teacher, mask=None):
        if input.dim() > 2:
            input, teacher = input.movedim(1, -1), teacher.movedim(1, -1)
        return super().forward(input, teacher, mask)


def definition(
    input, teacher, divergence="forward_kl", beta=0.5, temperature=1.0, mask=None, reduction="mean", normalizer=None
):
    dim = 1 if input.dim() > 1 else 0
    log_p, log_q = (input / temperature).log_softmax(dim), (teacher / temperature).log_softmax(dim)
    p, q = log_p.exp(), log_q.exp()
    m = beta * q + (1 - beta) * p
    terms = {
        "forward_kl": lambda: q * (log_q - log_p),
        "reverse_kl": lambda: p * (log_p - log_q),
        "jsd": lambda: beta * q * (log_q - m.log()) + (1 - beta) * p * (log_p - m.log()),
        "tv": lambda: (p - q).abs() / 2,
    }
    e = terms[divergence]().sum(dim) * temperature**2
    w = torch.ones_like(e) if mask is None else mask.to(e.dtype).expand_as(e)
    return reduce(w * e, reduction, w.sum())


def divergence_of(p, q, name, beta):
    """In exact arithmetic, of two lists of probabilities; 0 log 0 is 0."""

    def kl(a, b):
        return sum((x * (log(x) - log(y)) for x, y in zip(a, b, strict=True) if x), mpf(0))

    m = [beta * y + (1 - beta) * x for x, y in zip(p, q, strict=True)]
    return {
        "forward_kl": lambda: kl(q, p),
        "reverse_kl": lambda: kl(p, q),
        "jsd": lambda: beta * kl(q, m) + (1 - beta) * kl(p, m),
        "tv": lambda: sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2,
    }[name]()


def softmax(scores, temperature):
    e = [exp(x / temperature) for x in scores]
    return [x / sum(e) for x in e]


def oracle(input, teacher, divergence="forward_kl", beta=0.5, temperature=1, mask=1, **_):
    p, q = softmax(input, mpf(temperature)), softmax(teacher, mpf(temperature))
    value = divergence_of(p, q, divergence, mpf(beta)) * mpf(temperature) ** 2
    return mask * value, mask + 0 * value


def symbols(draw, input, teacher, divergence="forward_kl", beta=0.5, temperature=1.0, mask=1, **_):
    if mask != 1 or len(input) > 5:  # second derivatives by differences take their time
        return None
    classes = range(len(input))
    leaders = {letter: max(classes, key=row.__getitem__) for letter, row in (("k", input), ("l", teacher))}
    direction = {rf"\dot {x}": draw.normal(len(input)).tolist() for x in "xt"}
    return {"x": input, "t": teacher, "T": temperature, "D": 1 + NAMES.index(divergence), r"\beta": beta, **leaders,
            **dict.fromkeys("cj", Each(classes)), **direction}  # fmt: skip


def crossing(input, teacher, divergence="forward_kl", temperature=1.0, mask=None, **_):
    """log p - log q, whose sign is the slope of the total variation."""
    dim = 1 if input.dim() > 1 else 0
    u = (input / temperature).log_softmax(dim) - (teacher / temperature).log_softmax(dim)
    u = u if mask is None else torch.where(mask.unsqueeze(dim) == 0, 1, u)
    return u if divergence == "tv" else torch.ones_like(u)


def confident(gap, same=True, distance=1.0, **options):
    """Teachers that are sure of a class by a gap, and students that are as sure of the same one or of another."""

    def sample(draw):
        lead = draw.tensor([[gap, 0.0, 0.0, 0.0, 0.0]])
        teacher = draw.normal(3, 5) + lead
        student = teacher + draw.normal(3, 5, scale=distance) if same else draw.normal(3, 5) + lead.roll(1, 1)
        return dict(input=student, teacher=teacher) | options

    return sample


def near(distance, offset=0.0, scale=1.0):
    """Students at this distance from the teacher."""

    def sample(draw):
        teacher = offset + draw.normal(3, 5, scale=scale)
        return dict(input=teacher + draw.normal(3, 5, scale=distance), teacher=teacher)

    return sample


def only_in_the_tail(draw):
    """What both are sure of, they agree on."""
    teacher = draw.tensor([[0.0, 0.0, -40.0, -41.0], [3.0, -20.0, -30.0, -30.0], [5.0, 5.0, 5.0, -60.0]])
    return dict(input=teacher + draw.tensor([[0.0, 0.0, 3.0, -1.0], [0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 9.0]]),
                teacher=teacher)  # fmt: skip


def less_sure(draw):
    """Students that are sure of a class by less than the teacher is: they overrate all others by far."""
    teacher = draw.normal(3, 5) + draw.tensor([[70.0, 0.0, 0.0, 0.0, 0.0]])
    student = draw.normal(3, 5) + draw.tensor([[0.0, 0.0, 0.0, 0.0, 35.0]])
    return dict(input=student, teacher=teacher, temperature=1.0)


def at_fixed_scores(**changes):
    return dict(input=[[0.0, 0.0], [0.0, 0.0]], teacher=[[0.0, 0.0], [0.0, 0.0]], reduction="none") | changes


def both(change):
    return dict(input=lambda input, **_: change(input), teacher=lambda teacher, **_: change(teacher))


LOG2 = 0.6931471805599453

SPEC = Spec(
    fn=distillation_loss,
    chapter=loss.__doc__,
    inputs=(Input("input"), Input("teacher"), MASK),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(divergence="reverse_kl", reduction="none"),
        dict(divergence="tv", reduction="sum"),
        dict(divergence="jsd", temperature=2.0, reduction="mean"),
        dict(divergence="jsd", beta=0.1, reduction="sum"),
        dict(temperature=0.75, reduction="none"),
        dict(divergence="reverse_kl", temperature=3.0, reduction="mean"),
        dict(divergence="tv", temperature=2.0, reduction="none"),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 5), teacher=draw.normal(3, 5)),
        "masked": lambda draw: dict(input=draw.normal(4, 5), teacher=draw.normal(4, 5),
                                    mask=draw.tensor([1, 1, 0, 1])),
        "weighted": lambda draw: dict(input=draw.normal(3, 5), teacher=draw.normal(3, 5),
                                      mask=draw.uniform(3, high=2.0)),
        "sequence": lambda draw: dict(input=draw.normal(2, 5, 3), teacher=draw.normal(2, 5, 3),
                                      mask=draw.integers(2, 3, high=2)),
        "unbatched": lambda draw: dict(input=draw.normal(5), teacher=draw.normal(5)),
        "many classes": lambda draw: dict(input=draw.normal(2, 70), teacher=draw.normal(2, 70)),
        "one class": lambda draw: dict(input=draw.normal(3, 1), teacher=draw.normal(3, 1)),
    },
    regimes={
        **{f"confident {gap}": confident(gap, **options) for gap, options in GAPS.items()},
        **{f"confident {gap}, near": confident(gap, distance=1e-3) for gap in (10, 20, 40)},
        **{f"wrong by {gap}": confident(gap, same=False, **options) for gap, options in GAPS.items()},
        **{f"within {distance}": near(distance) for distance in (0.1, 1e-3, 1e-6)},
        "near, offset": near(0.01, offset=1e4),
        "offset": lambda draw: dict(input=1e4 + draw.normal(3, 5), teacher=draw.normal(3, 5) - 1e4),
        "less sure": less_sure,
        "only in the tail": only_in_the_tail,
        "tiny": near(1e-15, scale=1e-15),
        "saturated": confident(1e4, same=False),
        "tied": lambda draw: dict(input=draw.tensor([[9.0, 9.0, -30.0], [0.0, 0.0, 0.0]]),
                                  teacher=draw.tensor([[9.0, -30.0, 9.0], [0.0, 0.0, 1.0]])),
    },
    kinks={1: crossing},
    pins=(
        *(Pin(at_fixed_scores(divergence=name), f"a student that is the teacher: {name}", value=[0.0, 0.0],
              gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]], teacher=[[0.0, 0.0], [0.0, 0.0]])) for name in NAMES),
        Pin(at_fixed_scores(input=[[0.0, -INF], [0.0, 0.0]], divergence="tv"), "a class that the student rules out",
            value=[0.5, 0.0]),
        Pin(at_fixed_scores(input=[[0.0, -INF], [0.0, 0.0]], divergence="reverse_kl"), "0 log 0 is 0",
            value=[LOG2, 0.0], gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]], teacher=[[-0.5, 0.5], [0.0, 0.0]])),
        Pin(at_fixed_scores(input=[[0.0, -INF], [0.0, 0.0]]), "what the teacher may say has the probability 0",
            value=[INF, 0.0], gradient=dict(input=[[0.5, -0.5], [0.0, 0.0]])),
        Pin(at_fixed_scores(input=[[0.0, 0.0, -INF]], teacher=[[1.0, 1.0, -INF]]), "a class that both rule out",
            value=[0.0], gradient=dict(input=[[0.0, 0.0, 0.0]], teacher=[[0.0, 0.0, 0.0]])),
        Pin(at_fixed_scores(input=[[NAN, 0.0], [0.0, 0.0]], mask=[1, 1]), "NaN stays in its row", value=[NAN, 0.0]),
        Pin(at_fixed_scores(input=[[NAN, INF], [0.0, 0.0]], teacher=[[-INF, NAN], [0.0, 0.0]], mask=[0, 1],
                            reduction="mean"),
            "the contents of a row that does not count do not matter", value=0.0,
            gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]], teacher=[[0.0, 0.0], [0.0, 0.0]])),
        Pin(at_fixed_scores(input=[[1.0, 0.0], [0.0, 0.0]], mask=[0, 0], reduction="mean"), "no row counts", value=0.0,
            gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]])),
        Pin(at_fixed_scores(input=[[-INF, -INF], [0.0, 0.0]]), "no class is possible", value=[NAN, 0.0]),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(reduction="sum", normalizer=2.0), ValueError, "normalizer"),
        Error(dict(mask=lambda input, **_: input[:, :2]), RuntimeError, "mask"),
        Error(dict(mask="all"), TypeError, "mask"),
        Error(dict(divergence="kl"), ValueError, "divergence"),
        Error(dict(divergence=1), TypeError, "divergence"),
        Error(dict(beta=1.5), ValueError, "beta"),
        Error(dict(beta="half"), TypeError, "beta"),
        Error(dict(temperature=0.0), ValueError, "temperature"),
        Error(dict(temperature="hot"), TypeError, "temperature"),
        Error(dict(teacher=lambda teacher, **_: teacher[:, :4]), ValueError, "teacher"),
        Error(both(lambda x: x.long()), NotImplementedError, "floating point"),
        Error(both(lambda x: x[0, 0]), IndexError, "[Dd]imension"),
    ),
    order=3,
    modules=(Module(DistillationLoss),),
)  # fmt: skip

CURVE = curves.Curve(
    "the student's score of a class; the others are 0",
    (-4, 6),
    lambda s, teacher, temperature, divergence: dict(
        input=curves.rows(s, s, 0, 0), teacher=curves.rows(s, teacher, 0, 0), temperature=temperature,
        divergence=NAMES[int(divergence) - 1]),
    {
        "teacher": curves.Slider("the teacher's score of that class", 2.0, -2.0, 4.0, 1.0),
        "temperature": curves.Slider("temperature", 1.0, 0.5, 2.0, 0.5),
        "divergence": curves.Slider("number of the divergence", 1.0, 1.0, 4.0, 1.0),
    },
)  # fmt: skip
