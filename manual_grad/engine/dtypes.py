"""Which dtype a loss is computed in, and which it is returned in."""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine.torch_private import autocast_is_on as autocast_is_on

HALF = frozenset((torch.bfloat16, torch.float16))


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the formulas run for an input like ``x``.

    Two steps up: bfloat16 and float16 in float32, float32 in float64 where the device has a fast float64 (the CPU). A
    float32 result is then the rounding of an almost exact one, whatever cancels on the way.
    """
    if x.dtype in HALF:
        return torch.float32
    if x.dtype is torch.float32 and x.device.type == "cpu":
        return torch.float64
    return x.dtype


def widen(tensors: tuple[Tensor | None, ...], dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """The floating point tensors in ``dtype``, the others as they are."""
    return tuple(t.to(dtype) if t is not None and t.is_floating_point() else t for t in tensors)


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors as torch's autocast hands them to a loss: low-precision floating point becomes float32."""
    if not autocast_is_on():
        return tensors
    device = tensors[0].device.type  # type: ignore[union-attr]
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(t.float() if t is not None and t.dtype in HALF and t.device.type == device else t for t in tensors)


def promote(*tensors: Tensor | None, arithmetic: bool = False) -> tuple[Tensor | None, ...]:
    """The tensors in their common dtype; with ``arithmetic`` those without dimensions have no say beside others."""
    common = tensors[0].dtype  # type: ignore[union-attr]
    for t in tensors:
        if t is not None and t.dtype is not common:
            break
    else:
        return tensors
    given = [t for t in tensors if t is not None]
    asked = [t for t in given if t.dim()] if arithmetic else given
    if not any(t.is_floating_point() for t in asked):  # a floating point number counts among integers
        asked = given
    common = asked[0].dtype
    for t in asked:
        common = torch.promote_types(common, t.dtype)
    return tuple(None if t is None else t.to(common) for t in tensors)
