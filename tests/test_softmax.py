"""The softmax state: against exact numbers, merged from parts, differentiated; and its chapter, executed."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from mpmath import exp, log, mpf, workdps
from torch import Tensor
from torch.testing import assert_close
from torch.torch_version import TorchVersion

from gradcheck.chapter import read
from gradcheck.checks.equations import Audit, points
from gradcheck.formulas import Each
from gradcheck.spec import Input, Settings, Spec
from manual_grad.engine import parts, softmax
from manual_grad.engine.softmax import State
from manual_grad.losses.rowwise.cross_entropy import cross_entropy

INF, NAN = math.inf, math.nan
# with few bits, so that differences are exact and only the state rounds
ROWS = [
    [0.5, -1.25, 2.0, 1.75, -0.375],
    [2.0, 2.0, 2.0, 2.0, 2.0],
    [-3.0, 9.0, 9.0, -30.0, 9.0],
    *([float(gap), 0.5, -0.75, 0.25, 0.0] for gap in (5, 10, 15, 20, 40, 80)),
    [0.5, -0.75, 0.25, 0.0, 20.0],
    [0.5, -0.75, 60.0, 0.0, 20.0],
    [-100.5, -60.0, -60.25, -61.0, -80.0],
    [-INF, -INF, 0.0, 1.0, -INF],
    [20.0, -INF, 0.0, -INF, -INF],
    [-INF, 3.0, -INF, -INF, -INF],
]
WEIGHTS = [
    [0.0, 0.0, 1.0, 0.0, 0.0],  # a label
    [0.0, 1.0, 0.0, 0.0, 0.0],
    [0.125, 0.5, 0.0625, 0.25, 0.75],  # a distribution
]


def problem(dtype: torch.dtype = torch.float64, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Every row of scores with every weight, which is 0 for impossible classes."""
    z = torch.tensor(ROWS, dtype=dtype).repeat_interleave(len(WEIGHTS), 0)[:, :classes]
    q = torch.tensor(WEIGHTS, dtype=dtype).repeat(len(ROWS), 1)[:, :classes]
    some = z.isfinite().any(1)
    return z[some], torch.where(z == -INF, 0, q)[some]


def exact(scores: list[float], weights: list[float]) -> Iterator[tuple[mpf, mpf]]:
    """Loss, entropy, distances and slopes of a row, each with the size of the terms in its stable form."""
    z, q = [mpf(x) for x in scores], [mpf(x) for x in weights]
    lse = log(sum(map(exp, z)))
    p, d, Q = [exp(x - lse) for x in z], [lse - x for x in z], sum(q)
    H = sum(a * b for a, b in zip(p, d, strict=True) if a)
    yield (sum(a * b for a, b in zip(q, d, strict=True) if a),) * 2
    yield H, H
    for b in d:
        yield b, b
    for a, b in zip(p, q, strict=True):
        yield Q * a - b, min(Q * a + b, Q * (1 - a) + (Q - b))
    for a, b in zip(p, d, strict=True):
        yield (a * (b - H), a * (b + H)) if a else (a, a)


@functools.cache
def answers(dtype: torch.dtype, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """The exact results for :func:`problem`, each as a sum of two parts, and the sizes."""
    with workdps(100):
        rows = [list(exact(*row)) for row in zip(*(t.tolist() for t in problem(dtype, classes)), strict=True)]
        parts = [[(float(x), float(x - float(x)) if abs(x) < INF else 0.0, float(s)) for x, s in row] for row in rows]
    return torch.tensor(parts, dtype=torch.float64).unbind(2)


def assert_exact(state: State, z: Tensor, q: Tensor) -> None:
    """Everything computed from the state of all classes is accurate to a few eps."""
    assert torch.equal(state.leader[:, 0], torch.tensor([row.index(max(row)) for row in z.tolist()]))
    given = state.finish(), state.entropy(), state.distances(z), state.slope(z, q), state.entropy_slope(z)
    found = torch.cat(given, 1).double()
    high, low, size = answers(z.dtype, z.shape[1])
    error = torch.where(found == high, 0, (found - high) - low).abs() / torch.where(size == 0, 1, size)
    assert (error <= 4 * torch.finfo(z.dtype).eps).all(), (error / torch.finfo(z.dtype).eps).max(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_all_classes_at_once(dtype: torch.dtype, classes: int) -> None:
    z, q = problem(dtype, classes)
    assert_exact(State.of(z, q, value=True, entropy=True), z, q)


def partitions(classes: int) -> Iterator[list[slice]]:
    for count in range(1, classes + 1):
        for cuts in itertools.combinations(range(1, classes), count - 1):
            yield [slice(*ends) for ends in itertools.pairwise((0, *cuts, classes))]


def test_parts_in_any_order() -> None:
    z, q = problem()
    for blocks in partitions(z.shape[1]):
        parts = [State.of(z[:, c], q[:, c], c.start, value=True, entropy=True) for c in blocks]
        for order in itertools.permutations(parts):
            assert_exact(functools.reduce(State.union, order), z, q)


def test_unions_of_unions() -> None:
    z, q = problem()
    a, b, c, d, e = (State.of(z[:, i : i + 1], q[:, i : i + 1], i, value=True, entropy=True) for i in range(z.shape[1]))
    assert_exact(d.union(b).union(e.union(a.union(c))), z, q)


def test_what_is_not_asked_for_is_not_there() -> None:
    z, q = problem()
    for asked in (dict(), dict(q=q), dict(entropy=True)):
        parts = [
            State.of(z[:, c], first=c.start, **{k: v[:, c] if k == "q" else v for k, v in asked.items()})
            for c in (slice(0, 2), slice(2, 5))
        ]
        assert [u is None for u in parts[0].union(parts[1])] == [u is None for u in State.of(z, **asked)]
    assert [u is None for u in State.of(z)] == [False] * 3 + [True] * 4


@pytest.mark.parametrize("row", [[-INF] * 4, [0.0, INF, 1.0, 2.0], [0.0, NAN, 1.0, 2.0], [-INF, INF, INF, NAN]])
def test_a_row_without_a_softmax_is_nan(row: list[float]) -> None:
    z = torch.tensor([row])
    q = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    states = [State.of(z, q, value=True, entropy=True)]
    parts = [State.of(z[:, c], q[:, c], c.start, value=True, entropy=True) for c in (slice(0, 2), slice(2, 4))]
    states += [parts[0].union(parts[1]), parts[1].union(parts[0])]
    for state in states:
        for given in (state.finish(), state.entropy(), state.distances(z), state.slope(z, q), state.entropy_slope(z)):
            assert given.isnan().all()


def test_an_impossible_target() -> None:
    z, q = torch.tensor([[0.0, 1.0, -INF, -INF]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    parts = [State.of(z[:, c], q[:, c], c.start, value=True) for c in (slice(0, 2), slice(2, 4))]
    for state in (State.of(z, q, value=True), parts[0].union(parts[1]), parts[1].union(parts[0])):
        assert state.finish().item() == INF


def test_an_infinite_weight() -> None:
    z, q = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.0, INF, 1.0]])
    state = State.of(z, q, value=True)
    assert state.finish().item() == INF
    assert_close(state.slope(z, q), torch.tensor([[INF, NAN, INF]]), equal_nan=True)


def loss_and_entropy(z: Tensor, q: Tensor) -> Tensor:
    """Computed from the definitions."""
    logs = z.log_softmax(1)
    return torch.stack([-(q * logs).sum(), -(logs.exp() * logs).sum()])


def test_slopes_and_their_derivatives() -> None:
    z, q = problem()
    finite = z.isfinite().all(1) & (z.amax(1) < 15)  # where the definitions are accurate
    z, q = z[finite].requires_grad_(), q[finite].requires_grad_()
    loss, H = loss_and_entropy(z, q)
    v = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    state = State.of(z, q, entropy=True)
    for ours, definition in ((state.slope(z, q), loss), (state.entropy_slope(z), H)):
        (expected,) = torch.autograd.grad(definition, z, create_graph=True)
        assert_close(ours, expected, rtol=1e-9, atol=1e-14)
        for order in (2, 3):
            ours, expected = (
                torch.autograd.grad((d * v).sum(), z, create_graph=order == 2, retain_graph=True)[0]
                for d in (ours, expected)
            )
            assert_close(ours, expected, rtol=1e-9, atol=1e-14)


def test_an_impossible_class_has_no_part_in_a_derivative() -> None:
    z, q = problem()
    z, q = z[:9], q[:9]
    ruled_out = torch.full_like(z[:, :1], -INF)
    results = []
    for scores, weights in ((z, q), (torch.cat([ruled_out, z], 1), torch.cat([0 * ruled_out.exp(), q], 1))):
        scores.requires_grad_()
        state = State.of(scores, weights, entropy=True)
        for slope in (state.slope(scores, weights), state.entropy_slope(scores)):
            (second,) = torch.autograd.grad(slope.square().sum(), scores, retain_graph=True)
            results.append(torch.stack([slope.detach(), second]))
    for without, beside in zip(results[:2], results[2:], strict=True):
        assert_close(beside[..., 1:], without)
        assert not beside[..., 0].any()


def in_two_parts(z: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    a, b = (State.of(z[:, c], q[:, c], c.start, value=True, entropy=True) for c in (slice(0, 2), slice(2, 5)))
    state = a.union(b)
    return state.finish(), state.entropy(), state.slope(z, q), state.entropy_slope(z)


def test_vmap_compile_and_no_look_at_a_value() -> None:
    z, q = problem()
    expected = in_two_parts(z, q)
    mapped = torch.vmap(lambda z, q: in_two_parts(z[None], q[None]))(z, q)
    for ours, theirs in zip(mapped, expected, strict=True):
        assert_close(ours.squeeze(1), theirs)
    if TorchVersion(torch.__version__) >= "2.13":  # Dynamo of 2.10 cannot trace a NamedTuple with methods
        torch._dynamo.reset()
        compiled = torch.compile(in_two_parts, fullgraph=True, backend="aot_eager")
        for ours, theirs in zip(compiled(z, q), expected, strict=True):
            assert_close(ours, theirs)
    for ours, theirs in zip(in_two_parts(z.to("meta"), q.to("meta")), expected, strict=True):
        assert ours.shape == theirs.shape


@pytest.mark.parametrize("shape", [(5,), (3, 5, 2, 2)])
def test_classes_in_the_rowwise_dimension(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    z, q = (torch.rand(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    state = State.of(z, q, value=True, entropy=True)
    dim = 1 if len(shape) > 1 else 0
    z, q = (u.movedim(dim, -1).reshape(-1, 5) for u in (z, q))
    expected = State.of(z, q, value=True, entropy=True)
    for ours, theirs in zip(state, expected, strict=True):
        assert_close(ours.movedim(dim, -1).reshape(-1, 1), theirs)


def test_a_sure_leader_in_the_second_derivative_of_cross_entropy() -> None:
    """The gradient by the target or weight of a class is the distance, which log-softmax would round to 0."""
    z = torch.tensor([[40.0, 0.0, 0.0]], dtype=torch.float64)
    t, w = (torch.ones(shape, dtype=z.dtype, requires_grad=True) for shape in ((1, 3), (3,)))
    (d,) = torch.autograd.grad(cross_entropy(z, t, w), t, create_graph=True)
    (mixed,) = torch.autograd.grad(d[0, 0], w)
    assert_close(mixed, torch.tensor([math.log1p(2 * math.exp(-40)), 0, 0], dtype=z.dtype), rtol=1e-15, atol=0)


# the chapter


def finished(input: Tensor, weights: Tensor) -> Tensor:
    return State.of(input, weights, value=True).finish()


def loss(input: list[mpf], weights: list[mpf]) -> mpf:
    lse = log(sum(map(exp, input)))
    return sum(q * (lse - z) for q, z in zip(weights, input, strict=True))


def symbols(input: list[mpf], weights: list[mpf], **_: object) -> dict[str, object]:
    classes = range(len(input))
    k = max(classes, key=input.__getitem__)
    leaders = frozenset({k, (k + 1) % len(input)})
    return {"z": input, "q": weights, "c": Each(classes), "A": frozenset(classes), "S": leaders,
            "T": frozenset(classes) - leaders}  # fmt: skip


SPEC = Spec(
    fn=finished,
    name="softmax",
    family="rowwise",
    inputs=(Input("input"), Input("weights")),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 5), weights=draw.uniform(3, 5)),
        "confident": lambda draw: dict(
            input=draw.tensor([[9.0, 0.0, 1.0, -2.0]]), weights=draw.tensor([[0.0, 1, 0, 2]])
        ),
    },
    oracle=loss,
    symbols=symbols,
    chapter=softmax.__doc__,
)


def audit(text: str) -> dict[str, bool]:
    audit = Audit(SPEC, read(text))
    for point in points(SPEC, Settings()):
        audit.execute(*point)
    return {result.what: result.ok for result in audit.results()}


def test_every_equation_is_executed_and_true() -> None:
    assert audit(softmax.__doc__) == {**{f"equation ({n})": True for n in range(1, 10)}, "loss": True}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"z_c - m(S)} \tag{1}", r"z_c + m(S)} \tag{1}"),
        (r"q_c\, (m(S) - z_c)", r"q_c\, (m(T) - z_c)"),
        (r"+ e^{-\gamma}\, (1", r"+ e^{\gamma}\, (1"),
        (r"\gamma\, Q(T)", r"\gamma\, \bar q(T)"),
        (r"\tau(T) + \gamma", r"\tau(T) - \gamma"),
        (r"\delta(A) + Q(A)", r"\delta(A) + \bar q(A)"),
        (r"+ \bar\tau, \qquad", r"- \bar\tau, \qquad"),
        (r"\frac{Q(A)\, \rho(A)}{1 + \rho(A)}", r"\frac{Q(A)\, \rho(A)}{\rho(A)}"),
        (r"- z_c - \bar\tau)", r"- z_c + \bar\tau)"),
    ],
)
def test_a_mistake_is_caught(old: str, new: str) -> None:
    assert softmax.__doc__.count(old) == 1
    assert not all(audit(softmax.__doc__.replace(old, new)).values())


# -- states as numbers of a row


def capped(x: Tensor) -> Tensor:
    return torch.where(x == -math.inf, x, 30 * (x / 30).tanh()) / 0.7


SPLIT = {
    "apart": [9.0, -4.0, 2.0, 0.5, 8.0, 1.0],
    "sure by 80": [0.0, 1.0, 80.0, 0.0, -3.0, 2.0],
    "tied in a part": [1.0, 5.0, 5.0, 5.0, 0.0, 5.0],
    "a part ruled out": [-math.inf, -math.inf, 3.0, 4.0, -math.inf, 1.0],
    "nothing left": [-math.inf] * 6,
    "infinite": [0.0, math.inf, 1.0, 2.0, 3.0, 4.0],
    "NaN": [0.0, 1.0, 2.0, math.nan, 3.0, 4.0],
}


@pytest.mark.parametrize("cuts", [(2, 4), (0, 2), (1, 1, 1, 3), (2, 6, 6)])
@pytest.mark.parametrize("row", SPLIT)
def test_parts_merge_into_the_whole(row: str, cuts: tuple[int, ...]) -> None:
    """By a kernel or the formulas, at once or one after the other; and an empty part adds nothing."""
    x = torch.tensor([SPLIT[row]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.0, 0.25, 1.0, 0.0, 0.75]], dtype=torch.float64)
    whole = parts.merged(parts.of(x, q, True, capped).unsqueeze(0), capped)
    pieces = zip(x.tensor_split(cuts, 1), q.tensor_split(cuts, 1), strict=True)
    states = [parts.of(a, b, True, capped) for a, b in pieces]
    one_by_one = parts.empty(x[:, 0], True)
    for state in states:
        one_by_one = parts.merged(torch.stack([one_by_one, state]), capped)
    for found in (parts.merged(torch.stack(states), capped), one_by_one):
        for number, (ours, theirs) in enumerate(zip(found[:5], whole[:5], strict=True)):
            if whole[1].isnan().any() and number != 1:  # no softmax, as rho says
                continue
            torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0, equal_nan=True)
        if whole[1] < 1:  # else the leader's slope does not come from it
            torch.testing.assert_close(found[5], whole[5])
