"""How our results are judged beside torch's."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_no_further_than_torch(ours: Tensor | None, torchs: Tensor | None, exact: Tensor | None) -> None:
    """From the exact result, torch's in float64: allowed are twice torch's own distance in its dtype, and a few eps."""
    assert (ours is None) == (torchs is None)
    if ours is None:
        return
    assert ours.shape == torchs.shape
    dtype = torchs.dtype
    if dtype is torch.float64:  # torch's own rounding is in the reference: a bound in eps would judge it too
        return torch.testing.assert_close(ours, torchs, equal_nan=True, rtol=1e-12, atol=1e-12)
    assert ours.dtype is dtype
    finite = exact.to(dtype).isfinite()
    torch.testing.assert_close(ours[~finite], torchs[~finite], equal_nan=True)
    a, b, c = ours[finite].double(), torchs[finite].double(), exact[finite]
    scale = c.abs().max() if finite.any() else 0
    error = torch.where(b.isfinite(), (b - c).abs(), 0)  # torch may overflow on its way to a finite result
    assert ((a - c).abs() <= 2 * error + 4 * torch.finfo(dtype).eps * scale).all()
