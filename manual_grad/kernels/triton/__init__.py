"""The Triton kernels for CUDA tensors, with one module per access pattern or structured loss.

Importing this package requires Triton. A module lists its ops in ``OPS``, name -> (schema, function). The schemas are
those of the C++ library, so ``torch.ops.manual_grad.<name>`` is one op with an implementation per device. A pointwise
loss instead has a ``LOSS``: the functions that ``pointwise.py`` plugs into its kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from manual_grad.kernels.triton import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    class_margin,
    cosine_embedding_loss,
    cross_entropy,
    distillation_loss,
    log_prob,
    nll_loss,
    path,
    pointwise,
    scale,
    soft_margin_loss,
    topk_distillation_loss,
    triplet_margin_loss,
)
from manual_grad.kernels.triton.generated import LOSSES
from manual_grad.kernels.triton.launch import INTERPRETED as INTERPRETED

POINTWISE = {
    **LOSSES,
    "binary_cross_entropy": binary_cross_entropy.LOSS,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits.LOSS,
    "soft_margin_loss": soft_margin_loss.LOSS,
}
OPS: dict[str, tuple[str, Callable[..., Any]]] = {
    **{name: pointwise.op(loss) for name, loss in POINTWISE.items()},
    **cross_entropy.OPS,
    **distillation_loss.OPS,
    **topk_distillation_loss.OPS,
    **log_prob.OPS,
    **nll_loss.OPS,
    **class_margin.OPS,
    **cosine_embedding_loss.OPS,
    **triplet_margin_loss.OPS,
    **path.OPS,
    **scale.OPS,
}
_LIBRARY = torch.library.Library("manual_grad", "FRAGMENT")


def register(*keys: str) -> None:
    """Implement the ops for the dispatch keys, and define those that the C++ library has not defined."""
    for name, (schema, function) in OPS.items():
        if not hasattr(torch.ops.manual_grad, name):
            _LIBRARY.define(name + schema)
        for key in keys:
            _LIBRARY.impl(name, function, key)
