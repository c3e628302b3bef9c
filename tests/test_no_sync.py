"""On CUDA tensors no loss waits for the device: neither in forward nor in backward, with kernels or with formulas.

No device is needed. The tensors are fakes that claim to be on one and have no values, so anything that needs a value
raises. (No autograd graph is built, because a torch without CUDA would ask the driver for a stream. Instead, the tests
call forward and backward with a context themselves.) One loss waits on purpose: the adaptive softmax reads which
clusters are used, except with fakes or during graph capture; see test_adaptive_log_softmax_with_loss.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("triton")

from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.jit import JITFunction

from gradcheck.spec import Case, Settings
from manual_grad import kernels, specs
from manual_grad.engine import function
from manual_grad.kernels import switched
from manual_grad.kernels import triton as kernels_in_triton

aten = torch.ops.aten
Waiting = DataDependentOutputException, DynamicOutputShapeException, RuntimeError


def item(t: Tensor, index: Any) -> Tensor:
    """``t[index]`` in terms of ops: first numbers, slices and None, then tensors."""
    dim, tensors = 0, []
    for i in index if isinstance(index, tuple) else (index,):
        if isinstance(i, int):
            t = t.select(dim, i)
            continue
        if isinstance(i, Tensor):
            tensors.append(i)
        elif i is None:
            t = t.unsqueeze(dim)
        else:
            t = aten.slice.Tensor(t, dim, i.start, i.stop, 1 if i.step is None else i.step)
        dim += 1
    return aten.index.Tensor(t, tensors) if tensors else t


class NoWaiting(TorchDispatchMode):
    """Raise for what fakes allow: copies between devices, and writing at a boolean mask."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[1] if func is aten.copy_.default else args[0]
            if source.device != result.device:
                raise RuntimeError(f"waits for the copy from {source.device} to {result.device}")
        writes = func in (aten.index_put.default, aten.index_put_.default)
        if writes and any(i is not None and i.dtype is torch.bool for i in args[1]):
            raise RuntimeError("waits for the number of entries that a mask selects")
        return result


class ByOps(TorchFunctionMode):
    """Replacements for operators whose bindings access the device before a mode can intercept them.

    They are not set on Tensor: after ``__getitem__`` has been set and deleted, C code would treat it as a sequence.
    """

    INSTEAD: ClassVar[dict[Any, Any]] = {
        Tensor.__getitem__: item,
        Tensor.__setitem__: lambda t, index, value: aten.copy_.default(item(t, index), torch.as_tensor(value)),
        Tensor.__invert__: torch.bitwise_not,
        Tensor.contiguous: lambda t: aten.clone.default(t, memory_format=torch.contiguous_format),
    }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if hasattr(func, "__wrapped__"):  # one of our losses, which torch's modes also intercept
            with self:
                return func.__wrapped__(*args, **(kwargs or {}))
        return self.INSTEAD.get(func, func)(*args, **(kwargs or {}))


@contextlib.contextmanager
def on_a_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), FakeTensorMode(), NoWaiting(), ByOps():
        # it also accesses the device, and torch calls it without calling modes
        patch.setattr(Tensor, "copy_", lambda t, source: aten.copy_.default(t, source), raising=False)
        yield


def fake(t: Tensor) -> Tensor:
    return torch.empty(t.shape, dtype=t.dtype, device="cuda:0")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the kernels that are launched, with their tensors."""
    started: list[str] = []
    monkeypatch.setattr(kernels, "_op", lambda name, device: kernels_in_triton.OPS[name][1])
    monkeypatch.setattr(JITFunction, "run", lambda self, *args, **kwargs: started.append(self.__name__))
    monkeypatch.setattr(kernels_in_triton.launch, "_on", lambda device: contextlib.nullcontext())
    return started


def every_loss(base: type) -> Iterator[type]:
    for loss in base.__subclasses__():
        yield loss
        yield from every_loss(loss)


def forward_and_backward(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute the loss of fakes, then the first- and second-order backward of each Function in it."""
    calls = []

    def apply(loss: Any, *args: Any) -> Tensor:
        context = SimpleNamespace(needs_input_grad=(False, *(isinstance(a, Tensor) and a.requires_grad for a in args)))
        context.save_for_backward = lambda *tensors: setattr(context, "saved_tensors", tensors)
        value = function.Eager.forward(context, loss, *args)
        calls.append((context, value))
        return value

    tensors = {k: fake(t).requires_grad_(k in case.differentiable) for k, t in case.tensors.items()}
    with monkeypatch.context() as patch:
        for loss in every_loss(function.LossFunction):
            patch.setattr(loss, "eager", apply)
        patch.setattr(torch, "is_grad_enabled", lambda: True)  # for the check in the engine
        value = case.call(**tensors)
    assert value.is_cuda
    assert calls
    for context, value in calls:
        for create_graph in (False, False, True):  # the first backward returns the stored gradient
            with monkeypatch.context() as patch:
                patch.setattr(torch, "is_grad_enabled", lambda create_graph=create_graph: create_graph)
                found = function.Eager.backward(context, fake(value))
        assert any(d is not None and d.is_cuda for d in tree_leaves(found)) == any(context.needs_input_grad)


@pytest.mark.parametrize("on", [True, False], ids=["kernels", "formulas"])
@pytest.mark.parametrize("name", specs.NAMES)
def test_no_loss_waits(name: str, on: bool, launched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs.load(name)
    # float16 computes the gradient in backward
    for case in (*spec.covering(Settings(quick=True), torch.float32), spec.case(Settings(), dtype=torch.float16)):
        with switched(on), on_a_device():
            forward_and_backward(case, monkeypatch)
    assert bool(launched) == (on and name != "siglip_loss")  # its tiles are torch ops


@pytest.mark.parametrize("name", specs.NAMES)
def test_every_loss_takes_a_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An op that is registered for CUDA and returns fakes for fakes."""
    served = []
    op = kernels.op
    monkeypatch.setattr(kernels, "op", lambda *args: served.append(op(*args)) or served[-1])
    case = specs.load(name).case(Settings(), dtype=torch.float32)
    with on_a_device():
        assert case.call(**{k: fake(t) for k, t in case.tensors.items()}).is_cuda
    assert bool(served) == (name != "siglip_loss")  # its tiles are torch ops
    assert None not in served


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.any()),
    "tolist": lambda t: t.tolist(),
    "nonzero": lambda t: t.nonzero(),
    "unique": lambda t: t.unique(),
    "equal": lambda t: torch.equal(t, t),
    "masked_select": lambda t: t.masked_select(t > 0),
    "a mask as an index": lambda t: t[t > 0],
    "a mask as an index, written at": lambda t: t.index_put_((t > 0,), t[0]),
    "cpu": lambda t: t.cpu(),
    "copy_": lambda t: torch.zeros(3).copy_(t),
}


@pytest.mark.parametrize("how", WAITS)
def test_waiting_is_seen(how: str) -> None:
    with on_a_device(), pytest.raises(Waiting):
        WAITS[how](fake(torch.empty(3)))
