"""What the spec of the sigmoid focal loss leaves open: no definition in torch ops has digits there."""

from __future__ import annotations

import functools

import mpmath
import pytest
import torch

from gradcheck.compare import compare
from manual_grad import specs
from manual_grad.functional import sigmoid_focal_loss


@pytest.mark.parametrize("gamma", [0.5, 1.25, 3.0])
def test_the_curvature_by_the_target_where_the_prediction_is_right_by_far(gamma: float) -> None:
    """The power of e^-90 that is in it is large for gamma < 1, although the loss has all but vanished."""
    x, t = torch.tensor([90.0, -90.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = torch.func.hessian(lambda t: sigmoid_focal_loss(x, t, gamma=gamma, reduction="sum"))(t).diag()
    oracle = specs.load("sigmoid_focal_loss").oracle
    assert oracle is not None
    with mpmath.workdps(200):
        expected = [
            float(mpmath.diff(functools.partial(_at, oracle, logit, gamma), label, 2))
            for logit, label in zip(x.tolist(), t.tolist(), strict=True)
        ]
    result = compare("curvature", found, torch.tensor(expected, dtype=torch.float64), 64)
    assert result.ok, result


def _at(oracle, logit, gamma, label):
    return oracle(inputs=mpmath.mpf(logit), targets=label, gamma=gamma)
