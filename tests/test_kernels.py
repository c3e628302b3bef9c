"""The compiled kernels: elementary functions against mpmath, threads, layouts, faults."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch

import manual_grad.functional as M
from elementary import CAPABILITY, FLAGS, build, call
from manual_grad import kernels

needs_kernels = pytest.mark.skipif(kernels.op("mse_loss") is None, reason="the kernels are not built here")


@pytest.fixture(scope="module", params=list(FLAGS)[:CAPABILITY])
def simd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    functions = build(tmp_path_factory.mktemp(request.param), request.param)
    if functions is None:
        pytest.skip("no C++ compiler to build the elementary functions with")
    return functions


def points(function: str, dtype: type) -> np.ndarray:
    random = np.random.default_rng(0)
    low = -746.0 if dtype is np.float64 else -104.0
    tiny = np.logspace(-300 if dtype is np.float64 else -37, 0, 500)
    if function in ("exp", "expm1"):
        x = np.concatenate([-tiny, random.uniform(low, 0, 900), random.uniform(-1, 0, 600), [0.0, -0.0, low]])
    elif function == "exp_signed":
        x = np.concatenate([-tiny, tiny, random.uniform(low, -low * 0.85, 2000), random.uniform(-1, 1, 600)])
    elif function in ("log", "sqrt"):
        info = np.finfo(dtype)
        wide = np.logspace(np.log10(float(info.tiny)), np.log10(float(info.max) * 0.99), 900)
        subnormal = info.tiny * random.uniform(0.01, 1, 99)
        x = np.concatenate([wide, 1 + random.uniform(-0.3, 0.4, 900), 1 + tiny, subnormal])
        x = np.concatenate([x, [1.0, 0.5, 2**0.5, 0.5**0.5, info.max, info.smallest_subnormal]])
        return np.pad(x.astype(dtype), (0, -len(x) % 16), constant_values=1)
    elif function == "log1p_unit":
        x = np.concatenate([tiny, random.uniform(0, 1, 1500), [0.0, 1.0, 0.41421356237309503, 0.4142135623730951]])
    else:
        near = 1 - 2.0 ** -np.arange(1, np.finfo(dtype).nmant + 2)  # down to the smallest number above -1
        x = np.concatenate([tiny, random.uniform(0, 4, 1000), np.logspace(0, 37, 500), 2.0 ** np.arange(60), [0.0]])
        x = np.concatenate([x, -tiny[tiny < 0.9], random.uniform(-0.999, 0, 1000), -near, [0.5**0.5 - 1]])
        info = np.finfo(dtype)
        x = np.concatenate([x, info.max * np.array([0.3, 0.6, 0.9, 1]), info.smallest_subnormal * np.array([1, -3])])
    return np.pad(x.astype(dtype), (0, -len(x) % 16))


@pytest.mark.parametrize("function", ["exp", "exp_signed", "expm1", "log", "log1p", "log1p_unit", "sqrt"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_elementary_functions_to_two_ulp(simd: ctypes.CDLL, function: str, dtype: type) -> None:
    x = points(function, dtype)
    y = np.empty_like(x)
    suffix = "f64" if dtype is np.float64 else "f32"
    call = getattr(simd, f"{function}_{suffix}")
    call(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(len(x)))
    exact = getattr(mpmath, function.split("_")[0])
    with mpmath.workdps(40):
        errors = [
            abs(mpmath.mpf(float(b)) - exact(mpmath.mpf(float(a)))) / mpmath.mpf(float(np.spacing(abs(b))))
            for a, b in zip(x, y, strict=True)
        ]
    assert max(errors) <= 2


@pytest.mark.parametrize(("function", "bound"), [("pow_f64", 2.0**-52), ("pow_to_f32", 2.0**-40)])
@pytest.mark.parametrize("exponent", [0.5, 1.7, -0.3, 0.0, 4.0])
def test_powers(simd: ctypes.CDLL, function: str, bound: float, exponent: float) -> None:
    x = np.concatenate([[0.0, 1.0, np.inf], np.logspace(-60, 60, 200), np.random.default_rng(0).uniform(0, 2, 200)])
    x = np.pad(x, (0, -len(x) % 16), constant_values=1)
    y = np.empty_like(x)
    x_at, y_at = (v.ctypes.data_as(ctypes.c_void_p) for v in (x, y))
    getattr(simd, function)(x_at, ctypes.c_double(exponent), y_at, ctypes.c_long(len(x)))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(y, x**exponent, rtol=bound, atol=0)


def remainder(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.expm1(x) - x


# bits of results that are rounded to float32, and ulp of those that are not; beyond |x| = 1 (or 1/2), expm1 and the
# remainder are differences
@pytest.mark.parametrize(
    ("name", "exact", "bits", "highest"),
    [
        ("exp", mpmath.exp, 50, 700),
        ("expm1", mpmath.expm1, 45, 0),
        ("exp_minus_1", mpmath.expm1, 45, 700),
        ("exp_remainder", remainder, 40, 700),
    ],
)
def test_exponentials_for_float32_results(
    simd: ctypes.CDLL, name: str, exact: Callable[[mpmath.mpf], mpmath.mpf], bits: int, highest: float
) -> None:
    x = points("exp_signed", np.float64)
    x = x[(x > -708) & (x <= highest) & (abs(x) > 1e-150)]  # normal results, also of the square
    x = np.concatenate([x, [0.0, -0.0]])
    x = np.pad(x, (0, -len(x) % 16))
    y = np.empty_like(x)
    call(getattr(simd, f"{name}_to_float"), x, y)
    with mpmath.workdps(400):
        for a, b in zip(map(float, x), map(float, y), strict=True):
            expected = exact(mpmath.mpf(a))
            assert abs(mpmath.mpf(b) - expected) <= abs(expected) * 2.0**-bits * max(1, abs(a))
    assert (y[x == 0] == (1 if name == "exp" else 0)).all()


@pytest.mark.parametrize(("name", "exact"), [("exp_minus_1", mpmath.expm1), ("exp_remainder", remainder)])
@pytest.mark.parametrize(("suffix", "dtype", "ulp"), [("f64", np.float64, 4), ("f32", np.float32, 8)])
def test_exponential_without_its_first_terms(
    simd: ctypes.CDLL, name: str, exact: Callable[[mpmath.mpf], mpmath.mpf], suffix: str, dtype: type, ulp: float
) -> None:
    x = points("exp_signed", dtype)
    x = x[abs(x) > (1e-150 if dtype is np.float64 else 1e-18)]  # whose square is a normal number
    x = np.pad(x, (0, -len(x) % 16), constant_values=1)
    y = np.empty_like(x)
    call(getattr(simd, f"{name}_{suffix}"), x, y)
    with mpmath.workdps(400):
        for a, b in zip(map(float, x), y, strict=True):
            assert abs(mpmath.mpf(float(b)) - exact(mpmath.mpf(a))) <= ulp * float(np.spacing(abs(b)))


@pytest.mark.parametrize("suffix", ["to_float", "f64"])
def test_exponential_without_its_first_terms_at_the_ends(simd: ctypes.CDLL, suffix: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, 1e300, -1e300] + [0.0] * 10)
    y = np.empty_like(x)
    call(getattr(simd, f"exp_minus_1_{suffix}"), x, y)
    np.testing.assert_array_equal(y[:6], [np.inf, -1, np.nan, 0, np.inf, -1])
    call(getattr(simd, f"exp_remainder_{suffix}"), x, y)
    np.testing.assert_array_equal(y[:6], [np.inf, np.inf, np.nan, 0, np.inf, 1e300])


@pytest.mark.parametrize(("name", "bits"), [("exp", 32), ("log", 30)])
def test_exponential_and_logarithm_in_two_floats(simd: ctypes.CDLL, name: str, bits: int) -> None:
    if not hasattr(simd, f"{name}_two_floats"):
        pytest.skip("this instruction set has no table in a register: float32 is computed in double")
    x = points(name, np.float32)
    x = np.pad(x[x > -70], (0, -len(x[x > -70]) % 16), constant_values=0.5)  # where the low float is normal
    high, low = np.empty_like(x), np.empty_like(x)
    call(getattr(simd, f"{name}_two_floats"), x, high, low)
    exact = getattr(np, name)(x.astype(np.float64))
    assert (np.abs(high.astype(np.float64) + low - exact) <= np.abs(exact) * 2.0**-bits).all()
    assert (np.abs(low) <= np.spacing(np.abs(high))).all()
    assert (np.abs(high - exact) > np.abs(exact) * 2.0**-25).any()  # without it, the error is larger


def test_fused_multiply_add_of_floats(simd: ctypes.CDLL) -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=1600).astype(np.float32) for _ in range(2))
    c, y = -(a * b), np.empty_like(a)
    call(simd.fma_f32, a, b, c, y)
    assert (y == a.astype(np.float64) * b - a * b).all()  # the rounding error of the product
    assert (y != 0).any()


def test_exponential_of_a_difference_that_float_cannot_hold(simd: ctypes.CDLL) -> None:
    random = np.random.default_rng(0)
    b = (random.normal(size=1600) * np.logspace(-3, 4, 1600)).astype(np.float32)
    a = (b - random.uniform(0, 87, 1600)).astype(np.float32)
    y = np.empty_like(a)
    simd.exp_of_difference_f32(*(v.ctypes.data_as(ctypes.c_void_p) for v in (a, b, y)), ctypes.c_long(len(a)))
    exact = np.exp(a.astype(np.float64) - b.astype(np.float64))
    assert (np.abs(y - exact) / np.spacing(y)).max() <= 2
    assert (np.abs(np.exp(a - b) - exact) / np.spacing(y)).max() > 10  # a plain subtraction is less accurate
    a[:4] = [-np.inf, np.nan, -3e38, 1.0]
    b[:4] = [1.0, 1.0, 3e38, 1.0]
    simd.exp_of_difference_f32(*(v.ctypes.data_as(ctypes.c_void_p) for v in (a, b, y)), ctypes.c_long(len(a)))
    np.testing.assert_array_equal(y[:4], [0.0, np.nan, 0.0, 1.0])


def test_elementary_functions_at_the_ends(simd: ctypes.CDLL) -> None:
    x = np.array([-np.inf, np.nan, -1e300, -746.0, 0.0, -0.0] + [0.0] * 10)
    y = np.empty_like(x)
    simd.exp_f64(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(16))
    np.testing.assert_array_equal(y[:6], [0.0, np.nan, 0.0, 0.0, 1.0, 1.0])
    x[:6] = [np.inf, np.nan, -1.0, -1.5, -np.inf, 0.0]
    simd.log1p_f64(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(16))
    np.testing.assert_array_equal(y[:6], [np.inf, np.nan, -np.inf, np.nan, np.nan, 0.0])
    x[:6] = [np.inf, -np.inf, np.nan, 710.0, 1e300, -750.0]
    simd.exp_signed_f64(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(16))
    np.testing.assert_array_equal(y[:6], [np.inf, 0.0, np.nan, np.inf, np.inf, 0.0])
    x[:6] = [np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0]
    simd.log_f64(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(16))
    np.testing.assert_array_equal(y[:6], [np.inf, np.nan, np.nan, -np.inf, -np.inf, np.nan])


def inputs(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def classes(n: int, *shape: int) -> torch.Tensor:
        return torch.randint(n, shape, generator=generator)

    x, t, image = (torch.randn(*shape, generator=generator) for shape in ((300, 411), (300, 411), (6, 9, 50, 31)))
    return {
        "x": x.to(dtype),
        "t": t.sigmoid().to(dtype),
        "image": image.to(dtype),
        "y": classes(411, 300),
        "labels": classes(9, 6, 50, 31),
        "sign": classes(2, 300) * 2 - 1,
    }


def losses_and_gradients(
    dtype: torch.dtype,
    x: torch.Tensor,
    t: torch.Tensor,
    image: torch.Tensor,
    y: torch.Tensor,
    labels: torch.Tensor,
    sign: torch.Tensor,
) -> list[torch.Tensor]:
    results = []

    def collect(name: str, *inputs: torch.Tensor, **options: object) -> None:
        for reduction in ("none", "mean"):
            leaves = [u.detach().requires_grad_() if u.dtype is dtype else u for u in inputs]
            loss = getattr(M, name)(*leaves, reduction=reduction, **options)
            results.extend([loss, *torch.autograd.grad(loss.sum(), [u for u in leaves if u.requires_grad])])

    for name in ("l1_loss", "mse_loss", "huber_loss", "binary_cross_entropy_with_logits"):
        collect(name, x, t)
    for name in ("kl_div", "soft_margin_loss", "multilabel_soft_margin_loss"):
        collect(name, x, t)
    collect("binary_cross_entropy", t, t.flip(0))
    collect("cross_entropy", x, y, label_smoothing=0.1)
    collect("cross_entropy", x.t().contiguous().t(), t)
    collect("cross_entropy", image, labels)
    collect("cosine_embedding_loss", x, t, sign)
    return results


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_results_do_not_depend_on_the_number_of_threads(dtype: torch.dtype) -> None:
    threads, results, fixed = torch.get_num_threads(), [], inputs(dtype)
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(losses_and_gradients(dtype, **fixed))
    finally:
        torch.set_num_threads(threads)
    for one, two, three in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@needs_kernels
@pytest.mark.parametrize("index", [7, 5, -1, 2**40, -(2**62)])
def test_class_index_out_of_range_is_an_index_error(index: int) -> None:
    target = torch.tensor([0, index, 4])
    with pytest.raises(IndexError, match=f"Target {index} is out of bounds"):
        M.cross_entropy(torch.randn(3, 5), target)
    M.cross_entropy(torch.randn(3, 5), target, ignore_index=index)


@needs_kernels
def test_nan_in_an_ignored_row_stays_there() -> None:
    z = torch.randn(40, 7)
    z[3] = float("nan")
    z.requires_grad_()
    target = torch.full((40,), 2)
    target[3] = -100
    loss = M.cross_entropy(z, target)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[3] == 0).all()


@needs_kernels
@pytest.mark.parametrize("name", ["l1_loss", "mse_loss", "huber_loss", "binary_cross_entropy_with_logits"])
def test_nan_and_infinity_propagate_as_in_torch(name: str) -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, 0.0]).repeat(20)
    t = torch.tensor([0.5, 0.5, 0.5, float("nan"), 0.25]).repeat(20)
    if name == "binary_cross_entropy_with_logits":
        x[x == -float("inf")] = 3.0  # torch gives inf - inf = nan; ours gives the exact inf
    for reduction in ("none", "sum", "mean"):
        ours, torchs = (getattr(module, name)(x, t, reduction=reduction) for module in (M, torch.nn.functional))
        torch.testing.assert_close(ours, torchs, equal_nan=True)


def sweep_mse(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The unreduced losses, and the gradients of x and t."""
    return kernels.op("mse_loss")(x, t, None, None, 1.0, False, True, True, True, False)


LAYOUTS = {
    "contiguous": torch.empty(2, 3, 4, 5),
    "channels_last": torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "permuted": torch.empty(4, 5, 2, 3).permute(2, 0, 3, 1),
    "gaps": torch.empty(4, 6, 8, 9)[::2, ::3, ::2, ::4],
    "gaps, permuted": torch.empty(9, 6, 8, 4).permute(3, 1, 2, 0)[::2, ::3, ::2, ::4],
    "expanded rows": torch.empty(1, 4).expand(3, 4),
    "expanded columns": torch.empty(3, 1).expand(3, 4),
    "expanded, permuted": torch.empty(5, 1, 3).expand(5, 4, 3).permute(2, 1, 0),
    "ones": torch.empty(1, 3, 1, 2).to(memory_format=torch.channels_last),
    "diagonal": torch.empty(5).as_strided((2, 3), (1, 1)),
    "empty": torch.empty(3, 0, 2).permute(2, 0, 1),
    "scalar": torch.empty(()),
}


@needs_kernels
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_laid_out_as_by_empty_like(layout: str) -> None:
    x = LAYOUTS[layout]
    for result in sweep_mse(x, torch.empty(x.shape))[:2]:
        assert result.stride() == torch.empty_like(x).stride()


@needs_kernels
def test_logits_that_meet_their_target() -> None:
    """In sigma - t, between 0 and 27 bits cancel."""
    random = torch.Generator().manual_seed(0)
    x = 4 * torch.randn(1 << 18, generator=random)
    size = 10.0 ** (-8 * torch.rand(x.shape, generator=random, dtype=torch.float64))
    t = (x.double().sigmoid() * torch.where(x > 1, 1 - size, 1 + size)).clamp(0, 1).float()
    x.requires_grad_()
    (dx,) = torch.autograd.grad(M.binary_cross_entropy_with_logits(x, t, reduction="sum"), x)
    small = (-x.detach().double().abs()).sigmoid()
    exact = torch.where(x < 0, small - t, (1 - t.double()) - small)
    known = exact.abs() > 2.0**-27 * small  # accurate in float64
    assert known.float().mean() > 0.99
    error = ((dx - exact).abs() / exact.abs())[known].max() / torch.finfo(torch.float32).eps
    assert error <= 4


@needs_kernels
@pytest.mark.parametrize("name", ["input", "target"])
@pytest.mark.parametrize("value", [-1e-30, 1.0000001, float("nan"), float("inf")])
def test_probabilities_outside_the_unit_interval_are_refused_wherever_they_are(name: str, value: float) -> None:
    inputs = {"input": torch.full((200, 777), 0.25), "target": torch.full((200, 777), 1.0)}
    assert M.binary_cross_entropy(**inputs).isfinite()
    for index in ((0, 0), (77, 5), (199, 776)):
        bad = inputs[name].clone()
        bad[index] = value
        for tensor in (bad, bad.t().contiguous().t(), bad.double()):
            both = {k: t.to(tensor.dtype) for k, t in inputs.items()} | {name: tensor}
            with pytest.raises(RuntimeError, match=f"all elements of {name} should be between 0 and 1"):
                M.binary_cross_entropy(**both)


@needs_kernels
def test_kernels_refuse_tensors_that_do_not_fit() -> None:
    x, loss = torch.randn(8), torch.empty(())
    for t in (torch.randn(4), x.double()):
        with pytest.raises(RuntimeError, match="one dtype and one shape"):
            sweep_mse(x, t)
    ce = kernels.op("cross_entropy")
    with pytest.raises(RuntimeError, match="do not fit together"):
        ce(torch.randn(3, 5), torch.tensor([1, 2]), None, None, -100, 0.0, True, 1.0, True, loss, None, None, None)
    x, flat, y, no = torch.randn(2, 3, 4), torch.randn(24), torch.zeros(8, dtype=torch.long), None
    with pytest.raises(RuntimeError, match="one dtype and one shape"):  # the same number of elements is not enough
        sweep_mse(x, flat)
    with pytest.raises(RuntimeError, match="do not fit together"):
        ce(x, y, no, no, -100, 0.0, True, 1.0, True, loss, no, no, no)
    with pytest.raises(RuntimeError, match="do not fit together"):
        kernels.op("nll_loss")(x, y.view(2, 4), no, no, -100, False, 1.0, False, torch.empty(8), no)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_is_read_and_rounded_as_by_torch(dtype: torch.dtype) -> None:
    """Test all bit patterns: subnormal numbers, infinities, NaN, and squares that overflow or underflow."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    zero = torch.zeros_like(x)
    for loss, expected in ((M.l1_loss, x.abs()), (M.mse_loss, x.float().square().to(dtype))):
        torch.testing.assert_close(loss(x, zero, reduction="none"), expected, rtol=0, atol=0, equal_nan=True)
