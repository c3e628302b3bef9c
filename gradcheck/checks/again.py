"""What a call that is repeated owes: in the same process, in other memory, on another number of threads or stream."""

from __future__ import annotations

import torch
from torch import Tensor

from gradcheck.compare import Result, bitwise_equal, compare, expect
from gradcheck.spec import Case

# By how much the sizes of the terms of a sum exceed the largest entry of a gradient, at most: at ordinary points, where
# sums of a few terms do not cancel.
CANCELLED = 8


def again(what: str, a: Tensor | None, b: Tensor | None, case: Case) -> Result:
    """The same bit by bit, or, where matrices are multiplied, to the rounding of sums in any order.

    The error of a sum of K terms is, in whatever order, no more than K/2 eps of the sum of their sizes, and two such
    sums differ by no more than K eps. No sum has more terms than a tensor has entries.
    """
    if not case.spec.multiplies:
        same = a is b if a is None or b is None else bitwise_equal(a, b.to(a.device))
        return expect(what, same, "some bits differ from those of the first run")
    terms = max(t.numel() for t in case.tensors.values())
    # a bound of 5 % would let the canaries through
    return compare(what, a, b, min(CANCELLED * terms, 0.05 / torch.finfo(case.dtype).eps), dtype=case.dtype)
