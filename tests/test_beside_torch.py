"""Compare torch's losses with ours: errors, warnings, dtypes, shapes, strides, values, gradients.

The calls are the samples of gradcheck's specs, with the arguments varied in every way that a program may vary them.
By default each variation runs once; ``MANUAL_GRAD_SWEEP=1`` runs all combinations.
"""

from __future__ import annotations

import copy
import inspect
import io
import itertools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from beside import (
    INTENDED,
    NAMES,
    TORCHS,
    Arguments,
    Difference,
    F,
    Loss,
    Probe,
    all_differences,
    cases,
    differences,
    differentiated,
    floating,
    gradients,
    leaves,
    requiring,
    tensors,
    while_patched,
)
from calls import SHARED_MODULES, Scaled, constructor_arguments, functional_of, inputs

SWEEP = os.environ.get("MANUAL_GRAD_SWEEP") == "1"
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LOW = (torch.bfloat16, torch.float16)

Mode = Callable[[], Any]

every_loss = pytest.mark.parametrize("name", NAMES)


def calls(name: str, dtype: torch.dtype = torch.float32) -> Iterator[dict[str, Any]]:
    for case in cases(name, dtype, every=SWEEP):
        yield dict(case.arguments)


def ordinary(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return next(calls(name, dtype))


def kinds_of_calls(name: str, dtype: torch.dtype = torch.float32, dims: bool = False) -> Iterable[dict[str, Any]]:
    """One call for each set of tensor names and dtypes (and ranks, if ``dims``); all calls in a sweep."""
    if SWEEP:
        return calls(name, dtype)
    found: dict[Any, dict[str, Any]] = {}
    for call in calls(name, dtype):
        found.setdefault(tuple((k, t.dtype, t.dim() if dims else 0) for k, t in tensors(call).items()), call)
    return found.values()


def some_calls(name: str, dtype: torch.dtype = torch.float32) -> Iterable[dict[str, Any]]:
    """An ordinary call, and one with all optional tensors."""
    found = list(kinds_of_calls(name, dtype))
    return found if SWEEP else found[:1] + sorted(found[1:], key=lambda call: len(tensors(call)))[-1:]


def alike(found: Iterable[Difference]) -> None:
    found = list(found)
    assert not found, f"{len(found)}:\n" + "\n".join(map(str, found[:40]))


def subsets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Each name alone and all together; in a sweep, every subset."""
    names = tuple(names)
    for size in range(1, len(names) + 1) if SWEEP else sorted({1, len(names)}):
        yield from itertools.combinations(names, size)


# -- arguments


@every_loss
def test_dtypes(name: str) -> None:
    alike(d for dtype in DTYPES for call in calls(name, dtype) for d in differences(name, call))


@every_loss
def test_which_tensors_require_a_gradient(name: str) -> None:
    def found() -> Iterator[Difference]:
        for call in calls(name):
            for names in [(), *subsets(k for k, t in call.items() if floating(t))]:
                yield from differences(name, call, requiring(*names))

    alike(found())


@every_loss
def test_two_dtypes(name: str) -> None:
    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name):
            names = [k for k, t in call.items() if floating(t)]
            for pair in itertools.combinations(names, 2):
                for dtypes in itertools.product(DTYPES, repeat=2):
                    made = {k: call[k].to(dtype) for k, dtype in zip(pair, dtypes, strict=True)}
                    yield from differences(name, {**call, **made})

    alike(found())


@every_loss
def test_a_tensor_without_dimensions_in_another_dtype(name: str) -> None:
    """A 0-d tensor does not affect the dtype of a sum or product, unless torch expands it first."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name):
            for k, dtype in itertools.product([k for k, t in call.items() if floating(t)], DTYPES):
                made = {**call, k: call[k].flatten()[0].to(dtype)}
                seen = differences(name, made, lambda loss, made: {"dtype": loss(**made).dtype})
                yield from (d for d in seen if d.what == "dtype")

    alike(found())


@every_loss
@pytest.mark.parametrize("low", LOW, ids=str)
def test_autocast(name: str, low: torch.dtype) -> None:
    """Any of the tensors in the low dtype, as the output of a layer under autocast, and a scaled loss."""

    def found() -> Iterator[Difference]:
        for call in calls(name):
            for names in [(), *subsets(k for k, t in call.items() if floating(t))]:
                made = {**call, **{k: call[k].to(low) for k in names}}
                probe = under(partial(torch.autocast, "cpu", low), requiring(*differentiated(name, made)))
                yield from differences(name, made, probe)

    alike(found())


OTHER_KINDS = (None, 1, 0.5, True, "sum", [0.5], (), np.ones(3), np.float32(0.5), np.int64(1), np.bool_(True))
REDUCTIONS = ("reduction", "size_average", "reduce")  # tests/test_api.py has them
NUMBERS = (torch.tensor(0.5), torch.tensor(1), torch.tensor(True), torch.tensor([0.5]))


@every_loss
def test_kinds_of_arguments(name: str) -> None:
    """A wrong value in place of each argument."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name):
            for argument in set(inspect.signature(TORCHS[name]).parameters).difference(REDUCTIONS):
                others = OTHER_KINDS if argument in tensors(call) else (*OTHER_KINDS, *NUMBERS)
                for other in others:
                    yield from differences(name, {**call, argument: other})

    alike(found())


OTHER_DTYPES = (torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64)


@every_loss
def test_integers_and_others(name: str) -> None:
    """Tensors with dtypes that are not floating point, one at a time and all together."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name):
            for names in subsets(tensors(call)):
                for dtype in OTHER_DTYPES:
                    for reduction in ("mean", "none"):
                        made = {k: call[k].to(dtype) for k in names}
                        yield from differences(name, {**call, **made, "reduction": reduction})

    alike(found())


def other_shapes(t: Tensor) -> Iterator[Tensor]:
    for d in range(t.dim()):
        yield t.narrow(d, 0, min(1, t.shape[d]))
        yield t.narrow(d, 0, 0)
        yield t.narrow(d, 0, max(0, t.shape[d] - 1))
        yield t.unsqueeze(d)
        if t.shape[d]:
            yield t.select(d, 0)
    yield t.unsqueeze(-1)
    yield t.flatten()
    yield t.flatten()[:1].reshape(())
    yield t.expand(2, *t.shape)


def safe(arguments: Arguments) -> bool:
    """Whether torch stays within bounds: its ctc_loss does not check that the labels are classes."""
    if "log_probs" not in arguments:
        return True
    labels, classes = arguments["targets"], arguments["log_probs"].shape[-1:]
    return labels.numel() == 0 or (len(classes) == 1 and labels.max() < classes[0])


@every_loss
def test_shapes(name: str) -> None:
    """Tensors with one dimension less or more, or of size 1, 0 or another size; one at a time and all together."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name):
            for argument, t in tensors(call).items():
                for other in other_shapes(t):
                    if safe(made := {**call, argument: other}):
                        yield from differences(name, made)
            for changed in zip(*map(other_shapes, tensors(call).values())):  # noqa: B905 - they have other dimensions
                if safe(made := {**call, **dict(zip(tensors(call), changed, strict=True))}):
                    yield from differences(name, made)

    alike(found())


def transposed(t: Tensor) -> Tensor:
    return t.mT.contiguous().mT if t.dim() > 1 else t


def rotated(t: Tensor) -> Tensor:
    """The first dimension varies fastest."""
    return t.movedim(0, -1).contiguous().movedim(-1, 0) if t.dim() > 1 else t


def channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t


def every_other(t: Tensor) -> Tensor:
    return torch.stack([t, t], -1)[..., 0]


def expanded(t: Tensor) -> Tensor:
    return t[:1].expand(t.shape) if t.dim() > 1 else t


def with_strides(probe: Probe) -> Probe:
    def seen(loss: Loss, arguments: Arguments) -> dict[str, Any]:
        found = probe(loss, arguments)
        return {**found, "strides": found["value"].stride()}

    return seen


@every_loss
def test_layouts(name: str) -> None:
    """All tensors in one layout: same values, and same strides unless they broadcast. Only one: same values."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name, dims=True):
            one_shape = len({t.shape for t in tensors(call).values()}) == 1
            for lay in (transposed, rotated, channels_last, every_other, expanded):
                # if all classes have one weight, the gradient of the input cancels
                skipped = "linear_weight" if lay is expanded else None
                made = {k: t if k == skipped else lay(t) for k, t in tensors(call).items()}
                probe = requiring(*differentiated(name, call))
                yield from differences(name, {**call, **made}, with_strides(probe) if one_shape else probe)
                for argument, t in made.items():
                    yield from differences(name, {**call, argument: t})

    alike(found())


# -- transforms


def of(loss: Loss, arguments: Arguments, names: Iterable[str]) -> Callable[..., Tensor]:
    """The call as a function of the tensors in ``names``."""
    return lambda *values: loss(**{**arguments, **dict(zip(names, values, strict=True))})


def numbered(outputs: Any) -> dict[str, Any]:
    found = enumerate(torch.utils._pytree.tree_leaves(outputs))
    return {f"result {i}": t.detach() if isinstance(t, Tensor) else t for i, t in found}


def directions(values: Iterable[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.linspace(-0.75, 1.25, t.numel(), dtype=t.dtype).reshape(t.shape) for t in values)


# each takes a function f, its tensors xs and the positions of its arguments
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, xs, every: grad(lambda *x: f(*x).sum(), every)(*xs),
    "vjp": lambda f, xs, every: vjp(f, *xs)[1](torch.ones_like(f(*xs))),
    "jvp": lambda f, xs, every: jvp(f, xs, directions(xs)),
    "linearize": lambda f, xs, every: linearize(f, *xs)[1](*directions(xs)),
    "jacrev": lambda f, xs, every: jacrev(f, every)(*xs),
    "jacfwd": lambda f, xs, every: jacfwd(f, every)(*xs),
    "hessian": lambda f, xs, every: hessian(lambda *x: f(*x).sum(), every)(*xs),
    "jacrev of jacrev": lambda f, xs, every: jacrev(jacrev(lambda *x: f(*x).sum(), every), every)(*xs),
    "jacrev of jacfwd": lambda f, xs, every: jacrev(jacfwd(lambda *x: f(*x).sum(), every), every)(*xs),
    "jacfwd of jacfwd": lambda f, xs, every: jacfwd(jacfwd(lambda *x: f(*x).sum(), every), every)(*xs),
    "functionalize": lambda f, xs, every: functionalize(f)(*xs),
}


@every_loss
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(name: str, transform: str) -> None:
    """Differentiate with respect to each tensor and to all."""

    def found() -> Iterator[Difference]:
        few = transform == "linearize" and not SWEEP  # it is slow
        for call in itertools.islice(some_calls(name, torch.float64), 1 if few else None):
            every = differentiated(name, call)
            for names in [tuple(every)] if few else subsets(every):

                def probe(loss: Loss, arguments: Arguments, names: tuple[str, ...] = names) -> dict[str, Any]:
                    xs = tuple(arguments[k] for k in names)
                    return numbered(TRANSFORMS[transform](of(loss, arguments, names), xs, tuple(range(len(xs)))))

                yield from differences(name, call, probe)

    alike(found())


def second(derivatives: Mapping[str, Tensor | None]) -> dict[str, Any]:
    """Some vanishing derivatives are None in torch, depending on the method."""
    return {f"second {k}": d for k, d in derivatives.items() if d is not None and d.any()}


@contextmanager
def moved(inputs: Arguments, moving: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The inputs, of which ``moving`` have tangents."""
    v = directions(inputs[k] for k in moving)
    with forward_ad.dual_level():
        yield {**inputs, **{k: forward_ad.make_dual(inputs[k], u) for k, u in zip(moving, v, strict=True)}}


def reverse_over_forward(
    moving: Iterable[str], names: Iterable[str], loss: Loss, arguments: Arguments
) -> dict[str, Any]:
    """The gradients, with respect to ``names``, of the tangent along ``moving``."""
    inputs = leaves(arguments, names)
    with moved(inputs, moving) as duals:
        value = forward_ad.unpack_dual(loss(**duals))
        return {"value": value.primal, "tangent": value.tangent, **second(gradients(value.tangent, inputs))}


def forward_over_reverse(
    moving: Iterable[str], names: Iterable[str], loss: Loss, arguments: Arguments
) -> dict[str, Any]:
    """The tangents, along ``moving``, of the gradients with respect to ``names``."""
    inputs = leaves(arguments, names)
    with moved(inputs, moving) as duals:
        first = gradients(loss(**duals), duals)
        pairs = {k: forward_ad.unpack_dual(d) for k, d in first.items() if d is not None}
        return {**{k: p.primal for k, p in pairs.items()}, **second({k: p.tangent for k, p in pairs.items()})}


def reverse_over_reverse(
    moving: Iterable[str], names: Iterable[str], loss: Loss, arguments: Arguments
) -> dict[str, Any]:
    """The gradients, with respect to ``names``, of the derivative along ``moving``."""
    inputs = leaves(arguments, {*moving, *names})
    wanted = [inputs[k] for k in moving]
    first = torch.autograd.grad(loss(**inputs).sum(), wanted, create_graph=True, allow_unused=True)
    steep = [(d * v).sum() for d, v in zip(first, directions(wanted), strict=True) if d is not None]
    return {**dict(zip(moving, first, strict=True)), **second(gradients(sum(steep), inputs) if steep else {})}


@every_loss
@pytest.mark.parametrize(
    "mode", [reverse_over_forward, forward_over_reverse, reverse_over_reverse], ids=lambda mode: mode.__name__
)
def test_two_modes(name: str, mode: Callable[..., dict[str, Any]]) -> None:
    """Tangents of each tensor and of all; gradients with respect to the same, and to all."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name, torch.float64):
            every = tuple(differentiated(name, call))
            for moving in subsets(every):
                for names in {moving, every}:
                    yield from differences(name, call, partial(mode, moving, names))

    alike(found())


BATCHES: dict[str, Callable[..., Any]] = {
    "vmap": lambda f, xs, every: vmap(f)(*xs),
    "vmap of grad": lambda f, xs, every: vmap(grad(lambda *x: f(*x).sum(), every))(*xs) if every else 0,
    "grad of vmap": lambda f, xs, every: grad(lambda *x: vmap(f)(*x).sum(), every)(*xs) if every else 0,
    "vmap of hessian": lambda f, xs, every: vmap(hessian(lambda *x: f(*x).sum(), every))(*xs) if every else 0,
    "vmap of vmap": lambda f, xs, every: vmap(vmap(f))(*(torch.stack([x, x]) for x in xs)),
    "of the last dimension": lambda f, xs, every: vmap(f, in_dims=-1)(*(x.movedim(0, -1) for x in xs)),
}


@every_loss
@pytest.mark.parametrize("batch", BATCHES)
def test_batches(name: str, batch: str) -> None:
    """Batch each tensor while the others are unbatched, and batch all."""

    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name, torch.float64):
            for names in subsets(tensors(call)):
                every = tuple(i for i, k in enumerate(names) if k in differentiated(name, call))

                def probe(
                    loss: Loss, arguments: Arguments, names: tuple[str, ...] = names, every: tuple[int, ...] = every
                ) -> dict[str, Any]:
                    xs = (arguments[k] for k in names)
                    stacked = [torch.stack([x, x.roll(1, 0) if x.dim() else x]) for x in xs]
                    return numbered(BATCHES[batch](of(loss, arguments, names), stacked, every))

                yield from differences(name, call, probe)

    alike(found())


# -- tensors without values


def on_meta(loss: Loss, arguments: Arguments, names: Iterable[str]) -> dict[str, Any]:
    moved = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in arguments.items()}
    return with_strides(requiring(*names))(loss, moved)


def fake(loss: Loss, arguments: Arguments, names: Iterable[str]) -> dict[str, Any]:
    with FakeTensorMode() as mode:
        moved = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in arguments.items()}
        found = requiring(*names)(loss, moved)
    return {k: (t.dtype, t.shape, t.stride(), t.device) if isinstance(t, Tensor) else t for k, t in found.items()}


def traced(mode: str) -> Callable[..., dict[str, Any]]:
    def probe(loss: Loss, arguments: Arguments, names: Iterable[str]) -> dict[str, Any]:
        called_with = tensors(arguments)
        graph = make_fx(of(loss, arguments, tuple(called_with)), tracing_mode=mode)(*called_with.values())
        return numbered(graph(*called_with.values()))

    return probe


def traced_gradient(loss: Loss, arguments: Arguments, names: Iterable[str]) -> dict[str, Any]:
    xs, f = [arguments[k] for k in names], of(loss, arguments, tuple(names))
    slope = grad(lambda *x: f(*x).sum(), tuple(range(len(xs))))
    return numbered(make_fx(slope)(*xs)(*xs))


WAYS = {
    "meta": on_meta,
    "fake": fake,
    "make_fx": traced("real"),
    "make_fx of symbols": traced("symbolic"),
    "make_fx of grad": traced_gradient,
}


@every_loss
@pytest.mark.parametrize("way", WAYS)
def test_without_values(name: str, way: str) -> None:
    def found() -> Iterator[Difference]:
        for call in some_calls(name):
            yield from differences(name, call, partial(WAYS[way], names=differentiated(name, call)))
            if way in ("meta", "fake"):
                yield from differences(name, call, partial(WAYS[way], names=()))

    alike(found())


# -- modes


@contextmanager
def switched(switch: Callable[[Any], None], on: Any, off: Any) -> Iterator[None]:
    switch(on)
    try:
        yield
    finally:
        switch(off)


default_dtype = partial(switched, torch.set_default_dtype, off=torch.get_default_dtype())


@contextmanager
def autocast_off_in_on() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        yield


def as_it_is(thing: Any) -> Any:
    return thing


MODES: dict[str, Callable[[], Any]] = {
    "default dtype float64": partial(default_dtype, on=torch.float64),
    "default dtype bfloat16": partial(default_dtype, on=torch.bfloat16),
    "default device meta": partial(torch.device, "meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "deterministic": partial(switched, torch.use_deterministic_algorithms, on=True, off=False),
    "anomalies": partial(torch.autograd.set_detect_anomaly, True),
    "autocast off in on": autocast_off_in_on,
    "autocast of another device": partial(torch.autocast, "cuda", torch.bfloat16),
    "saved tensors packed": partial(torch.autograd.graph.saved_tensors_hooks, torch.clone, as_it_is),
}


def under(mode: Callable[[], Any], probe: Probe) -> Probe:
    def seen(loss: Loss, arguments: Arguments) -> dict[str, Any]:
        with mode():
            return dict(probe(loss, arguments))

    return seen


@every_loss
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'", "ignore:Anomaly Detection has been enabled")
def test_modes(name: str, mode: str) -> None:
    def found() -> Iterator[Difference]:
        for call in kinds_of_calls(name):
            probe = under(MODES[mode], requiring(*differentiated(name, call)))
            yield from differences(name, call, probe)
            if mode.startswith(("autocast", "default dtype")):
                low = {k: t.bfloat16() if floating(t) else t.int() for k, t in tensors(call).items() if k != "target"}
                yield from differences(name, {**call, **low}, probe)

    alike(found())


# -- hooks, in-place changes and other uses of the graph


def hooked(names: Iterable[str], loss: Loss, arguments: Arguments) -> dict[str, Any]:
    """Hooks on the inputs and on the result, gradients accumulated twice."""
    inputs = leaves(arguments, names)
    seen: dict[str, Any] = {}
    for k in names:
        inputs[k].register_hook(lambda d: 2 * d)
        inputs[k].register_post_accumulate_grad_hook(lambda t, k=k: seen.update({f"called for {k}": True}))
    value = loss(**inputs)
    value.register_hook(lambda g: 3 * g)
    value.sum().backward(retain_graph=True)
    value.sum().backward()
    return {**seen, **{k: inputs[k].grad for k in names}}


def written_over(names: Iterable[str], loss: Loss, arguments: Arguments) -> dict[str, Any]:
    """Change the result in place."""
    inputs = leaves(arguments, names)
    value = loss(**inputs)
    value.mul_(2).add_(1)
    return {"value": value, **gradients(value, inputs)}


def checkpointed(names: Iterable[str], loss: Loss, arguments: Arguments, **how: Any) -> dict[str, Any]:
    inputs, called = leaves(arguments, names), []

    def segment(*values: Tensor) -> Tensor:
        called.append(len(values))
        return loss(**{**inputs, **dict(zip(names, (2 * v for v in values), strict=True))})

    value = torch.utils.checkpoint.checkpoint(segment, *(inputs[k] for k in names), **how)
    value.sum().backward()
    return {"called": called, **{k: inputs[k].grad for k in names}}


def differentiated_by(function: str, names: Iterable[str], loss: Loss, arguments: Arguments) -> dict[str, Any]:
    xs, f = tuple(arguments[k] for k in names), of(loss, arguments, names)
    more = (directions(xs),) if function in ("jvp", "hvp", "vhp") else ()
    return numbered(getattr(torch.autograd.functional, function)(lambda *x: f(*x).sum(), xs, *more))


LIVES: dict[str, Callable[..., dict[str, Any]]] = {
    "hooks": hooked,
    "in place on the result": written_over,
    "checkpoint": partial(checkpointed, use_reentrant=False),
    "reentrant checkpoint": partial(checkpointed, use_reentrant=True),
    **{
        f"torch.autograd.functional.{f}": partial(differentiated_by, f)
        for f in ("jacobian", "hessian", "vjp", "jvp", "hvp", "vhp")
    },
}


@every_loss
@pytest.mark.parametrize("life", LIVES)
def test_graphs(name: str, life: str) -> None:
    alike(
        d
        for call in some_calls(name, torch.float64 if "functional" in life else torch.float32)
        for d in differences(name, call, partial(LIVES[life], differentiated(name, call)))
    )


def changed_before_backward(changed: str, names: Iterable[str], loss: Loss, arguments: Arguments) -> dict[str, Any]:
    inputs = leaves(arguments, names)
    inputs[changed] = inputs[changed].clone()
    value = loss(**inputs)
    inputs[changed].zero_()
    value.sum().backward()
    return {k: inputs[k].grad for k in names if k != changed}


def of_inference_mode(made: str, names: Iterable[str], loss: Loss, arguments: Arguments) -> dict[str, Any]:
    with torch.inference_mode():
        inferred = arguments[made].clone()
    inputs = {**leaves(arguments, names), made: inferred}
    return gradients(loss(**inputs), inputs)


@every_loss
@pytest.mark.parametrize("what", [changed_before_backward, of_inference_mode], ids=lambda what: what.__name__)
def test_tensors_that_cannot_be_saved(name: str, what: Callable[..., dict[str, Any]]) -> None:
    """Change each tensor before backward, or make it in inference mode: torch raises if it must save such a tensor."""

    def found() -> Iterator[Difference]:
        for call in calls(name):
            every = differentiated(name, call)
            for changed in tensors(call):
                names = every if what is changed_before_backward else [k for k in every if k != changed]
                yield from differences(name, call, partial(what, changed, names)) if names else ()

    alike(found())


# -- Modules and whole programs, while torch is patched


def pickled(module: torch.nn.Module) -> torch.nn.Module:
    return pickle.loads(pickle.dumps(module))


def saved(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


HANDLINGS: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "as made": as_it_is,
    "double": torch.nn.Module.double,
    "half": torch.nn.Module.half,
    "to bfloat16": lambda module: module.to(torch.bfloat16),
    "to_empty": lambda module: module.to_empty(device="cpu"),
    "eval": torch.nn.Module.eval,
    "deepcopy": copy.deepcopy,
    "pickled": pickled,
    "saved": saved,
}


def handled(module: str, given: Iterable[str], handling: str, mode: Mode, arguments: Arguments) -> dict[str, Any]:
    constructed = {k: v for k, v in arguments.items() if k not in given}
    with mode():
        torch.manual_seed(0)
        made = HANDLINGS[handling](getattr(torch.nn, module)(**constructed))
        state = {k: v.dtype for k, v in made.state_dict().items()}
        seen = {"type": type(made), "repr": repr(made), "state": str(state)}
        if handling == "to_empty":  # whose values are uninitialized
            return seen
        tensors = leaves({k: arguments[k] for k in given}, given[:1])
        value = made(*tensors.values())
        value = value if isinstance(value, Tensor) else value.loss
        return {**seen, "value": value, **gradients(value, tensors)}


@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize(
    "module", [name for name in SHARED_MODULES if name != "CTCLoss"]
)  # torch's gradient differs on purpose
@pytest.mark.filterwarnings("ignore:.NLLLoss2d. has been deprecated")
def test_modules(module: str, handling: str) -> None:
    def found() -> Iterator[Difference]:
        parameters = inspect.signature(getattr(torch.nn, module).forward).parameters
        names = ["input" if k == "log_input" else k for k in parameters]
        for required_only in (True, False):
            constructed = constructor_arguments(module, required_only)
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                given = dict(zip(names[1:], inputs(module, dtype), strict=True))
                probe = partial(handled, module, tuple(given), handling)
                yield from while_patched(functional_of(module) or module, {**constructed, **given}, probe)

    alike(found())


def exported(name: str, mode: Mode, arguments: Arguments) -> dict[str, Any]:
    called_with = tensors(arguments)
    given = tuple(called_with.values())
    with mode():
        program = torch.export.export(Scaled(of(getattr(F, name), arguments, called_with)), given)
    module = program.module()
    value = module(*given)
    return {"result": value, "requires_grad": value.requires_grad, **gradients(value, dict(module.named_parameters()))}


@every_loss
def test_exported(name: str) -> None:
    """A model with one parameter, trained after its export."""
    alike(d for call in some_calls(name) for d in while_patched(name, call, partial(exported, name)))


# -- intended differences


SHOWN = [intended for intended in INTENDED if intended.example is not None and intended.loss in NAMES]


@pytest.mark.parametrize("intended", SHOWN, ids=lambda intended: intended.why)
def test_what_is_meant_is_there(intended: Any) -> None:
    """If it fails, torch or ours has changed, and the entry must be removed."""
    probe = intended.probe or requiring(*differentiated(intended.loss, intended.example))
    found = list(all_differences(intended.loss, intended.example, probe))
    assert any(intended.covers(d) for d in found), "\n".join(map(str, found)) or "no difference"
