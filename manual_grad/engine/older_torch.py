"""Stand-ins for what torch 2.10, the oldest supported version, lacks; delete this module with that support."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def loss(name: str) -> Callable[..., Tensor] | None:
    """torch's loss of that name, or a stand-in for it; None if no version of torch has one."""
    return getattr(F, name, _STAND_INS.get(name))


def _linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int | None = None,
    options: None = None,
    **others: Any,
) -> Tensor:
    """Materializes all scores, as torch itself does without options."""
    bias = None if linear_bias is None else linear_bias.flatten()
    scores = F.linear(input, linear_weight.flatten(0, -2), bias).reshape(input.shape[:-1] + linear_weight.shape[:-1])
    return F.cross_entropy(scores, target, ignore_index=-100 if ignore_index is None else ignore_index, **others)


_STAND_INS = {"linear_cross_entropy": _linear_cross_entropy}


class _LinearCrossEntropyLoss(torch.nn.modules.loss._WeightedLoss):
    """torch's Module of that name without its forward: same parameters, attributes, state dict and repr."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: None = None,
    ) -> None:
        if weight is not None and weight.shape != (num_classes,):
            raise RuntimeError(f"expected weight of shape {(num_classes,)}, got {tuple(weight.shape)}")
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(f"expected label_smoothing between 0 and 1, got {label_smoothing}")
        super().__init__(weight=weight, reduction=reduction)
        self.num_classes = num_classes
        self.out_features = out_features
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        scores = math.prod(out_features, start=num_classes)
        self.linear = torch.nn.Linear(in_features, scores, bias=bias, device=device, dtype=dtype)
        self.options = options

    def extra_repr(self) -> str:
        layer, of_self = self.linear, ("reduction", "ignore_index", "label_smoothing", "options")
        shown: dict[str, Any] = {"in_features": layer.in_features, "num_classes": self.num_classes}
        shown |= {"out_features": self.out_features, "bias": layer.bias is not None}
        shown |= {name: getattr(self, name) for name in of_self}
        return ", ".join(f"{k}={v}" for k, v in shown.items())


LinearCrossEntropyLoss: Any = getattr(torch.nn, "LinearCrossEntropyLoss", _LinearCrossEntropyLoss)
