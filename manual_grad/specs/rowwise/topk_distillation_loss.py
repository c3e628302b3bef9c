"""Distillation from a teacher's most probable classes; the other classes are one bucket."""

from __future__ import annotations

import torch
from mpmath import exp, mpf

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Module, Pin, Spec, reduce
from manual_grad.losses.rowwise import topk_distillation_loss as loss
from manual_grad.specs.policy import MASK
from manual_grad.specs.rowwise.distillation_loss import GAPS, NAMES, divergence_of, softmax
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def moved(input, log_probs, indices):
    if input.dim() > 2:
        return input.movedim(1, -1), log_probs.movedim(1, -1), indices.movedim(1, -1)
    return input, log_probs, indices


def topk_distillation_loss(input, teacher_log_probs, teacher_indices, **options):
    """The classes are dimension 1, as in the other losses of rows."""
    return loss.topk_distillation_loss(*moved(input, teacher_log_probs, teacher_indices), **options)


class TopkDistillationLoss(loss.TopkDistillationLoss):
    def forward(self, input, teacher_log_probs, teacher_indices, mask=None):
        input, log_probs, indices = moved(input, teacher_log_probs, teacher_indices)
        return super().forward(input, log_probs, indices, mask)


def categories(input, teacher_log_probs, teacher_indices, temperature):
    """The probabilities of the teacher's classes and of the tail: the student's and the teacher's."""
    input, teacher_log_probs, teacher_indices = moved(input, teacher_log_probs, teacher_indices)
    p, q = (input / temperature).softmax(-1), teacher_log_probs.exp()
    own = p.gather(-1, teacher_indices)
    if own.shape == p.shape:
        return own, q
    tail = p.scatter(-1, teacher_indices, 0).sum(-1, keepdim=True)
    return torch.cat([own, tail], -1), torch.cat([q, 1 - q.sum(-1, keepdim=True)], -1)


def definition(
    input, teacher_log_probs, teacher_indices, divergence="forward_kl", beta=0.5, temperature=1.0, mask=None,
    reduction="mean", normalizer=None,
):  # fmt: skip
    p, q = categories(input, teacher_log_probs, teacher_indices, temperature)
    m = beta * q + (1 - beta) * p
    terms = {
        "forward_kl": lambda: q * (q / p).log(),
        "reverse_kl": lambda: p * (p / q).log(),
        "jsd": lambda: beta * q * (q / m).log() + (1 - beta) * p * (p / m).log(),
        "tv": lambda: (p - q).abs() / 2,
    }
    e = terms[divergence]().sum(-1) * temperature**2
    w = torch.ones_like(e) if mask is None else mask.to(e.dtype).expand_as(e)
    return reduce(w * e, reduction, w.sum())


def oracle(
    input, teacher_log_probs, teacher_indices, divergence="forward_kl", beta=0.5, temperature=1, mask=1, **_
):  # fmt: skip
    p = softmax(input, mpf(temperature))
    own, q = [p[y] for y in teacher_indices], [exp(mpf(b)) for b in teacher_log_probs]
    if len(own) < len(p):
        own.append(sum(r for c, r in enumerate(p) if c not in teacher_indices))
        q.append(1 - sum(q))
    value = divergence_of(own, q, divergence, mpf(beta)) * mpf(temperature) ** 2
    return mask * value, mask + 0 * value


def symbols(draw, input, teacher_log_probs, teacher_indices, divergence="forward_kl", beta=0.5, temperature=1.0,
            mask=1, **_):  # fmt: skip
    if mask != 1 or len(input) > 5 or len(teacher_indices) == len(input):
        return None
    classes, known = range(len(input)), range(len(teacher_indices))
    return {"x": input, "b": [*teacher_log_probs], "y": [*teacher_indices], "T": temperature, r"\beta": beta,
            "k": max(known, key=teacher_log_probs.__getitem__), "a": [float(c in teacher_indices) for c in classes],
            "D": 1 + NAMES.index(divergence), "i": Each(known), **dict.fromkeys("cj", Each(classes)),
            r"\dot x": draw.normal(len(input)).tolist()}  # fmt: skip


def crossing(input, teacher_log_probs, teacher_indices, divergence="forward_kl", temperature=1.0, mask=None, **_):
    """The differences of the probabilities, whose sign is the slope of the total variation."""
    p, q = categories(input, teacher_log_probs, teacher_indices, temperature)
    u = p - q
    u = u if mask is None else torch.where(mask.unsqueeze(-1) == 0, 1, u)
    return u if divergence == "tv" else torch.ones_like(u)


def given(scores, k):
    """The k largest log-probabilities with all their digits, which log_softmax loses if one class is far ahead."""
    m, leader = scores.double().max(-1, keepdim=True)
    gap = m - scores.double()
    log_q = -(gap + (-gap).exp().scatter(-1, leader, 0).sum(-1, keepdim=True).log1p())
    b, y = log_q.topk(k)
    return dict(teacher_log_probs=b.to(scores.dtype), teacher_indices=y)


def typical(*shape, classes=5, k=2, **more):
    def sample(draw):
        scores = draw.normal(*shape, classes)
        known = given(draw.normal(*shape, classes), k)
        made = dict(input=scores, **known)
        if len(shape) > 1:
            made = {name: t.movedim(-1, 1) for name, t in made.items()}
        return made | {name: make(draw) for name, make in more.items()}

    return sample


def resolved(draw, distance):
    """A distance of float64 numbers that leaves digits: the given log-probabilities are not small, their error is."""
    return max(distance, 0.2) if draw.dtype is torch.float64 else distance


def confident(gap, same=True, distance=1.0, **options):
    """Teachers that are sure of a class by a gap, and students that are as sure of the same one or of another."""

    def sample(draw):
        lead = draw.tensor([[gap, 0.0, 0.0, 0.0, 0.0]])
        teacher = draw.normal(3, 5) + lead
        beside = draw.normal(3, 5, scale=resolved(draw, distance))
        student = teacher + beside if same else draw.normal(3, 5) + lead.roll(1, 1)
        return dict(input=student, **given(teacher, 2)) | options

    return sample


def near(distance, offset=0.0, k=2):
    """Students at this distance from the teacher."""

    def sample(draw):
        teacher = draw.normal(3, 5)
        return dict(input=offset + teacher + draw.normal(3, 5, scale=resolved(draw, distance)), **given(teacher, k))

    return sample


def at_fixed_scores(**changes):
    return dict(input=[[0.0, 0.0, 0.0, 0.0]], teacher_log_probs=[[LOG_QUARTER]], teacher_indices=[[1]],
                reduction="none") | changes  # fmt: skip


LOG_QUARTER = -1.3862943611198906

SPEC = Spec(
    fn=topk_distillation_loss,
    chapter=loss.__doc__,
    inputs=(
        Input("input"),
        Input("teacher_log_probs", differentiable=False, domain=(-INF, 0.0)),
        Input("teacher_indices"),
        MASK,
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(divergence="tv", reduction="sum"),
        dict(divergence="reverse_kl", reduction="none"),
        dict(divergence="jsd", temperature=2.0, reduction="mean"),
        dict(divergence="jsd", beta=0.1, reduction="sum"),
        dict(temperature=0.75, reduction="none"),
        dict(divergence="reverse_kl", temperature=3.0, reduction="mean"),
        dict(divergence="tv", temperature=2.0, reduction="none"),
    ),
    samples={
        "typical": typical(3),
        "masked": typical(4, mask=lambda draw: draw.tensor([1, 1, 0, 1])),
        "unbatched": typical(),
        "one of them": typical(3, k=1),
        "weighted": typical(3, k=3, mask=lambda draw: draw.uniform(3, high=2.0)),
        "many classes": typical(2, classes=70, k=10),
        "sequence": typical(2, 3, mask=lambda draw: draw.integers(2, 3, high=2)),
        "all classes": typical(3, classes=3, k=3),
        "one class": typical(3, classes=1, k=1),
    },
    regimes={
        **{f"confident {gap}": confident(gap, **options) for gap, options in GAPS.items()},
        **{f"confident {gap}, near": confident(gap, distance=1e-3) for gap in (10, 20, 40)},
        **{f"wrong by {gap}": confident(gap, same=False, **options) for gap, options in GAPS.items()},
        **{f"within {distance}": near(distance) for distance in (0.1, 1e-3, 1e-5)},
        "near, offset": near(0.01, offset=1e4),
        "tied": lambda draw: dict(input=draw.tensor([[9.0, 9.0, -30.0], [0.0, 0.0, 0.0]]),
                                  **given(draw.tensor([[9.0, -30.0, 9.0], [0.0, 0.0, 1.0]]), 1)),
    },
    kinks={1: crossing},
    pins=(
        Pin(at_fixed_scores(input=[[0.0, 0.0, -INF, -INF]], teacher_log_probs=[[0.0]]),
            "classes that the student rules out", value=[0.6931471805599453],
            gradient=dict(input=[[0.5, -0.5, 0.0, 0.0]])),
        Pin(at_fixed_scores(input=[[-INF, 0.0, -INF, -INF]]), "the student has no tail", value=[INF]),
        Pin(at_fixed_scores(teacher_log_probs=[[0.0]]), "the teacher has no tail", value=[1.3862943611198906],
            gradient=dict(input=[[0.25, -0.75, 0.25, 0.25]])),
        Pin(at_fixed_scores(input=[[NAN, 0.0, 0.0, 0.0]]), "NaN in a row makes the row NaN", value=[NAN]),
        Pin(at_fixed_scores(input=[[NAN, INF, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], teacher_log_probs=[[NAN], [0.0]],
                            teacher_indices=[[-100], [2]], mask=[0, 1]),
            "the contents of a row that does not count do not matter", value=[0.0, 1.3862943611198906],
            gradient=dict(input=[[0.0, 0.0, 0.0, 0.0], [0.25, 0.25, -0.75, 0.25]])),
        Pin(at_fixed_scores(input=[[-INF, -INF, -INF, -INF]]), "no class is possible", value=[NAN]),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(reduction="sum", normalizer=2.0), ValueError, "normalizer"),
        Error(dict(mask=lambda input, **_: input[:, :2]), RuntimeError, "mask"),
        Error(dict(divergence="kl"), ValueError, "divergence"),
        Error(dict(beta=-0.5), ValueError, "beta"),
        Error(dict(temperature=0.0), ValueError, "temperature"),
        Error(dict(teacher_log_probs=lambda teacher_log_probs, **_: teacher_log_probs[:2]), RuntimeError,
              "teacher_log_probs: expected shape"),
        Error(dict(teacher_log_probs=lambda teacher_log_probs, **_: teacher_log_probs.long()), RuntimeError,
              "teacher_log_probs: expected a floating point dtype"),
        Error(dict(teacher_indices=lambda teacher_indices, **_: teacher_indices[:, :1]), RuntimeError,
              "teacher_indices: expected shape"),
        Error(dict(teacher_indices=lambda teacher_indices, **_: teacher_indices.int()), RuntimeError,
              "teacher_indices: expected scalar type Long"),
        Error(dict(teacher_indices=lambda teacher_indices, **_: teacher_indices + 5), IndexError, "teacher_indices"),
        Error(dict(input=lambda input, **_: input[:, :1]), RuntimeError, "teacher_indices: expected at most"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "floating point"),
        Error(dict(input=lambda input, **_: input[0, 0]), IndexError, "[Dd]imension"),
    ),
    order=3,
    modules=(Module(TopkDistillationLoss),),
)  # fmt: skip


def of_the_leader(s, teacher, temperature, divergence):
    b = torch.full((*s.shape, 1), -teacher, dtype=s.dtype)
    return dict(input=curves.rows(s, s, 0, 0), teacher_log_probs=b, teacher_indices=torch.zeros_like(b).long(),
                temperature=temperature, divergence=NAMES[int(divergence) - 1])  # fmt: skip


CURVE = curves.Curve(
    "the student's score of the class that is known; the others are 0",
    (-4, 6),
    of_the_leader,
    {
        "teacher": curves.Slider("negative log-probability of that class", 0.25, 0.05, 1.05, 0.2),
        "temperature": curves.Slider("temperature", 1.0, 0.5, 2.0, 0.5),
        "divergence": curves.Slider("number of the divergence", 1.0, 1.0, 4.0, 1.0),
    },
)
