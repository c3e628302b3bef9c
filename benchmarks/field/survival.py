"""Survival losses."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.field.table import Point, entry

TIMES = torch.tensor([3.0, 1.0, 4.0, 2.0])
EVENTS = torch.tensor([1.0, 1.0, 0.0, 1.0])
RISKS: dict[str, Any] = {"x": (4,), "time": TIMES, "event": EVENTS}
FIRST: dict[str, Any] = dict(differentiable={"x"})
BINS: dict[str, Any] = {"x": (3, 4), "k": torch.tensor([1, 0, 2]), "event": torch.tensor([1.0, 0.0, 1.0])}


def cox(m: Any, x: Any, time: Any, event: Any, eps: float = 0.0) -> Any:
    """Without ties. eps is added to the sum over the risk set, of exponentials relative to the largest."""
    terms = []
    for i in range(len(x)):
        if event[i]:
            z = m.stack([x[j] for j in range(len(x)) if time[j] >= time[i]])
            if eps:
                top = m.amax(x, 0)
                terms.append(m.log(m.stack([m.exp(z - top).sum() + eps]))[0] + top - x[i])
            else:
                terms.append(m.logsumexp(m.stack([z]))[0] - x[i])
    return sum(terms) / len(terms)


def logistic_hazard(m: Any, x: Any, k: Any, event: Any) -> Any:
    total = 0
    for row, n, e in zip(x, k, event, strict=True):
        n = int(n)
        total = total + m.softplus(row[: n + 1]).sum() - e * row[n]
    return total / len(x)


def pmf(m: Any, x: Any, k: Any, event: Any, eps: float = 0.0) -> Any:
    """A last bin, with the score 0, is for what has not happened by then."""
    total = 0
    for row, n, e in zip(x, k, event, strict=True):
        z, n = m.concat([row, 0 * row[:1]]), int(n)
        top = m.amax(z, 0)
        whole = m.log(m.stack([m.exp(z - top).sum() + eps]))[0]
        if e:
            total = total + whole - (z[n] - top)
        else:
            total = total + whole - m.log(m.stack([m.exp(z[n + 1 :] - top).sum() + eps]))[0]
    return total / len(x)


def mtlr(m: Any, x: Any, k: Any, event: Any, eps: float = 0.0) -> Any:
    """The scores are added up from the last."""
    return pmf(m, m.stack([m.stack([row[i:].sum() for i in range(len(row))]) for row in x]), k, event, eps)


def pc_hazard(m: Any, x: Any, k: Any, event: Any, fraction: Any) -> Any:
    total = 0
    for row, n, e, f in zip(x, k, event, fraction, strict=True):
        h, n = m.softplus(row), int(n)
        total = total - e * m.log(h[n : n + 1])[0] + f * h[n] + (h[:n].sum() if n else 0)
    return total / len(x)


def bce_survival(m: Any, x: Any, k: Any, event: Any) -> Any:
    total = 0
    for row, n, e in zip(x, k, event, strict=True):
        n = int(n)
        total = total + (m.softplus(-row[:n]).sum() if n else 0) + (m.softplus(row[n:]).sum() if e else 0)
    return total / (x.shape[0] * x.shape[1])


def weibull(m: Any, x: Any, time: Any, event: Any, clamp_value: float = 0.0) -> Any:
    """x has log scale and log shape; the hazard is no more than ``clamp_value``, if that is given."""
    scale, shape, total = x[:, 0], x[:, 1], 0
    for i in range(len(x)):
        if float(time[i]) == 0:
            if event[i]:
                raise ValueError("an event at 0")
            continue
        log = m.log(time[i : i + 1])[0] - scale[i]
        rate = m.exp(shape[i : i + 1])[0]
        hazard = shape[i] - scale[i] + (rate - 1) * log
        risk = m.exp(m.stack([rate * log]))
        total = total + (m.minimum(risk, 0 * risk + clamp_value) if clamp_value else risk)[0] - event[i] * hazard
    return total / len(x)


PYCOX = "pycox.models.loss"
ALONE = Point({"x": [-20.0, 0.0], "time": [2.0, 1.0], "event": [1.0, 1.0]})
HARD: dict[str, Point] = {
    "ordinary": Point({"x": [0.5, -0.25, 1.0], "time": [3.0, 1.0, 2.0], "event": [1.0, 1.0, 0.0]}),
    "the last event at a risk of -10": Point({"x": [-10.0, 0.0], "time": [2.0, 1.0], "event": [1.0, 1.0]}),
    "the last event at a risk of -20": ALONE,
    "risks of ±100": Point({"x": [100.0, -100.0], "time": [2.0, 1.0], "event": [1.0, 1.0]}),
}
entry(
    f"{PYCOX}:cox_ph_loss",
    call=lambda f, x, time, event: f(x, time, event),
    formula=cox,
    inputs=RISKS,
    points=HARD,
    options=FIRST,
    guard={"eps": 1e-7},
)
entry(
    f"{PYCOX}:nll_logistic_hazard",
    call=lambda f, x, k, event: f(x, k, event),
    formula=logistic_hazard,
    inputs=BINS,
    points={
        "wrong by 100": Point({"x": [[100.0, -100.0]], "k": [1], "event": [1.0]}),
        "right by 12": Point({"x": [[-12.0, 12.0]], "k": [1], "event": [1.0]}),
    },
    options=FIRST,
)
for name, formula in (("nll_pmf", pmf), ("nll_mtlr", mtlr)):
    entry(
        f"{PYCOX}:{name}",
        call=lambda f, x, k, event: f(x, k, event),
        formula=formula,
        inputs=BINS,
        points={
            "ordinary": Point({"x": [[0.5, -0.25]], "k": [0], "event": [1.0]}),
            "an event where -30 is least": Point({"x": [[-30.0, 0.5]], "k": [0], "event": [1.0]}),
            "censored, after a bin of 10": Point({"x": [[10.0, 0.0]], "k": [0], "event": [0.0]}),
            "censored, after a bin of 20": Point({"x": [[20.0, 0.0]], "k": [0], "event": [0.0]}),
        },
        options=FIRST,
        guard={"eps": 1e-7},
    )
entry(
    f"{PYCOX}:nll_pc_hazard_loss",
    call=lambda f, x, k, event, fraction: f(x, k, event, fraction),
    formula=pc_hazard,
    inputs={**BINS, "fraction": torch.tensor([0.5, 0.25, 1.0])},
    points={
        "ordinary": Point({"x": [[0.5, -0.25]], "k": [1], "event": [1.0], "fraction": [0.5]}),
        "log-hazard -30 at an event": Point({"x": [[-30.0, 0.0]], "k": [0], "event": [1.0], "fraction": [0.5]}),
        "log-hazard -120 at an event": Point({"x": [[-120.0, 0.0]], "k": [0], "event": [1.0], "fraction": [0.5]}),
    },
    options=FIRST,
)
entry(
    f"{PYCOX}:bce_surv_loss",
    call=lambda f, x, k, event: f(x, k, event),
    formula=bce_survival,
    inputs=BINS,
    points={
        "wrong by 100": Point({"x": [[-100.0, 100.0]], "k": [1], "event": [1.0]}),
        "right by 5": Point({"x": [[5.0, -5.0]], "k": [1], "event": [1.0]}),
    },
    single=True,
)
entry(
    f"{PYCOX}:cox_cc_loss",
    call=lambda f, x, y: f(x, (y, y + 1)),
    formula=lambda m, x, y, clamp=0.0: m.log1p(above(m, y - x, clamp) + above(m, y + 1 - x, clamp)).mean(),
    inputs={"x": (4,), "y": (4,)},
    points={
        "wrong by 60": Point({"x": [0.0], "y": [60.0]}),
        "wrong by 100": Point({"x": [0.0], "y": [100.0]}),
        "right by 12": Point({"x": [12.0], "y": [0.0]}),
    },
    by=("x", "y"),
    guard={"clamp": 80.0},
)


def above(m: Any, d: Any, clamp: float) -> Any:
    return m.exp(m.minimum(d, 0 * d + clamp) if clamp else d)


entry(
    "torchsurv.loss.cox:neg_partial_log_likelihood",
    call=lambda f, x, time, event: f(x, event.bool(), time),
    formula=cox,
    inputs=RISKS,
    points=HARD,
    single=True,
)
entry(
    "torchsurv.loss.weibull:neg_log_likelihood_weibull",
    call=lambda f, x, time, event: f(x, event.bool(), time),
    formula=weibull,
    inputs={"x": (4, 2), "time": TIMES, "event": EVENTS},
    points={
        "ordinary": Point({"x": [[0.5, 0.25], [1.0, -0.5]], "time": [2.0, 0.5], "event": [1.0, 0.0]}),
        "a hazard of e³⁰": Point({"x": [[-30.0, 0.0], [0.0, 0.0]], "time": [1.0, 1.0], "event": [1.0, 1.0]}),
        "censored at 0": Point({"x": [[0.5, 0.25], [1.0, -0.5]], "time": [0.0, 0.5], "event": [0.0, 1.0]}),
    },
    single=True,
    guard={"clamp_value": 1e10},
)
