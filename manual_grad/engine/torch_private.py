"""The private names of torch that this package uses, in one place: no public name answers these questions.

All of them were found, with the same meaning, in torch 2.10 and 2.13, under which the tests run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch

# Whether torch.func.grad, vmap, jvp, … is at work. Asked in every call, where a public way would cost microseconds.
transforms_are_active = torch._C._are_functorch_transforms_active
# Whether autocast is on for any device; torch.is_autocast_enabled asks for one.
autocast_is_on = torch._C._is_any_autocast_enabled
# Whether torch.jit traces; torch.jit.is_tracing asks the same through a Python module.
tracing_state = torch._C._get_tracing_state
# The hooks on saved tensors, given True also while tracing: a checkpoint, or an offload to another device.
saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks
# torch.autograd.grad(…, is_grads_batched=True) wraps the upstream gradient in a tensor that has no storage.
is_legacy_batched = _functorch.is_legacy_batchedtensor
# What torch.func has wrapped.
is_wrapped = _functorch.is_functorch_wrapped_tensor
# A context in which forward differentiation is on. torch turns it off around a Function's jvp.
forward_differentiation = forward_ad._set_fwd_grad_enabled
# Whether an op has an implementation for a dispatch key.
has_implementation = torch._C._dispatch_has_kernel_for_dispatch_key

_PROXY = torch._C._TorchDispatchModeKey.PROXY


def is_differentiating_forwards() -> bool:
    """Whether there is a level of torch.autograd.forward_ad."""
    return forward_ad._current_level >= 0


def is_functionalized() -> bool:
    """Whether torch.func.functionalize is at work."""
    if not transforms_are_active():
        return False
    stack = _functorch.get_interpreter_stack()
    return any(level.key() == torch._C._functorch.TransformType.Functionalize for level in stack)


def is_exporting() -> bool:
    """Whether torch.export traces; the Dynamo of torch 2.10 takes ``torch.compiler.is_exporting()`` for True always."""
    return torch.compiler._is_exporting_flag


def is_recorded_by_make_fx() -> bool:
    """Whether operations are being recorded, so that no number may come out of a tensor."""
    return bool(torch._C._len_torch_dispatch_stack()) and torch._C._get_dispatch_mode(_PROXY) is not None


def primal(t: Tensor) -> Tensor:
    """A tensor without its tangent of the innermost level of forward differentiation, also under vmap."""
    if _functorch.is_batchedtensor(t):  # unpack_dual has no batching rule
        dim, level = _functorch.maybe_get_bdim(t), _functorch.maybe_get_level(t)
        return _functorch._add_batch_dim(primal(_functorch.get_unwrapped(t)), dim, level)
    return forward_ad.unpack_dual(t).primal


def call_of(overload: Any) -> Any:
    """What calling an op's overload calls, a microsecond earlier."""
    return overload._op
