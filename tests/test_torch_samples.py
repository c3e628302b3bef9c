"""PyTorch's own samples and error cases for its losses, run on ours.

``torch.testing._internal`` ships with torch: OpInfo's sample inputs, error inputs and dtypes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch

import manual_grad.functional as M
from calls import SHARED
from closeness import assert_no_further_than_torch

internal = pytest.importorskip(
    "torch.testing._internal.common_methods_invocations",
    reason="this torch ships no OpInfo database, or its dependency expecttest is missing",
)

OPS = {op.name.removeprefix("nn.functional."): op for op in internal.op_db if op.name.startswith("nn.functional.")}
OPS = {name: op for name, op in OPS.items() if name in M.__all__}
CASES = [(name, dtype) for name, op in OPS.items() for dtype in sorted(op.supported_dtypes("cpu"), key=str)]

# torch differentiates a logarithm before masking it; the spec pins the right gradient there
NAN_IN_TORCH = {"poisson_nll_loss"}

pytestmark = pytest.mark.filterwarnings("ignore:Using a target size", "ignore:.*deprecated")


def wide(value: object) -> object:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return value


def gradients(loss: torch.Tensor, inputs: list[torch.Tensor], g: torch.Tensor) -> list[torch.Tensor | None]:
    return list(torch.autograd.grad(loss, inputs, g.to(loss.dtype), allow_unused=True))


def behind_log_softmax(name: str, loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """ctc_loss after a log_softmax: torch's gradient is that of the scores, so it can be compared only there."""
    return (lambda x, *rest, **kwargs: loss(x.log_softmax(-1), *rest, **kwargs)) if name == "ctc_loss" else loss


def compare(name: str, sample: object, dtype: torch.dtype) -> None:
    arguments = (sample.input, *sample.args)
    ours, torchs = (behind_log_softmax(name, getattr(module, name)) for module in (M, torch.nn.functional))
    expected, result = torchs(*arguments, **sample.kwargs), ours(*arguments, **sample.kwargs)
    assert result.dtype is expected.dtype
    assert result.shape == expected.shape
    if not dtype.is_floating_point:
        return torch.testing.assert_close(result, expected)
    wide_arguments = [wide(a) for a in arguments]
    # torch rejects some options in float64; without them the result is the same
    wide_kwargs = {k: wide(v) for k, v in sample.kwargs.items() if k != "options"}
    exact = torchs(*wide_arguments, **wide_kwargs)
    trios = [(result, expected, exact)]
    if expected.requires_grad:
        g = torch.randn_like(expected)

        def leaves(*values: object) -> list[torch.Tensor]:
            return [v for v in values if isinstance(v, torch.Tensor) and v.requires_grad]

        mine = leaves(*arguments, *sample.kwargs.values())
        others = leaves(*wide_arguments, *wide_kwargs.values())
        trios += zip(gradients(result, mine, g), gradients(expected, mine, g), gradients(exact, others, g), strict=True)
    for a, b, c in trios:
        if name in NAN_IN_TORCH and a is not None:
            known = ~c.isnan()
            assert a[~known].isfinite().all()
            a, b, c = a[known], b[known], c[known]
        assert_no_further_than_torch(a, b, c)


def samples(name: str, dtype: torch.dtype) -> Iterator[object]:
    grad = dtype.is_floating_point
    yield from OPS[name].sample_inputs("cpu", dtype, requires_grad=grad)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_samples(name: str, dtype: torch.dtype) -> None:
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in samples(name, dtype):
            compare(name, sample, dtype)
            count += 1
    assert count > 0


# torch 2.10's message, and the message of later versions and of ours
REWORDED = {
    r"inconsistent target size, expected 5 but got \[5, 4\]": r"Expected target size \[5\], but got \[5, 4\]",
}


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.error_inputs_func is not None])
def test_error_inputs(name: str) -> None:
    count = 0
    for case in OPS[name].error_inputs("cpu"):
        sample = case.sample_input
        message = REWORDED.get(case.error_regex, case.error_regex)
        with pytest.raises(case.error_type, match=re.compile(message)):
            getattr(M, name)(sample.input, *sample.args, **sample.kwargs)
        count += 1
    assert count > 0


def test_every_loss_has_samples() -> None:
    assert set(SHARED) - set(OPS) <= {"linear_cross_entropy"}
