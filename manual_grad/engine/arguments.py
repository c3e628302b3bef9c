"""Checks and conversions of arguments, shared by several losses."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import _reduction
from torch.overrides import handle_torch_function, has_torch_function

from manual_grad.engine import collectives, older_torch, torch_private
from manual_grad.engine.dtypes import autocast, autocast_is_on, promote

F = TypeVar("F", bound=Callable[..., Any])
FUNCTIONALS: list[Callable[..., Any]] = []  # unwrapped
_REDUCTIONS = frozenset(("none", "mean", "sum"))


def functional(function: F) -> F:
    """Decorator that makes a function behave like torch's own functionals.

    A tensor subclass can override the call through ``__torch_function__``. torch.compile puts the call into its graph
    unchanged and traces the kernels or formulas below it (Dynamo itself refuses a Function with a ``jvp``).
    """
    FUNCTIONALS.append(function)
    if "manual_grad.engine.in_graph" in sys.modules:  # it has already read the list
        torch.compiler.allow_in_graph(function)
    return overridable(function)


def overridable(function: F) -> F:
    """Like :func:`functional`, but torch.compile traces into the function, as it must if an argument is a callable."""
    parameters = inspect.signature(function).parameters
    kinds = {name: _KINDS[p.annotation] for name, p in parameters.items() if p.annotation in _KINDS}
    in_order = tuple((name, kinds.get(name, object)) for name in parameters)
    torchs = older_torch.loss(function.__name__)
    ours_alone = frozenset(parameters) - inspect.signature(torchs).parameters.keys() if torchs else frozenset()

    @functools.wraps(function)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        tensors = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(tensors):
            return handle_torch_function(dispatch, tensors, *args, **kwargs)
        if torch.compiler.is_compiling():
            from manual_grad.engine import in_graph

            if _has(in_graph.DTENSOR, tensors):
                from manual_grad.sharding import dtensors

                return dtensors.in_graph(function.__name__, *args, **kwargs)
            if torchs is not None and torch_private.is_exporting() and ours_alone.isdisjoint(kwargs):
                return torchs(*args, **kwargs)
        elif _DTENSORS in sys.modules and _has(sys.modules[_DTENSORS].DTensor, tensors):
            from manual_grad.sharding import dtensors

            return dtensors.call(dispatch, function, args, kwargs)
        # torch.jit, torch.export and torch.func.functionalize get torch's own loss: they record no autograd Function,
        # and without one our kernels have no gradient.
        elif (
            torchs is not None
            and (torch_private.tracing_state() or torch_private.is_functionalized())
            and ours_alone.isdisjoint(kwargs)
        ):
            return torchs(*args, **kwargs)
        for value, (name, kind) in zip(args, in_order):  # noqa: B905 - Python itself rejects excess arguments below
            if not isinstance(value, kind):
                raise _wrong_kind(function, name, value)
        if kwargs:
            if kwargs.get("group") is not None:
                kwargs["group"] = collectives.groups_of(function.__name__, kwargs["group"])
            for name, value in kwargs.items():
                if name in kinds and not isinstance(value, kinds[name]):
                    raise _wrong_kind(function, name, value)
        try:
            return function(*args, **kwargs)
        except NotImplementedError:  # hardly any rule here supports complex numbers; torch decides whether it does
            if torchs is None or not any(isinstance(t, Tensor) and t.is_complex() for t in (*args, *kwargs.values())):
                raise
        return torchs(*args, **kwargs)

    if torchs is not None:
        dispatch.__prepare_scriptable__ = lambda: torchs  # type: ignore[attr-defined]
    return dispatch  # type: ignore[return-value]


_DTENSORS = "torch.distributed.tensor"  # without which there are none


def _has(kind: Any, values: tuple[Any, ...]) -> bool:
    return any(isinstance(value, kind) for value in values)


# The types that an annotation accepts.
_KINDS: dict[str, Any] = {
    "Tensor": Tensor,
    "Tensor | None": (Tensor, type(None)),
    "Tensor | float": (Tensor, Real),
    "Tensor | float | None": (Tensor, Real, type(None)),
}


def _wrong_kind(function: Callable[..., Any], name: str, value: Any) -> TypeError:
    parameters = inspect.signature(function).parameters
    expected = parameters[name].annotation.replace(" | ", " or ")
    hint = f"; did you mean reduction={value!r}?" if isinstance(value, str) and "reduction" in parameters else ""
    found = type(value).__name__
    return TypeError(f"{function.__name__}(): argument '{name}' must be {expected}, not {found}{hint}")


def reduction_of(
    reduction: str, size_average: bool | None = None, reduce: bool | None = None, refusal: str | None = None
) -> str:
    """'none', 'mean' or 'sum', from ``reduction`` or torch's legacy pair, with torch's warnings and errors.

    ``refusal`` is the error message, after the name, of a loss that does not accept 'elementwise_mean' either.
    """
    if size_average is not None or reduce is not None:
        return _reduction.legacy_get_string(size_average, reduce)
    if reduction in _REDUCTIONS:
        return reduction
    if refusal is not None:
        raise (ValueError if isinstance(reduction, str) else TypeError)(f"{reduction} {refusal}")
    _reduction.get_enum(reduction)  # warns, or raises ValueError
    return "mean"


# Numbers may come from numpy. torch.compile may pass a symbol; reading its value specializes the graph to that value,
# as in torch.
_REAL = (Real, torch.SymFloat, torch.SymInt)
_INTEGRAL = (Integral, torch.SymInt)


def real(name: str, argument: str, value: Any) -> float:
    """A float argument, by the rules of torch's parser: ints, bools, scalar tensors pass; strings and None do not."""
    if type(value) is float:  # asking an abstract class takes longer than a small kernel
        return value
    if isinstance(value, _REAL) or _is_scalar(value) or _is_numpys_bool(value):
        return float(value)
    raise TypeError(f"{name}(): argument '{argument}' must be float, not {type(value).__name__}")


def positive(name: str, argument: str, value: Any) -> float:
    """A float argument that is positive and finite."""
    value = real(name, argument, value)
    if not 0 < value < math.inf:
        raise ValueError(f"{name}(): argument '{argument}' must be positive and finite, but got {value}")
    return value


def not_negative(name: str, argument: str, value: Any) -> float:
    """A float argument that is finite and not negative."""
    value = real(name, argument, value)
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}(): argument '{argument}' must be finite and not negative, but got {value}")
    return value


def integer(name: str, argument: str, value: Any) -> int:
    """An int argument, by the rules of torch's parser: neither floats nor bools pass."""
    if type(value) is int:
        return value
    is_number = isinstance(value, _INTEGRAL) or (_is_scalar(value) and not _has_point(value))
    if is_number and type(value) is not bool:
        return int(value)
    raise TypeError(f"{name}(): argument '{argument}' must be int, not {type(value).__name__}")


def divides_a_mean(name: str, normalizer: Any, reduction: str) -> None:
    """Require that a normalizer, where there is one, has a mean to divide."""
    if normalizer is not None and reduction != "mean":
        raise ValueError(f"{name}(): argument 'normalizer' needs reduction='mean', but got {reduction!r}")


def boolean(name: str, argument: str, value: Any) -> bool:
    """A bool argument, by the rules of torch's parser: ints do not pass."""
    if isinstance(value, bool):
        return value
    if _is_numpys_bool(value):
        return bool(value)
    raise TypeError(f"{name}(): argument '{argument}' must be bool, not {type(value).__name__}")


def as_tensor(value: Tensor | float, like: Tensor) -> Tensor:
    """Turn a number into a tensor of the dtype that torch promotes it to with ``like``; return a tensor unchanged."""
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=torch.result_type(like, value), device=like.device)


def _is_numpys_bool(value: Any) -> bool:
    return str(getattr(value, "dtype", None)) == "bool" and value.shape == ()


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad and not value.is_complex()


def _has_point(value: Tensor) -> bool:
    return value.is_floating_point() or value.dtype is torch.bool


def require_floating(name: str, x: Tensor) -> None:
    if not x.dtype.is_floating_point:  # half the time of asking the tensor
        raise NotImplementedError(f"{name}: expected a floating point input, but got {x.dtype}")


def refuse_complex(name: str, *tensors: Tensor | None) -> None:
    """Raise the error on which ``overridable`` calls torch's own function instead."""
    for t in tensors:
        if t is not None and t.dtype.is_complex:
            require_floating(name, t)


def weight_of(weight: Tensor | None, input: Tensor, target: Tensor) -> Tensor | None:
    """Check that the weight has the input's shape; a 0-d one takes the promoted dtype if the target has dimensions."""
    if weight is None:
        return None
    if weight.shape != input.shape:
        raise ValueError(
            f"Weights and input must have the same size. Got weight of size {weight.size()}, input of {input.size()}"
        )
    return weight.to(torch.promote_types(input.dtype, target.dtype)) if weight.dim() < target.dim() else weight


def same_shape(name: str, argument: str, value: Tensor, **others: Tensor | None) -> None:
    """Require the other arguments, where they are given, to have the shape of ``argument``."""
    for other, t in others.items():
        if t is not None and t.shape != value.shape:
            raise ValueError(
                f"{name}(): argument '{other}' must have the shape of '{argument}', {list(value.shape)}, "
                f"but got {list(t.shape)}"
            )


def broadcasts_into(name: str, factor: Tensor | None, input: Tensor) -> None:
    if factor is None or factor.shape == input.shape:
        return
    sizes = zip(reversed(factor.shape), reversed(input.shape), strict=False)
    if factor.dim() > input.dim() or any(f not in (1, n) for f, n in sizes):
        raise RuntimeError(
            f"{name} of shape {list(factor.shape)} doesn't match the broadcast shape: "
            f"it must broadcast to the input's shape {list(input.shape)}"
        )


def unreduced(argument: str, value: Tensor, input: Tensor) -> Tensor:
    """``value`` in a shape that broadcasts to ``input``: one per element, or one for a whole dimension."""
    if value.shape == input.shape:
        return value
    if value.shape == input.shape[:-1]:
        return value.unsqueeze(-1)
    if value.dim() == input.dim() and [v for v, n in zip(value.shape, input.shape, strict=True) if v != n] == [1]:
        return value
    raise ValueError(
        f"{argument} is of incorrect size: got {list(value.shape)} for an input of size {list(input.shape)}; expected "
        "the same size, or the last dimension missing, or one dimension of size 1"
    )


def scalar_type(dtype: torch.dtype) -> str:
    """The name of a dtype in torch's error messages: Float, Long."""
    return torch.empty((), dtype=dtype).type().rpartition(".")[2].removesuffix("Tensor")


def readable(t: Tensor, waits: bool = False) -> bool:
    """Whether the values of a tensor can be read: without synchronizing with a device or, with ``waits``, at all."""
    if type(t) is not Tensor or t.is_meta or torch_private.is_wrapped(t) or torch_private.is_recorded_by_make_fx():
        return False
    return t.is_cpu or (waits and not (t.is_cuda and torch.cuda.is_current_stream_capturing()))


def together(
    first: Tensor, *others: Tensor | None, autocasts: bool = True, warns: bool = False, arithmetic: bool = False
) -> tuple[Tensor | None, ...]:
    """Bring the tensors to one dtype (autocast, then promotion) and one shape (broadcasting); None stays None.

    With ``warns``, broadcasting a second tensor of a different shape emits torch's warning. With ``arithmetic``, dtypes
    are promoted as by an arithmetic operator, where 0-d tensors do not count if there are others.
    """
    dtype, shape, autocasts = first.dtype, first.shape, autocasts and autocast_is_on()
    if not autocasts:  # usually there is nothing to do, and for small losses every microsecond matters
        for t in others:
            if t is not None and (t.dtype is not dtype or t.shape != shape):
                break
        else:
            return first, *others
    if warns and others[0].shape != shape:
        warnings.warn(
            f"Using a target size ({others[0].size()}) that is different to the input size ({first.size()}). "
            "This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=4,
        )
    tensors = promote(*(autocast(first, *others) if autocasts else (first, *others)), arithmetic=arithmetic)
    expanded = iter(torch.broadcast_tensors(*(t for t in tensors if t is not None)))
    return tuple(None if t is None else next(expanded) for t in tensors)
