"""Distillation from hidden states of student and teacher.

The samples are such that no product is rounded; see :mod:`manual_grad.specs.linear.linear_cross_entropy`.
"""

from __future__ import annotations

import torch

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec
from manual_grad.losses.linear.linear_distillation_loss import linear_distillation_loss
from manual_grad.specs.linear.linear_cross_entropy import in_blocks, scores_of, scores_of_row
from manual_grad.specs.policy import MASK
from manual_grad.specs.rowwise import distillation_loss as rows
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
LOG2 = 0.6931471805599453


def scores(hidden, weight, bias):
    s = hidden @ weight.mT
    return s if bias is None else s + bias


def definition(hidden, weight, teacher_hidden, teacher_weight, bias=None, teacher_bias=None, **options):
    student, teacher = scores(hidden, weight, bias), scores(teacher_hidden, teacher_weight, teacher_bias)
    return rows.definition(student, teacher, **options)


def oracle(hidden, weight, teacher_hidden, teacher_weight, bias=None, teacher_bias=None, **options):
    teacher = scores_of_row(teacher_hidden, teacher_weight, teacher_bias)
    return rows.oracle(scores_of_row(hidden, weight, bias), teacher, **options)


def symbols(
    draw, hidden, weight, teacher_hidden, teacher_weight, bias=None, teacher_bias=None, divergence="forward_kl",
    beta=0.5, temperature=1.0, mask=1, **_,
):  # fmt: skip
    if mask != 1:
        return None
    classes = range(len(weight))
    zero = [0.0 for _ in classes]
    return {"x": hidden, "W": weight, "b": bias or zero, r"\tilde x": teacher_hidden, r"\tilde W": teacher_weight,
            r"\tilde b": teacher_bias or zero, "T": temperature, "D": 1 + rows.NAMES.index(divergence),
            r"\beta": beta, **dict.fromkeys("cij", Each(classes))}  # fmt: skip


def crossing(hidden, weight, teacher_hidden, teacher_weight, bias=None, teacher_bias=None, mask=None, **options):
    student, teacher = scores(hidden, weight, bias), scores(teacher_hidden, teacher_weight, teacher_bias)
    return rows.crossing(student, teacher, mask=mask, **options)


def two(*shape, features=6, bias=False, **more):
    """A student and a teacher, with hidden states of different lengths."""

    def sample(draw):
        student = scores_of(draw, *shape, bias=bias)
        teacher = scores_of(draw, *shape[:-1], features, bias=bias)
        made = dict(hidden=student["input"], weight=student["linear_weight"], teacher_hidden=teacher["input"],
                    teacher_weight=teacher["linear_weight"])  # fmt: skip
        if bias:
            made |= dict(bias=student["linear_bias"], teacher_bias=teacher["linear_bias"])
        return made | {name: make(draw) for name, make in more.items()}

    return sample


def projected(sample):
    """A sample of rows with its scores as hidden states, doubled and reversed; the projections undo this."""

    def made(draw):
        arguments = dict(sample(draw))
        student, teacher = arguments.pop("input"), arguments.pop("teacher")
        weight = draw.tensor(0.5 * torch.eye(student.shape[-1], dtype=torch.float64).flip(0))
        return dict(hidden=2 * student.flip(-1), weight=weight, teacher_hidden=2 * teacher.flip(-1),
                    teacher_weight=weight.clone(), **arguments)  # fmt: skip

    return made


def at_fixed_scores(**changes):
    return dict(hidden=[[1.0], [1.0]], weight=[[0.0], [0.0]], teacher_hidden=[[1.0], [1.0]],
                teacher_weight=[[0.0], [0.0]], reduction="none") | changes  # fmt: skip


SPEC = Spec(
    fn=linear_distillation_loss,
    blocks={"blocks of a row": in_blocks(scores=2)},
    inputs=(
        Input("hidden"),
        Input("weight", batch=None),
        Input("teacher_hidden"),
        Input("teacher_weight", batch=None),
        Input("bias", batch=None),
        Input("teacher_bias", batch=None),
        MASK,
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=rows.SPEC.params,
    samples={
        "typical": two(3, 5),
        "biased": two(3, 5, bias=True),
        "unbatched": two(6, bias=True),
        "one feature": two(3, 4, features=4),
        "masked": two(4, 5, mask=lambda draw: draw.tensor([1, 0, 1, 1])),
        "weighted": two(3, 5, mask=lambda draw: draw.uniform(3, high=2.0)),
    },
    regimes={name: projected(sample) for name, sample in rows.SPEC.regimes.items()},
    kinks={1: crossing},
    pins=(
        Pin(at_fixed_scores(), "a student that is the teacher", value=[0.0, 0.0],
            gradient=dict(weight=[[0.0], [0.0]], teacher_weight=[[0.0], [0.0]])),
        Pin(at_fixed_scores(bias=[0.0, -INF], divergence="reverse_kl", reduction="sum"),
            "a class that the student rules out", value=2 * LOG2,
            gradient=dict(bias=[0.0, 0.0], teacher_weight=[[-1.0], [1.0]])),
        Pin(at_fixed_scores(hidden=[[NAN], [1.0]], teacher_hidden=[[INF], [1.0]], mask=[0, 1]),
            "the contents of a row that does not count do not matter", value=[0.0, 0.0],
            gradient=dict(hidden=[[0.0], [0.0]], weight=[[0.0], [0.0]], teacher_hidden=[[0.0], [0.0]],
                          teacher_weight=[[0.0], [0.0]])),
        Pin(at_fixed_scores(hidden=[[NAN], [1.0]]), "NaN stays in its row", value=[NAN, 0.0]),
    ),
    errors=(
        Error(dict(weight=lambda weight, **_: weight[0]), RuntimeError, "weight: expected shape"),
        Error(dict(weight=lambda weight, **_: weight[:, :4]), RuntimeError, "weight: expected shape"),
        Error(dict(weight=lambda weight, **_: weight.float()), RuntimeError, "weight: expected scalar type"),
        Error(dict(bias=lambda hidden, **_: hidden[0, :3]), RuntimeError, "bias: expected shape"),
        Error(dict(teacher_weight=lambda teacher_weight, **_: teacher_weight[:, :4]), RuntimeError,
              "teacher_weight: expected shape"),
        Error(dict(teacher_weight=lambda teacher_weight, **_: teacher_weight[:3]), RuntimeError,
              "teacher_weight: expected 4 classes"),
        Error(dict(teacher_weight=lambda teacher_weight, **_: teacher_weight.float()), RuntimeError,
              "teacher_weight: expected scalar type"),
        Error(dict(teacher_bias=lambda hidden, **_: hidden[0, :3]), RuntimeError, "teacher_bias: expected shape"),
        Error(dict(teacher_hidden=lambda teacher_hidden, **_: teacher_hidden[:2]), RuntimeError,
              "teacher_hidden: expected shape"),
        Error(dict(hidden=lambda hidden, **_: hidden.long()), NotImplementedError, "floating point"),
        Error(dict(mask=lambda hidden, **_: hidden[:2, 0]), RuntimeError, "mask"),
        Error(dict(divergence="kl"), ValueError, "divergence"),
        Error(dict(beta=1.5), ValueError, "beta"),
        Error(dict(temperature="hot"), TypeError, "temperature"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(reduction="sum", normalizer=2.0), ValueError, "normalizer"),
    ),
    widens=True,
    order=3,
)  # fmt: skip


def growing(s, teacher, temperature, divergence):
    weight = torch.tensor([[1.0, -1.0], [0.5, 1.0], [-1.0, 0.0]], dtype=s.dtype)
    fixed = curves.rows(s, teacher, -0.5 * teacher)
    return dict(hidden=curves.features(s), weight=weight, teacher_hidden=fixed, teacher_weight=weight,
                temperature=temperature, divergence=rows.NAMES[int(divergence) - 1])  # fmt: skip


CURVE = curves.Curve(
    "the student's hidden state, as a multiple of a fixed direction",
    (-3, 4),
    growing,
    {
        "teacher": curves.Slider("length of the teacher's, along the same direction", 1.0, -2.0, 2.0, 1.0),
        "temperature": curves.Slider("temperature", 1.0, 0.5, 2.0, 0.5),
        "divergence": curves.Slider("number of the divergence", 1.0, 1.0, 4.0, 1.0),
    },
)
