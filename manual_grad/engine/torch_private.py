"""The private torch APIs that this package uses; none of them has a public equivalent.

All exist with the same meaning in torch 2.10 and 2.13, the versions tested.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch

# Whether a torch.func transform (grad, vmap, jvp, …) is active. A public query would cost microseconds per call.
transforms_are_active = torch._C._are_functorch_transforms_active
# Whether autocast is on for any device; torch.is_autocast_enabled asks for one.
autocast_is_on = torch._C._is_any_autocast_enabled
# Whether torch.jit is tracing; torch.jit.is_tracing is the same with more overhead.
tracing_state = torch._C._get_tracing_state
# The hooks on saved tensors (checkpointing, offloading); with True, also while tracing.
saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks
# torch.autograd.grad(…, is_grads_batched=True) wraps the upstream gradient in a tensor without storage.
is_legacy_batched = _functorch.is_legacy_batchedtensor
# Whether torch.func has wrapped a tensor.
is_wrapped = _functorch.is_functorch_wrapped_tensor
# A context manager that turns forward differentiation on or off; torch turns it off around a Function's jvp.
forward_differentiation = forward_ad._set_fwd_grad_enabled
# Whether an op has an implementation for a dispatch key.
has_implementation = torch._C._dispatch_has_kernel_for_dispatch_key

_PROXY = torch._C._TorchDispatchModeKey.PROXY


def is_transforming() -> bool:
    """Whether a torch.func transform or a level of forward-mode differentiation is active."""
    return transforms_are_active() or forward_ad._current_level >= 0


def is_intercepted() -> bool:
    """Whether calls are transformed, as above, or recorded by torch.jit.trace or torch.export."""
    return (
        transforms_are_active()
        or forward_ad._current_level >= 0
        or tracing_state() is not None
        or torch.compiler._is_exporting_flag
    )


def is_functionalized() -> bool:
    """Whether torch.func.functionalize is active."""
    if not transforms_are_active():
        return False
    stack = _functorch.get_interpreter_stack()
    return any(level.key() == torch._C._functorch.TransformType.Functionalize for level in stack)


def is_exporting() -> bool:
    """Whether torch.export is tracing; Dynamo in torch 2.10 always takes ``torch.compiler.is_exporting()`` as True."""
    return torch.compiler._is_exporting_flag


def is_recorded_by_make_fx() -> bool:
    """Whether make_fx is recording, so that the value of a tensor must not be read."""
    return bool(torch._C._len_torch_dispatch_stack()) and torch._C._get_dispatch_mode(_PROXY) is not None


def primal(t: Tensor) -> Tensor:
    """A tensor without its tangent of the innermost level of forward differentiation, also under vmap."""
    if _functorch.is_batchedtensor(t):  # unpack_dual has no batching rule
        dim, level = _functorch.maybe_get_bdim(t), _functorch.maybe_get_level(t)
        return _functorch._add_batch_dim(primal(_functorch.get_unwrapped(t)), dim, level)
    return forward_ad.unpack_dual(t).primal


def call_of(overload: Any) -> Any:
    """The callable behind an op overload; calling it directly saves a microsecond."""
    return overload._op


def process_group(name: str) -> Any:
    """The process group of that name."""
    return torch.distributed.distributed_c10d._resolve_process_group(name)  # type: ignore[arg-type]


def all_reduce(x: Tensor, op: str, group: str) -> Tensor:
    """The sum or the maximum over a process group, as a new tensor. The public function cannot be traced."""
    return torch.ops._c10d_functional.wait_tensor(torch.ops._c10d_functional.all_reduce(x, op, group))


def first_index(t: Any, dim: int) -> int:
    """The first index along a dimension of a DTensor that this process has."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    return compute_local_shape_and_global_offset(t.shape, t.device_mesh, t.placements)[1][dim]
