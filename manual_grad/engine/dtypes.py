"""The dtype in which a loss is computed and the one in which it is returned."""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine.torch_private import autocast_is_on as autocast_is_on

HALF = frozenset((torch.bfloat16, torch.float16))
INTEGERS = frozenset((torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool))  # that kernels read


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which the formulas run for an input like ``x``.

    The next wider one: float32 for bfloat16 and float16, float64 for float32 where float64 is fast (on the CPU). A
    float32 result is then an almost exact one, rounded, even if digits cancel along the way.
    """
    if x.dtype in HALF:
        return torch.float32
    if x.dtype is torch.float32 and x.device.type == "cpu":
        return torch.float64
    return x.dtype


def in_dtype(t: Tensor, dtype: torch.dtype) -> Tensor:
    """``t.to(dtype)``, which takes two microseconds even where there is nothing to do."""
    return t if t.dtype is dtype else t.to(dtype)


def widen(tensors: tuple[Tensor | None, ...], dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """Convert the floating-point tensors to ``dtype``; leave the others unchanged."""
    return tuple(t.to(dtype) if t is not None and t.is_floating_point() else t for t in tensors)


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cast the tensors as torch's autocast does for a loss: half precision becomes float32."""
    if not autocast_is_on():
        return tensors
    device = tensors[0].device.type  # type: ignore[union-attr]
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(t.float() if t is not None and t.dtype in HALF and t.device.type == device else t for t in tensors)


def dtype_of_loss(x: Tensor) -> torch.dtype:
    """The dtype of the loss of scores that autocast would cast: by it, half precision need not be copied to float32."""
    if x.dtype in HALF and autocast_is_on() and torch.is_autocast_enabled(x.device.type):
        return torch.float32
    return x.dtype


def cast_product(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Cast the operands of a product as torch's autocast does for a linear layer."""
    device = tensors[0].device.type  # type: ignore[union-attr]
    if not autocast_is_on() or not torch.is_autocast_enabled(device):
        return tensors
    low = torch.get_autocast_dtype(device)
    return tuple(
        t.to(low) if t is not None and t.is_floating_point() and t.dtype is not torch.float64 else t for t in tensors
    )


def promote(*tensors: Tensor | None, arithmetic: bool = False) -> tuple[Tensor | None, ...]:
    """Promote the tensors to a common dtype; with ``arithmetic``, 0-d tensors do not count if there are others."""
    common = tensors[0].dtype  # type: ignore[union-attr]
    for t in tensors:
        if t is not None and t.dtype is not common:
            break
    else:
        return tensors
    given = [t for t in tensors if t is not None]
    asked = [t for t in given if t.dim()] if arithmetic else given
    if not any(t.is_floating_point() for t in asked):  # among integers, a floating-point 0-d tensor counts
        asked = given
    common = asked[0].dtype
    for t in asked:
        common = torch.promote_types(common, t.dtype)
    return tuple(None if t is None else t.to(common) for t in tensors)
