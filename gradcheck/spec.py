"""How a function with a hand-written gradient is described to the auditor.

A :class:`Spec` states what the function *is* (its primal, twice: in torch ops and in exact arithmetic), where it lives
(domains, samples, kinks) and what it promises. It never states a derivative: those come from the primal.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]
Gradient = dict[str, Tensor | None]  # by each differentiable input
Derivatives = tuple[Tensor, Gradient]  # the value besides
Named = dict[str, Tensor | None]  # 'value', and 'gradient of' each input
Sample = Callable[["Draw"], Mapping[str, Any]]

REAL = (-float("inf"), float("inf"))
UNIT = (0.0, 1.0)
# the dimensions of the first tensor of a batch
BATCHED = {"pointwise": 1, "rowwise": 2, "pairwise": 2, "path": 3, "linear": 2, "contrastive": 2}
QUICK = 3  # cases of a check in a quick run, or points of a page


@dataclass(frozen=True)
class Input:
    """One tensor argument.

    Args:
        name: The keyword of the argument.
        differentiable: Whether a gradient is promised when it is floating point, or a function of the arguments that
            says so; if not, it must get None or be refused.
        domain: ``(low, high)`` when it is floating point: samples must lie in it, finite differences stay in it.
        batch: The dimension that counts the samples of a batch; None for a tensor that all of them share.
    """

    name: str
    differentiable: bool | Callable[..., bool] = True
    domain: tuple[float, float] = REAL
    batch: int | None = 0


@dataclass(frozen=True)
class Pin:
    """A value or (sub)gradient that is a choice, or an edge: checked exactly, with and without kernels.

    Args:
        arguments: The call; nested lists become tensors.
        why: The reason for the choice.
        value: What the function must return there, or None to leave it open.
        gradient: What the gradient must be there, by argument name, for an upstream gradient of ones.
    """

    arguments: Mapping[str, Any]
    why: str
    value: Any = None
    gradient: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Error:
    """A bad call: the first sample with ``arguments`` changed must raise ``raises`` with a message matching ``match``.

    ``raises`` may be a Warning. A value of ``arguments`` may be a function of the first sample's arguments.
    """

    arguments: Mapping[str, Any]
    raises: type[Exception]
    match: str


@dataclass(frozen=True)
class Kernels:
    """The kernels behind a function that also has formulas.

    Args:
        loaded: Whether there are any for a type of device, such as 'cuda'.
        switched: A context in which they are on or off.
        interpreted: Whether those for CUDA are being interpreted on the CPU, as a test.
    """

    loaded: Callable[[str], bool]
    switched: Callable[[bool], AbstractContextManager[None]]
    interpreted: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Module:
    """A Module that computes the function as well.

    What belongs where is read from the signatures: an argument that the constructor has goes to it by name, the other
    inputs go to ``forward``, one after the other. The functions below take the arguments that they name; what one of
    them takes goes nowhere else.

    Args:
        made: The class.
        options: Gives further arguments of the constructor.
        state: Gives tensors that take the place of parameters or buffers, by their names in the Module.
        value: Gives the value of the function from what ``forward`` returns, which comes first.
        methods: Name of a method -> what it returns, in torch ops: a function with the arguments of ``fn``. The method
            gets as many of the inputs as it takes.
    """

    made: type[torch.nn.Module]
    options: Callable[..., Mapping[str, Any]] = lambda: {}
    state: Callable[..., Mapping[str, Tensor]] = lambda: {}
    value: Callable[..., Tensor] = lambda result: result
    methods: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.made.__name__


@dataclass(frozen=True)
class Settings:
    """What a run covers: the device, the dtypes of the oracle and of parity, fewer cases if ``quick``.

    With ``inductor`` torch.compile generates code, which takes a C++ compiler seconds a function; else its graphs are
    run as they are.
    """

    device: str = "cpu"
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    quick: bool = False
    seed: int = 0
    inductor: bool = False


class Draw:
    """Reproducible random tensors: the same numbers, rounded, for every dtype and device."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype, self.device = dtype, device

    def tensor(self, values: Any) -> Tensor:
        t = values if isinstance(values, Tensor) else torch.tensor(values, dtype=_dtype_of(values))
        return t.to(self.device, self.dtype) if t.is_floating_point() else t.to(self.device)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return self.tensor(scale * torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return self.tensor(low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64))

    def sign(self, *shape: int) -> Tensor:
        return self.tensor(2.0 * torch.randint(2, shape, generator=self.generator) - 1.0)

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        return self.tensor(torch.randint(low, high, shape, generator=self.generator))


@dataclass(frozen=True)
class Spec:
    """Everything the checks know of a function. Only ``fn``, ``inputs`` and ``samples`` are needed.

    Args:
        fn: The function under audit, called with keywords.
        inputs: Its tensor arguments. A sample need not give all of them.
        samples: Name -> function of a :class:`Draw` giving the keyword arguments of one call, at an ordinary point:
            a small one, where finite differences resolve the function. The first is the one that single-sample checks
            use. Every check draws from here.
        regimes: Likewise, but hard points (saturated, tiny, huge, nearly cancelling): for the oracle and for parity.
        params: Further keyword arguments, each dict in turn with every sample; a sample's own arguments win.
        definition: The same function in plain torch ops, differentiable by autograd.
        oracle: The same function on mpmath numbers, for one element, row, pair or path (see ``family``) and with the
            tensors it got as keywords: returns the value, or ``(value, share)`` where the mean is
            ``sum(value) / sum(share)``.
        family: What ``oracle`` is called on: 'pointwise', 'rowwise', 'pairwise', 'path', 'linear' or 'contrastive'.
        peer: Another implementation, torch's own, whose error is put beside.
        symbols: What the letters of its chapter stand for: a function of one row's arguments, as ``oracle`` gets them,
            and of ``draw``, for what the chapter lets be anything, a direction say. Gives LaTeX name -> number, list of
            numbers, :class:`~gradcheck.formulas.Each` for an index letter, 0 or 1 for ``or`` where the chapter says
            ``\\text{or}``; None for a row that the chapter does not speak of.
        chapter: The text whose numbered equations are executed; by default that of the module of ``fn``.
        kinks: Order -> function of the arguments giving a tensor of signed distances, zero where the derivative of
            that order jumps.
        smooth: Whether the derivatives of no order jump but at ``kinks``; if not, a kink that is found is a note.
        pins: Chosen subgradients and edge values.
        errors: Bad calls.
        exact: Whether every entry of a gradient is to be right to a few eps of float32 where the oracle is known,
            however much cancels in it; if not, to what the rounding of the inputs leaves.
        double: Whether it takes float64, in which most checks run; if not, they run in float32, and those that need
            more digits do not.
        widens: Whether it returns float32 for half precision.
        order: The highest derivative that is promised.
        promises: Which of these hold: 'forward' (forward mode), 'nested' (forward mode below itself, where torch gives
            zero for a Function whose jvp does not expect it, and below reverse mode), 'vmap' (torch.func), 'compile'
            (torch.compile), 'capture' (in a CUDA graph) and 'asynchronous' (no value is read on the host).
            Forward mode and vmap must raise or be right even where they are not promised.
        kernels: The switch of its kernels, which must agree with the formulas and sum the same on any number of
            threads; None if it has no kernels.
        blocks: Name -> a context in which it works in blocks so small that the samples have several of each, such as
            ``functools.partial(unittest.mock.patch.multiple, module, BLOCK=1)``: it must be the same function there.
        modules: The Modules that compute it, which must give what it gives.
        large: A call with more elements than 32 bits count, for a device that has the memory: a function of that
            number, giving the tensors and how many of their last entries to look at.
    """

    fn: Callable[..., Tensor]
    inputs: tuple[Input, ...]
    samples: Mapping[str, Sample]
    regimes: Mapping[str, Sample] = field(default_factory=dict)
    params: tuple[Mapping[str, Any], ...] = ({},)
    definition: Callable[..., Tensor] | None = None
    oracle: Callable[..., Any] | None = None
    family: str = "pointwise"
    peer: Callable[..., Tensor] | None = None
    symbols: Callable[..., Mapping[str, Any] | None] | None = None
    chapter: str | None = None
    kinks: Mapping[int, Callable[..., Tensor]] = field(default_factory=dict)
    smooth: bool = True
    pins: tuple[Pin, ...] = ()
    errors: tuple[Error, ...] = ()
    exact: bool = True
    double: bool = True
    widens: bool = False
    order: int = 2
    promises: Collection[str] = ("forward", "nested", "vmap", "compile", "capture")
    kernels: Kernels | None = None
    blocks: Mapping[str, Callable[[], AbstractContextManager[Any]]] = field(default_factory=dict)
    modules: tuple[type[torch.nn.Module] | Module, ...] = ()
    large: Callable[[int], tuple[dict[str, Tensor], int]] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.fn.__name__)

    @property
    def multiplies(self) -> bool:
        """Whether matrices are multiplied, by a BLAS, which promises no order of its sums."""
        return self.family in ("linear", "contrastive")

    def compiled(self, device: str = "cpu") -> bool:
        """Whether kernels are loaded for that type of device."""
        return self.kernels is not None and self.kernels.loaded(device)

    @property
    def interpreted(self) -> bool:
        return self.kernels is not None and self.kernels.interpreted()

    @property
    def dtype(self) -> torch.dtype:
        """The widest dtype that it takes."""
        return torch.float64 if self.double else torch.float32

    @functools.cached_property
    def by_name(self) -> dict[str, Input]:
        return {i.name: i for i in self.inputs}

    def case(
        self,
        settings: Settings,
        sample: str | None = None,
        params: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        take: int = 0,
    ) -> Case:
        """One call: ``sample`` (by default the first) drawn with ``params``; ``take`` gives another draw of it."""
        sample = next(iter(self.samples)) if sample is None else sample
        params = self.params[0] if params is None else params
        seed = zlib.crc32(f"{self.name} {sample} {take} {settings.seed}".encode())
        made = {**self.samples, **self.regimes}[sample](Draw(seed, dtype or self.dtype, settings.device))
        case = Case(self, sample, {**params, **made}, {k: v for k, v in params.items() if k not in made})
        if case.outside:
            raise ValueError(f"the spec of {self.name} does not admit its own sample {sample!r}: {case.outside}")
        return case

    def pinned(self, pin: Pin, draw: Draw) -> Case:
        """The call of a pin."""
        made = {k: draw.tensor(v) if k in self.by_name else v for k, v in pin.arguments.items()}
        return Case(self, f"pin: {pin.why}", made)

    def cases(
        self, settings: Settings, dtype: torch.dtype | None = None, samples: Mapping[str, Sample] | None = None
    ) -> Iterator[Case]:
        """Every sample with every params; only a covering of them if quick."""
        if settings.quick:
            yield from self.covering(settings, dtype, samples)
            return
        for sample in self.samples if samples is None else samples:
            for params in self.params:
                yield self.case(settings, sample, params, dtype)

    def covering(
        self, settings: Settings, dtype: torch.dtype | None = None, samples: Mapping[str, Sample] | None = None
    ) -> Iterator[Case]:
        """Every sample and every params at least once, in step: for the checks that take their time."""
        names = tuple(self.samples if samples is None else samples)
        count = max(len(names), len(self.params)) if names else 0
        # hard points are given by name, and none of them is left out
        for i in range(min(count, QUICK) if settings.quick and samples is None else count):
            yield self.case(settings, names[i % len(names)], self.params[i % len(self.params)], dtype)


@dataclass(frozen=True)
class Case:
    """One call of a function: the arguments, and how they are differentiated."""

    spec: Spec
    sample: str
    arguments: Arguments
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join((self.sample, *(f"{k}={v!r}" for k, v in self.params.items())))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments, in the order of ``spec.inputs``. One that may be a number is none where it is."""
        names = (i.name for i in self.spec.inputs)
        return {k: self.arguments[k] for k in names if isinstance(self.arguments.get(k), Tensor)}

    @property
    def differentiable(self) -> dict[str, Tensor]:
        """Those of them that a gradient is promised for."""

        def promised(differentiable: bool | Callable[..., bool]) -> bool:
            return differentiable(**self.arguments) if callable(differentiable) else differentiable

        floating = {k: t for k, t in self.tensors.items() if t.is_floating_point()}
        return {k: t for k, t in floating.items() if promised(self.spec.by_name[k].differentiable)}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the floating point tensors."""
        return next(t.dtype for t in self.tensors.values() if t.is_floating_point())

    @property
    def outside(self) -> str | None:
        """What leaves its domain, if anything does."""
        for name, t in self.tensors.items():
            low, high = self.spec.by_name[name].domain
            if t.is_floating_point() and not ((t >= low) & (t <= high)).all():
                return f"{name} leaves [{low}, {high}]"
        return None

    @property
    def batch(self) -> dict[str, int]:
        """The batch dimension of each batched tensor; empty if the case is not a batch of samples."""
        if next(iter(self.tensors.values())).dim() < BATCHED[self.spec.family]:
            return {}
        dims = {k: self.spec.by_name[k].batch for k in self.tensors}
        batched = {k: d for k, d in dims.items() if d is not None}
        sizes = {self.tensors[k].shape[d] if d < self.tensors[k].dim() else None for k, d in batched.items()}
        return batched if len(sizes) == 1 and None not in sizes else {}

    def at(self, tensors: Mapping[str, Tensor]) -> Case:
        """The same call at another point."""
        return Case(self.spec, self.sample, {**self.arguments, **tensors}, self.params)

    def call(self, fn: Callable[..., Tensor] | None = None, /, **tensors: Tensor) -> Tensor:
        return (fn or self.spec.fn)(**{**self.arguments, **tensors})

    def function(self, fn: Callable[..., Tensor] | None = None) -> Callable[..., Tensor]:
        """The call as a function of its differentiable tensors alone, in order, as torch.func wants it."""
        names = tuple(self.differentiable)
        return lambda *tensors: self.call(fn, **dict(zip(names, tensors, strict=True)))

    def upstream(self, value: Tensor) -> Tensor:
        """A gradient to start backward from: positive, so that sums over it do not cancel, and never 1."""
        return _upstream(value.shape, value.dtype, value.device).clone()

    def leaves(self) -> dict[str, Tensor]:
        return {k: t.detach().requires_grad_() for k, t in self.differentiable.items()}

    def differentiate(self, fn: Callable[..., Tensor] | None = None, g: Tensor | None = None) -> Derivatives:
        """The value and the gradient of each differentiable input, for the upstream gradient ``g``."""
        leaves = self.leaves()
        value = self.call(fn, **leaves)
        if not value.requires_grad:
            return value.detach(), dict.fromkeys(leaves)
        g = self.upstream(value) if g is None else g
        gradients = torch.autograd.grad(value, list(leaves.values()), g, allow_unused=True)
        return value.detach(), dict(zip(leaves, gradients, strict=True))


def named(value: Tensor, gradient: Gradient) -> Named:
    """The value and the gradients under the names that they have in a report."""
    return {"value": value, **{f"gradient of {k}": d for k, d in gradient.items()}}


@functools.lru_cache(maxsize=256)
def _upstream(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return Draw(shape.numel(), torch.float64, str(device)).uniform(*shape, low=1.25, high=1.75).to(dtype)


def reduce(values: Tensor, reduction: str, total: Tensor | float | None = None) -> Tensor:
    """'none', 'sum' or 'mean' of a definition's values; the mean divides by ``total`` if that is given."""
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.sum() / (values.numel() if total is None else total)


def _dtype_of(values: Any) -> torch.dtype:
    while isinstance(values, (list, tuple)):
        values = next((v for v in values), 0.0)
    return torch.float64 if isinstance(values, float) else torch.int64
