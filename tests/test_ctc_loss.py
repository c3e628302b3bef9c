"""CTC loss against the exact sum over all paths, against torch, and at the edges of its lattice."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import mpmath
import pytest
import torch
import torch.nn.functional as F
from mpmath import mpf
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from manual_grad import kernels
from manual_grad.losses.path.ctc_loss import CTCLoss, ctc_loss

INF, NAN = float("inf"), float("nan")
Exact = tuple[mpf, list[list[mpf]]]


needs_kernels = pytest.mark.skipif(kernels.op("ctc_loss") is None, reason="the kernels are not built here")


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    torch.manual_seed(0)
    with mpmath.workdps(50):
        yield


def spell(path: Sequence[int], blank: int) -> tuple[int, ...]:
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def over_all_paths(x: Tensor, labels: Sequence[int], blank: int = 0) -> Exact:
    """The loss and its gradient from the definition."""
    T, C = x.shape
    p = [[mpmath.exp(mpf(v)) for v in row] for row in x.tolist()]
    total, visits = mpf(0), [[mpf(0)] * C for _ in range(T)]
    for path in itertools.product(range(C), repeat=T):
        if spell(path, blank) == tuple(labels):
            weight = mpmath.fprod(p[t][k] for t, k in enumerate(path))
            total += weight
            for t, k in enumerate(path):
                visits[t][k] += weight
    return -mpmath.log(total), [[-v / total for v in row] for row in visits]


def over_the_lattice(x: Tensor, labels: Sequence[int]) -> Exact:
    """The same by the recursions of Graves et al. on probabilities, which cannot underflow in mpmath; blank 0."""
    T, C = x.shape
    symbols = [0, *itertools.chain.from_iterable((k, 0) for k in labels)]
    K = len(symbols)
    into = [[r for r in (s, s - 1, s - 2) if r >= 0 and (r > s - 2 or symbols[r] != symbols[s])] for s in range(K)]
    out = [[q for q in range(K) if s in into[q]] for s in range(K)]
    p = [[mpmath.exp(mpf(v)) for v in row] for row in x.tolist()]
    before = [[mpf(s < 2) for s in range(K)]]
    for t in range(1, T):
        before.append([sum(before[-1][r] * p[t - 1][symbols[r]] for r in into[s]) for s in range(K)])
    after = [[mpf(s >= K - 2) for s in range(K)]]
    for t in range(T - 1, 0, -1):
        after.append([sum(after[-1][q] * p[t][symbols[q]] for q in out[s]) for s in range(K)])
    after.reverse()
    gradient = [[mpf(0)] * C for _ in range(T)]
    for t in range(T):
        weights = [before[t][s] * p[t][symbols[s]] * after[t][s] for s in range(K)]
        for s in range(K):
            gradient[t][symbols[s]] -= weights[s] / sum(weights)
    return -mpmath.log(sum(weights)), gradient


def errors_in_eps(x: Tensor, labels: Sequence[int], exact: Exact, blank: int = 0) -> tuple[float, float]:
    """The error of the value and of the worst entry of the gradient."""
    leaf = x[:, None].detach().requires_grad_()
    loss = ctc_loss(leaf, torch.tensor([list(labels)], dtype=torch.int64), (len(x),), (len(labels),), blank, "sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    info = torch.finfo(x.dtype)

    def error(got: float, wanted: mpf) -> float:  # subnormal numbers have a fixed absolute error
        return float(abs(mpf(got) - wanted) / (max(abs(wanted), mpf(info.tiny)) * mpf(info.eps)))

    entries = zip(gradient[:, 0].flatten().tolist(), itertools.chain.from_iterable(exact[1]), strict=True)
    return error(loss.item(), exact[0]), max(itertools.starmap(error, entries))


@pytest.mark.parametrize("labels", [(), (1,), (2, 1), (1, 1), (2, 2, 1), (0, 2), (1, 2, 0, 1)])
@pytest.mark.parametrize("blank", [0, 3])
def test_definition(route: str, labels: tuple[int, ...], blank: int) -> None:
    labels = tuple(k + 1 if blank == 0 else k for k in labels)
    x = torch.randn(5, 4, dtype=torch.float64)  # no log_softmax: the gradient must be right for any scores
    exact = over_all_paths(x, labels, blank)
    assert (
        max(errors_in_eps(x, labels, exact, blank)) < 64
    )  # a few exp and log per frame, each with an error of one eps
    x = x.float()
    assert max(errors_in_eps(x, labels, over_all_paths(x, labels, blank), blank)) < 1


def test_oracles_agree() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    (loss, gradient), (other, others) = over_all_paths(x, (2, 2, 1)), over_the_lattice(x, (2, 2, 1))
    assert mpmath.almosteq(loss, other, 1e-40)
    for row, other_row in zip(gradient, others, strict=True):
        assert all(mpmath.almosteq(a, b, 1e-40, 1e-40) for a, b in zip(row, other_row, strict=True))


def leading(gap: float, right: bool) -> tuple[Tensor, list[int]]:
    """Scores that favour one path by a fixed gap in every frame, either one that spells the labels or another."""
    path = torch.tensor([0, 1, 1, 0, 2, 0, 2, 2, 3, 3, 0, 0])
    lead = gap * F.one_hot(path if right else (path + 1) % 5, 5)
    return (torch.randn(12, 5, dtype=torch.float64) / 2 + lead).log_softmax(1), [1, 2, 2, 3]


def tight(frames: int, labels: int) -> tuple[Tensor, list[int]]:
    """Hardly more frames than labels, so the first and last frames matter most."""
    return 3 * torch.randn(frames, 60), (torch.randperm(59)[:labels] + 1).tolist()


@functools.cache
def regime(name: str) -> tuple[Tensor, list[int], Exact]:
    x, labels = REGIMES[name]()
    return x.float(), labels, over_the_lattice(x.float(), labels)


REGIMES: dict[str, Callable[[], tuple[Tensor, list[int]]]] = {
    **{f"sure by {gap}": lambda gap=gap: leading(gap, True) for gap in (5, 10, 15, 20, 40, 80)},
    **{f"wrong by {gap}": lambda gap=gap: leading(gap, False) for gap in (10, 80)},
    "P near 1 by many paths": lambda: (torch.tensor([[-11.5129, -1e-5]]).repeat(2, 1), [1]),
    "down to -1e4": lambda: (-1e4 * torch.rand(20, 6), [1, 2, 2, 5]),
    "down to -1e30": lambda: (-1e30 * torch.rand(20, 6), [1, 2, 2, 5]),
    "tiny": lambda: (-1e-20 * torch.rand(20, 6), [1, 2, 2, 5]),
    "shifted by 1000": lambda: (torch.randn(20, 6) + 1000, [1, 2, 2, 5]),
    "long": lambda: (torch.randn(1000, 6).log_softmax(1), [1, 2, 2, 5, 4]),
    "long and steep": lambda: (-1e4 * torch.rand(1000, 4), [1, 2, 2, 3]),
    "many labels": lambda: ((9 * torch.randn(60, 6)).log_softmax(1), torch.randint(1, 6, (20,)).tolist()),
    **{f"{s} labels in {t} frames": lambda t=t, s=s: tight(t, s) for t, s in ((8, 8), (9, 8), (20, 17), (35, 33))},
}


@pytest.mark.parametrize("name", REGIMES)
def test_float32_is_exact_to_rounding(route: str, name: str) -> None:
    value, gradient = errors_in_eps(*regime(name))
    assert value < 1
    assert gradient < 1


def batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Six samples: ordinary, empty, repeated labels, the blank as a label, impossible, no frames."""
    targets = torch.tensor([[1, 2, 3], [-9, 99, 99], [2, 2, 1], [0, 3, 99], [1, 1, 1], [2, 99, 99]])
    return {
        "log_probs": torch.randn(7, 6, 5, dtype=dtype),
        "targets": targets,
        "input_lengths": torch.tensor([7, 4, 6, 7, 4, 0]),
        "target_lengths": torch.tensor([3, 0, 3, 2, 3, 1]),
    }


def concatenated(targets: Tensor, target_lengths: Tensor) -> Tensor:
    return torch.cat([row[:length] for row, length in zip(targets, target_lengths.tolist(), strict=True)])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("layout", ["padded", "concatenated", "int32 and lists"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch_behind_log_softmax(
    route: str, reduction: str, zero_infinity: bool, layout: str, dtype: torch.dtype
) -> None:
    inputs = batch(dtype)
    x = inputs.pop("log_probs")
    if layout == "concatenated":
        inputs["targets"] = concatenated(inputs["targets"], inputs["target_lengths"])
    elif layout == "int32 and lists":
        inputs["targets"] = inputs["targets"].int()
        inputs |= {name: inputs[name].tolist() for name in ("input_lengths", "target_lengths")}
    results = []
    for function in (ctc_loss, F.ctc_loss):
        leaf = x.clone().requires_grad_()
        loss = function(leaf.log_softmax(2), **inputs, reduction=reduction, zero_infinity=zero_infinity)
        g = torch.linspace(-1, 2, loss.numel(), dtype=dtype).view(loss.shape)
        results.append((loss, torch.autograd.grad(loss, leaf, g)[0]))
    assert_close(*results, equal_nan=True)


def test_unbatched_equals_torch(route: str) -> None:
    x, target = torch.randn(6, 4).log_softmax(1), torch.tensor([1, 3, 3])
    for lengths in ((torch.tensor(6), torch.tensor(3)), (torch.tensor([6]), torch.tensor([3])), ((6,), (3,))):
        for labels in (target, target[None]):
            for reduction in ("none", "mean", "sum"):
                ours = ctc_loss(x, labels, *lengths, reduction=reduction)
                assert_close(ours, F.ctc_loss(x, labels, *lengths, reduction=reduction))


def test_frames_behind_the_last_have_no_part(route: str) -> None:
    inputs = batch()
    for garbage in (NAN, INF, -INF):
        x = inputs["log_probs"].clone()
        for n, length in enumerate(inputs["input_lengths"].tolist()):
            x[length:, n] = garbage
        results = []
        for values in (x, inputs["log_probs"]):
            leaf = values.clone().requires_grad_()
            loss = ctc_loss(**inputs | {"log_probs": leaf}, reduction="sum", zero_infinity=True)
            (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
            (hessian,) = torch.autograd.grad((gradient * inputs["log_probs"]).sum(), leaf)
            results.append((loss, gradient, hessian))
        assert_close(*results)
        for n, length in enumerate(inputs["input_lengths"].tolist()):
            assert (results[0][1][length:, n] == 0).all()
            assert (results[0][2][length:, n] == 0).all()


def test_impossible_targets(route: str) -> None:
    inputs = batch()
    leaf = inputs.pop("log_probs").requires_grad_()
    loss = ctc_loss(leaf, **inputs, reduction="none")
    (gradient,) = torch.autograd.grad(loss, leaf, torch.ones_like(loss), create_graph=True)
    (hessian,) = torch.autograd.grad(gradient[:, :4].sum() + gradient[:4, 4].sum(), leaf)
    assert loss.isinf().tolist() == [False] * 4 + [True] * 2
    for derivative in (gradient, hessian):
        assert derivative[:, :4].isfinite().all()
        assert derivative[:4, 4].isnan().all()  # only its own frames; padding has 0
        assert (derivative[4:, 4] == 0).all()
        assert (derivative[:, 5] == 0).all()


def test_minus_infinity_forbids_a_symbol(route: str) -> None:
    inputs = batch()
    x = inputs.pop("log_probs")
    x[2, :, 2:] = -INF
    x[:, :, 4] = -INF
    leaf = x.requires_grad_()
    loss = ctc_loss(leaf, **inputs, reduction="none", zero_infinity=True)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf, create_graph=True)
    (hessian,) = torch.autograd.grad((gradient * torch.randn_like(x)).sum(), leaf)
    assert_close(loss, F.ctc_loss(x, **inputs, reduction="none", zero_infinity=True))
    assert (gradient[2, :, 2:] == 0).all()
    assert hessian.isfinite().all()
    for n, frames in enumerate(inputs["input_lengths"].tolist()):
        posterior = -gradient[:frames, n].sum(1)
        assert_close(posterior, torch.full_like(posterior, n < 4))  # the last two are impossible


SMALL = {
    "targets": torch.tensor([[1, 1], [2, 0]]),
    "input_lengths": torch.tensor([4, 3]),
    "target_lengths": torch.tensor([2, 1]),
}


def test_gradient_where_the_blank_is_the_last_label(route: str) -> None:
    x = torch.randn(4, 1, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda x: ctc_loss(x, torch.tensor([[1, 0]]), (4,), (2,)), x
    )  # torch's gradient is wrong at the last frame


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_gradcheck(route: str, reduction: str) -> None:
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        return ctc_loss(x, **SMALL, reduction=reduction)

    fast = {"fast_mode": reduction == "mean"}  # check the full Hessian once, otherwise only random directions
    assert gradcheck(loss, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True, **fast)
    assert gradgradcheck(loss, x, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True, **fast)


def from_all_paths(x: Tensor) -> Tensor:
    """The losses of the batch SMALL, as the differentiable sum over all paths."""
    losses = []
    for n, (frames, labels) in enumerate(((4, (1, 1)), (3, (2,)))):
        paths = torch.tensor([p for p in itertools.product(range(3), repeat=frames) if spell(p, 0) == labels])
        losses.append(-x[torch.arange(frames), n, paths].sum(1).logsumexp(0))
    return torch.stack(losses)


def test_higher_derivatives(route: str) -> None:
    x, v, w = torch.randn(3, 4, 2, 3, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return ctc_loss(x, **SMALL, reduction="none").square().sum()

    def expected(x: Tensor) -> Tensor:
        return from_all_paths(x).square().sum()

    jacrev, jacfwd, jvp = torch.func.jacrev, torch.func.jacfwd, torch.func.jvp
    hessian = torch.autograd.functional.hessian(expected, x)
    for outer, inner in itertools.product((jacrev, jacfwd), repeat=2):
        assert_close(outer(inner(loss))(x), hessian)

    def third(f: Callable[[Tensor], Tensor]) -> Tensor:
        along_v = torch.func.grad(lambda x: (jvp(torch.func.grad(f), (x,), (v,))[1] * w).sum())
        return along_v(x)

    assert_close(third(loss), third(expected))


@pytest.mark.parametrize("layout", ["padded", "concatenated"])
def test_vmap(route: str, layout: str) -> None:
    x = torch.randn(3, 4, 2, 3, dtype=torch.float64)
    inputs = SMALL | ({"targets": torch.tensor([1, 1, 2])} if layout == "concatenated" else {})

    def loss(x: Tensor) -> Tensor:
        return ctc_loss(x, **inputs)

    assert_close(torch.vmap(loss)(x), torch.stack([loss(one) for one in x]))
    gradient = torch.func.grad(loss)
    assert_close(torch.vmap(gradient, in_dims=2)(x.movedim(0, 2)), torch.stack([gradient(one) for one in x]))


@pytest.mark.parametrize("layout", ["padded", "concatenated"])
def test_vmap_over_everything(route: str, layout: str) -> None:
    x, targets = torch.randn(4, 5, 4, dtype=torch.float64), torch.tensor([[1, 2], [3, 3], [2, 1], [1, 1]])
    frames, labels = torch.tensor([5, 4, 3, 5]), torch.full((4,), 2)

    def loss(x: Tensor, targets: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
        batched = targets if layout == "concatenated" else targets[None]
        return ctc_loss(x[:, None], batched, frames[None], labels[None], reduction="none").squeeze(0)

    expected = ctc_loss(x.movedim(0, 1), targets, frames, labels, reduction="none")
    assert_close(torch.vmap(loss)(x, targets, frames, labels), expected)


def test_compiles_to_one_graph(route: str) -> None:
    torch._dynamo.reset()

    def loss(x: Tensor, **inputs: Tensor) -> Tensor:
        return ctc_loss(x.log_softmax(2), **inputs)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    for targets in (SMALL["targets"], torch.tensor([1, 1, 2]))[: 1 if route == "formulas" else 2]:
        inputs, results = SMALL | {"targets": targets}, []
        for function in (loss, compiled):
            leaf = x.clone().requires_grad_()
            value = function(leaf, **inputs)
            results.append((value, torch.autograd.grad(value, leaf)[0]))
        assert_close(*results)
        if route == "kernel":  # the kernel reads the values when the graph runs
            with pytest.raises(IndexError, match="Target 3 is out of bounds"):
                compiled(x, **inputs | {"targets": targets + 2})
            with pytest.raises(RuntimeError, match="input_lengths to have value at most 4, but got value 5"):
                compiled(x, **inputs | {"input_lengths": torch.tensor([4, 5])})


BAD: dict[str, tuple[dict[str, object], type[Exception], str]] = {
    "label too large": ({"targets": torch.tensor([[1, 1], [5, 0]])}, IndexError, "Target 5 is out of bounds.*targets"),
    "label negative": ({"targets": torch.tensor([[1, -1], [2, 0]])}, IndexError, "Target -1 is out of bounds"),
    "label huge": ({"targets": torch.tensor([[1, 2**62], [2, 0]])}, IndexError, f"Target {2**62} is out of bounds"),
    "label, concatenated": ({"targets": torch.tensor([1, 1, 3])}, IndexError, "Target 3 is out of bounds"),
    "too many frames": (
        {"input_lengths": torch.tensor([4, 5])},
        RuntimeError,
        "Expected input_lengths to have value at most 4, but got value 5",
    ),
    "negative frames": (
        {"input_lengths": [4, -1]} | {"target_lengths": [2, 1]},
        RuntimeError,
        "Expected input_lengths to have value at least 0, but got value -1",
    ),
    "negative labels": (
        {"target_lengths": torch.tensor([2, -1])},
        RuntimeError,
        "Expected target_lengths to have value at least 0, but got value -1",
    ),
    "more labels than stored": (
        {"target_lengths": torch.tensor([2, 3])},
        RuntimeError,
        "Expected tensor to have size at least 3 at dimension 1, but got size 2 for argument #2 'targets'",
    ),
    "wrong sum of labels": (
        {"targets": torch.tensor([1, 1, 2, 2])},
        RuntimeError,
        "Expected tensor to have size 3 at dimension 0, but got size 4 for argument #2 'targets'",
    ),
    "other batch": (
        {"targets": torch.ones(3, 2, dtype=torch.int64)},
        RuntimeError,
        "Expected tensor to have size 2 at dimension 0, but got size 3 for argument #2 'targets'",
    ),
    "blank too large": ({"blank": 3}, RuntimeError, "blank must be in label range"),
    "blank negative": ({"blank": -1}, RuntimeError, "blank must be in label range"),
    "blank a float": ({"blank": 0.0}, TypeError, "ctc_loss|int"),
    "zero_infinity an int": ({"zero_infinity": 1}, TypeError, "ctc_loss|int"),
    "frames of another batch": ({"input_lengths": torch.tensor([4])}, RuntimeError, "input_lengths must be of size"),
    "labels of another batch": ({"target_lengths": torch.tensor([2])}, RuntimeError, "target_lengths must be of size"),
    "float frames": ({"input_lengths": torch.tensor([4.0, 3.0])}, RuntimeError, "input_lengths must be integral"),
    "bool labels": ({"target_lengths": torch.tensor([True, True])}, RuntimeError, "target_lengths must be integral"),
    "one list": ({"input_lengths": [4, 3]}, TypeError, "ctc_loss|int"),
    "float list": ({"input_lengths": [4.0, 3.0], "target_lengths": [2, 1]}, TypeError, "ctc_loss|int"),
    "3-d targets": ({"targets": SMALL["targets"][None]}, RuntimeError, "Expected 1 to 2 dimensions, but got 3-dim"),
    "4-d log_probs": ({"log_probs": torch.zeros(1, 4, 2, 3)}, RuntimeError, "-dimensional tensor, but got|dimensional"),
    "no classes": ({"log_probs": torch.zeros(4, 2, 0)}, RuntimeError, "log_probs tensor must not be empty"),
    "integers": ({"log_probs": torch.zeros(4, 2, 3, dtype=torch.int64)}, NotImplementedError, "ctc_loss"),
    "no log_probs": ({"log_probs": None}, TypeError, "ctc_loss|int"),
    "no targets": ({"targets": None}, TypeError, "ctc_loss|int"),
    "unknown reduction": ({"reduction": "average"}, ValueError, "average is not a valid value for reduction"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arguments(route: str, what: str) -> None:
    change, error, message = BAD[what]
    arguments = {"log_probs": torch.zeros(4, 2, 3), **SMALL, **change}
    with pytest.raises(error, match=message):
        ctc_loss(**arguments)
    if error is not IndexError:  # torch reads out of bounds
        with pytest.raises(error, match=message):
            F.ctc_loss(**arguments)


@needs_kernels
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, targets = torch.randn(40, 30, 20), torch.randint(0, 20, (30, 15))
    labels = torch.randint(0, 16, (30,))
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            leaf = x.clone().requires_grad_()
            loss = ctc_loss(leaf, targets, [40] * 30, labels.tolist())
            results.append((loss, torch.autograd.grad(loss, leaf)[0]))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert_close(other, results[0], rtol=0, atol=0)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_kernel_equals_formulas(dtype: torch.dtype, reduction: str) -> None:
    for _ in range(3):
        labels = torch.randint(0, 35, (4,))
        frames = labels + torch.tensor([0, 1, 3, 20])
        x = 2 * torch.randn(4, 9, int(frames.max()) + 1).to(dtype).permute(2, 0, 1)
        targets, results = torch.randint(0, 9, (4, 35)), []
        g = torch.randn(2, dtype=dtype)[:1].expand(4) if reduction == "none" else torch.randn((), dtype=dtype)
        for on in (True, False):
            leaf = x.clone().requires_grad_()
            with kernels.switched(on):
                loss = ctc_loss(leaf, targets, frames, labels, 2, reduction, zero_infinity=True)
            results.append((loss, torch.autograd.grad(loss, leaf, g)[0]))
        assert results[0][1].stride() == x.stride()
        tight = {"rtol": 1e-12, "atol": 1e-14} if dtype is torch.float64 else {}
        assert_close(*results, **tight)


@needs_kernels
def test_kernel_refuses_tensors_that_do_not_fit() -> None:
    op = kernels.op("ctc_loss")
    x, (targets, *lengths) = torch.zeros(4, 2, 3), SMALL.values()
    for labels, dx in ((targets.int(), None), (targets[:1], None), (targets, torch.zeros(3, 2, 3))):
        with pytest.raises(RuntimeError, match="do not fit together"):
            op(x, labels, *lengths, None, 0, False, True, 1.0, True, torch.empty(()), dx)


def test_dtypes(route: str) -> None:
    x = torch.randn(4, 2, 3)
    for dtype in (torch.bfloat16, torch.float16):
        leaf = x.to(dtype).requires_grad_()
        loss = ctc_loss(leaf, **SMALL)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.dtype == gradient.dtype == dtype
        exact = ctc_loss(leaf.detach().double(), **SMALL)
        assert_close(loss.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)
        with torch.autocast("cpu", dtype=dtype):
            assert ctc_loss(leaf, **SMALL).dtype is torch.float32


def test_every_way_to_go_back(route: str) -> None:
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    (once,) = torch.autograd.grad(ctc_loss(leaf := x.requires_grad_(), **SMALL), leaf)
    loss = ctc_loss(leaf, **SMALL)
    for scale in (1.0, 3.0, 1.0, 0.0):  # the stored gradient must not be scaled in place
        (again,) = torch.autograd.grad(loss, leaf, torch.tensor(scale, dtype=torch.float64), retain_graph=True)
        assert_close(again, scale * once)
    losses = ctc_loss(leaf, **SMALL, reduction="none")
    upstream = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
    batched = torch.autograd.grad(losses, leaf, upstream.T, is_grads_batched=True, retain_graph=True)[0]
    for g, gradient in zip(upstream.T, batched, strict=True):  # strided
        assert_close(gradient, torch.autograd.grad(losses, leaf, g, retain_graph=True)[0])


def test_module() -> None:
    inputs = batch()
    for options in ({}, {"blank": 2, "reduction": "none"}, {"reduction": "sum", "zero_infinity": True}):
        module = CTCLoss(**options)
        assert_close(module(**inputs), ctc_loss(**inputs, **options), equal_nan=True)
        assert repr(module) == repr(torch.nn.CTCLoss(**options))
