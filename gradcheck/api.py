"""Auditing a function of one's own in a few lines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from gradcheck.guards import Guards
from gradcheck.modules import as_function, bind, described, with_parameters
from gradcheck.run import Listener, Report, audit
from gradcheck.spec import REAL, Arguments, Draw, Input, Module, Settings, Spec

Regime = Mapping[str, "Sequence[int] | Tensor"] | Callable[[], Any]
GIVEN, RANDOM = "given", "random"  # the names of the ordinary inputs


def check(
    fn: Callable[..., Tensor],
    definition: Callable[..., Tensor] | None = None,
    inputs: Mapping[str, Sequence[int] | Tensor] | None = None,
    *,
    differentiable: Collection[str] | None = None,
    domain: Mapping[str, tuple[float, float]] | None = None,
    params: Sequence[Mapping[str, Any]] = ({},),
    oracle: Callable[..., Any] | None = None,
    kinks: Mapping[int, Callable[..., Tensor]] | None = None,
    regimes: Mapping[str, Regime] | None = None,
    order: int = 1,
    promises: Collection[str] = (),
    modules: Sequence[type[torch.nn.Module] | Module] = (),
    checks: Iterable[str] | None = None,
    settings: Settings | None = None,
    name: str = "",
    listen: Listener = lambda loss, check, result: None,
) -> Report:
    """Audit a function, such as the ``apply`` of an ``autograd.Function``, or a Module.

    Args:
        fn: Called with one tensor for each of ``inputs``, in that order, and with each of ``params`` as keywords. Most
            checks run in float64. A function that refuses float64 is audited in float32; then it needs a definition.
            The class of a Module is made for each call, with those of ``params`` that its constructor has. An instance
            is called as a function is; where the definition is an instance too, or there is none, the parameters, which
            are named as in the instance, are inputs besides, and their gradients are audited.
        definition: The same function in plain torch ops, called likewise. Without it only the finite differences judge.
        inputs: For each tensor argument its name and its shape, or an example of it. An example of integers, or of
            data with a meaning, is used as it is; for a shape, two different random tensors are drawn.
        differentiable: The names of the inputs that a gradient is promised for; by default all floating point ones.
        domain: The interval an input must stay in, by name; random tensors are drawn from it.
        params: Keyword arguments, each mapping in turn.
        oracle: The function for one element, on mpmath numbers with the names of the inputs as keywords, and the
            params: then the digits of float32 are counted.
        kinks: Order -> function of the inputs and params giving a signed distance, zero where the derivative of that
            order jumps. If this is not given, kinks that are found are noted.
        regimes: Hard points by name, such as ``{"confident": lambda: {"x": 30 * torch.randn(3, 4)}}``: inputs by name,
            each an example or a shape, or a function that returns them. Inputs that are left out are those of
            ``inputs``. The errors of float32 are judged and reported for each: against ``oracle`` if there is one,
            else against the definition in float64, or the function itself in float64.
        order: The highest derivative promised. A second one must raise or be right even where it is not promised.
        promises: Which of 'forward', 'nested' (forward mode below itself and below reverse mode), 'vmap', 'compile',
            'capture' (in a CUDA graph) and 'asynchronous' (no value is read on the host) must work. Without the promise
            forward mode and vmap may raise, but not be wrong, and the others are not tried.
        modules: Classes of Modules that compute the function, with ``params`` as options of the constructor; or a
            :class:`gradcheck.Module` of one where more is to be said.
        checks: Names of checks, all by default; see ``gradcheck.CHECKS``.
        settings: Device, dtypes and seed; by default float64 and float32, the dtypes that every function takes.
        name: What the report calls the function.
        listen: Called with the name, a check and each result of it as it comes, or None when a check begins.

    Returns:
        A report, true if nothing failed; printed, it says which check caught what, and where.

    Examples:
        >>> import torch, gradcheck
        >>> class Square(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return (x * x).mean()
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         (x,) = ctx.saved_tensors
        ...         return g * 2 * x  # the mean's 1 / N is forgotten
        >>> report = gradcheck.check(Square.apply, lambda x: (x * x).mean(), {"x": (3, 4)})
        >>> bool(report), "definition" in report.caught_by()
        (False, True)
    """
    if not inputs:
        raise ValueError("inputs: at least one tensor argument is needed, as name -> shape or example")
    domain = domain or {}
    tensors = tuple(inputs)
    if isinstance(fn, torch.nn.Module) and (definition is None or isinstance(definition, torch.nn.Module)):
        inputs = {**inputs, **_parameters(fn, definition)}
    unknown = {*domain, *(differentiable or ())} - set(inputs)
    for regime, given in (regimes or {}).items():
        if regime in (GIVEN, RANDOM):
            raise ValueError(f"regimes: {regime!r} is the name of the ordinary inputs")
        unknown |= set() if callable(given) else set(given) - set(inputs)
    if unknown:
        raise ValueError(f"not among inputs: {', '.join(sorted(unknown))}")

    def described(argument: str) -> Input:
        promised = differentiable is None or argument in differentiable
        return Input(argument, promised, domain.get(argument, REAL), batch=None)

    def sample(draw: Draw, given: Mapping[str, Sequence[int] | Tensor] = inputs) -> Arguments:
        return {k: draw_like(draw, v, domain.get(k, REAL)) for k, v in given.items()}

    def hard(draw: Draw, regime: str, given: Regime) -> Arguments:
        made = _made(regime, given, draw, inputs) if callable(given) else given
        return sample(draw, {**inputs, **made})

    for regime, given in (regimes or {}).items():
        hard(Draw(0), regime, given)  # what is wrong with it is better said before than by every check

    def by_name(function: Callable[..., Tensor] | None) -> Callable[..., Tensor] | None:
        if function is None:
            return None
        if _is_class_of_modules(function):
            return as_function(Module(function), tensors)
        if isinstance(function, torch.nn.Module) and len(inputs) > len(tensors):
            return with_parameters(function, tensors)

        def call(**arguments: Any) -> Tensor:
            given = [arguments.pop(k) for k in tensors]
            return function(*given, **arguments)

        return call

    owner = getattr(fn, "__self__", type(fn) if isinstance(fn, torch.nn.Module) else None)
    settings = settings or Settings(dtypes=(torch.float64, torch.float32))
    spec = Spec(
        fn=by_name(fn),
        name=name or getattr(owner, "__name__", None) or getattr(fn, "__name__", "function"),
        inputs=tuple(map(described, inputs)),
        samples={GIVEN if any(isinstance(v, Tensor) for v in inputs.values()) else RANDOM: sample},
        regimes={k: functools.partial(hard, regime=k, given=v) for k, v in (regimes or {}).items()},
        params=tuple(params),
        definition=by_name(definition),
        oracle=oracle,
        kinks=kinks or {},
        smooth=kinks is not None,
        order=order,
        promises=tuple(promises),
        modules=tuple(modules),
    )
    for module in (fn, *modules):
        if _is_class_of_modules(module):
            _refuse_parameters(spec, module, settings)
    return audit([replace(spec, double=_takes_float64(spec, settings))], checks, settings, listen)


def _made(
    regime: str, make: Callable[[], Any], draw: Draw, inputs: Mapping[str, Any]
) -> Mapping[str, Sequence[int] | Tensor]:
    """What ``make`` returns, the same whenever the same case is drawn: tensors by name, or in the order of inputs."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(draw.generator.initial_seed())
        made = make()
    if isinstance(made, Tensor):
        made = (made,)
    if not isinstance(made, Mapping):
        made = dict(zip(inputs, (t for t in made if isinstance(t, Tensor)), strict=False))
    unknown = set(made) - set(inputs)
    if unknown:
        raise ValueError(f"regimes: {regime!r} makes what is not among inputs: {', '.join(sorted(unknown))}")
    return made


def _is_class_of_modules(value: Any) -> TypeGuard[type[torch.nn.Module]]:
    return isinstance(value, type) and issubclass(value, torch.nn.Module)


def _parameters(fn: torch.nn.Module, definition: torch.nn.Module | None) -> dict[str, Tensor]:
    parameters = {k: t.detach() for k, t in fn.named_parameters()}
    if definition is not None:
        shapes, expected = (
            {k: tuple(t.shape) for k, t in module.named_parameters()} for module in (fn, definition)
        )  # fmt: skip
        if shapes != expected:
            raise ValueError(f"definition: its parameters are {expected}, those of the Module {shapes}")
    return parameters


def _refuse_parameters(spec: Spec, module: type[torch.nn.Module], settings: Settings) -> None:
    """A class is made anew for each call, so that parameters of its own would be others each time."""
    try:
        made = bind(described(module), tuple(spec.by_name), spec.case(settings).arguments).module
    except Exception:
        return  # the checks are to show it
    if any(True for _ in made.parameters()):
        names = ", ".join(name for name, _ in made.named_parameters())
        raise ValueError(
            f"{module.__name__} has parameters ({names}): give an instance, or a gradcheck.Module with state"
        )


def _takes_float64(spec: Spec, settings: Settings) -> bool:
    """Unless it refuses float64 and takes float32: what it refuses for another reason, the checks are to show."""

    def takes(dtype: torch.dtype) -> bool:
        try:
            with Guards():  # one that writes beside a result would end this process
                spec.case(settings, dtype=dtype).call()
        except Exception:
            return False
        return True

    return takes(torch.float64) or not takes(torch.float32)


def drawn(given: Sequence[int] | Tensor, domain: tuple[float, float] | None = None) -> Tensor:
    """An example of an input, by torch's own random numbers."""
    return draw_like(Draw(int(torch.randint(2**31, ()))), given, domain or REAL)


def draw_like(draw: Draw, given: Sequence[int] | Tensor, domain: tuple[float, float]) -> Tensor:
    if isinstance(given, Tensor):
        return draw.tensor(given.detach().clone())
    low, high = domain
    if low > -float("inf") and high < float("inf"):
        return draw.uniform(*given, low=low + (high - low) / 8, high=high - (high - low) / 8)
    x = draw.normal(*given)
    if low > -float("inf"):
        return low + 0.5 + x.abs()
    return high - 0.5 - x.abs() if high < float("inf") else x
