"""The tolerance for comparing our results with torch's."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_no_further_than_torch(ours: Tensor | None, torchs: Tensor | None, exact: Tensor | None) -> None:
    """Compare with torch's float64 result: the bound is twice torch's own error in the dtype plus a few eps."""
    assert (ours is None) == (torchs is None)
    if ours is None:
        return
    assert ours.shape == torchs.shape
    dtype = torchs.dtype
    if dtype is torch.float64:  # the reference has torch's own rounding, so a bound in eps would be too strict
        return torch.testing.assert_close(ours, torchs, equal_nan=True, rtol=1e-12, atol=1e-12)
    assert ours.dtype is dtype
    finite = exact.to(dtype).isfinite()
    torch.testing.assert_close(ours[~finite], torchs[~finite], equal_nan=True)
    a, b, c = ours[finite].double(), torchs[finite].double(), exact[finite]
    scale = c.abs().max() if finite.any() else 0
    error = torch.where(b.isfinite(), (b - c).abs(), 0)  # torch may overflow in an intermediate result
    assert ((a - c).abs() <= 2 * error + 4 * torch.finfo(dtype).eps * scale).all()
