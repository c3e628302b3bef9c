"""Unusual arguments for the losses, drawn by hypothesis for tests/test_fuzz.py.

Every tensor is a view into its own, larger storage. Around and between the elements of the view are sentinels, on which
no result may depend, and which must not be overwritten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gradcheck.spec import REAL, UNIT
from manual_grad import specs

NAN, INF = float("nan"), float("inf")
HALVES = torch.bfloat16, torch.float16
SIZES = (2, 3, 1, 5, 0, 17, 40)
REDUCTIONS = "none", "mean", "sum"
SENTINELS = {torch.int64: 3 << 60, torch.int32: 3 << 28, torch.int8: 99, torch.uint8: 199, torch.bool: True}


@dataclass
class Draw:
    """The choices of one example. The first choice is the simplest; hypothesis shrinks towards it."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    dtype: torch.dtype = torch.float32
    storages: dict[str, Tensor] = field(default_factory=dict)

    def choose(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def mostly(self, usual: Any, *others: Any, weight: int = 6) -> Any:
        """The usual option, or, with probability 1/``weight``, one of the others."""
        return self.choose(*[usual] * (weight - 1) * len(others), *others)

    def chance(self, one_in: int) -> bool:
        return self.mostly(False, True, weight=one_in)

    def shape(self, low: int = 0, high: int = 4) -> list[int]:
        shape = [self.choose(*SIZES) for _ in range(self.draw(st.sampled_from(range(low, high + 1))))]
        while math.prod(shape) > 3000:
            shape[shape.index(max(shape))] = 2
        return shape

    def like(self, shape: Sequence[int]) -> list[int]:
        """The same shape, or rarely one that broadcasts with it, or one that may not fit at all."""
        kind = self.mostly("same", "ones", "fewer", "more", "other", weight=8)
        shape = list(shape)
        if kind == "ones":
            return [self.choose(n, 1) for n in shape]
        if kind == "fewer":
            return shape[self.draw(st.sampled_from(range(len(shape) + 1))) :]
        if kind == "more":
            return [self.choose(1, 2), *shape]
        if kind == "other" and shape:
            shape[self.draw(st.sampled_from(range(len(shape))))] = self.choose(*SIZES)
        return shape

    def floating(self, other: int = 20) -> torch.dtype:
        """The dtype of the example, or rarely another one."""
        return self.mostly(self.dtype, torch.float64, torch.float32, *HALVES, weight=other)

    def numbers(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        typical: Callable[[Tensor], Tensor] = lambda normal: normal,
        special: Sequence[float] = (0.0, 1.0, -1.0, NAN, INF, -INF, 1e4, 1e-6),
        rarely: int = 3,
    ) -> Tensor:
        """``typical`` of normally distributed numbers, sometimes with one of ``special`` mixed in."""
        dtype = self.floating() if dtype is None else dtype
        generator = torch.Generator().manual_seed(self.draw(st.sampled_from(range(1000))))
        among = self.choose(*special) if self.chance(rarely) else None
        share = 1 if among is None else self.choose(0.05, 0.5, 1.0)

        def fill(n: int) -> Tensor:
            values = typical(torch.randn(n, generator=generator, dtype=torch.float64))
            if among is not None:
                values[torch.rand(n, generator=generator) < share] = among
            return values

        return self.place(name, shape, dtype, fill)

    def signs(self, name: str, shape: Sequence[int]) -> Tensor:
        dtype = self.mostly(self.dtype, torch.int64, torch.int32, torch.int8, torch.float64, weight=4)
        return self.numbers(name, shape, dtype, lambda x: x.sign(), (0.0, 2.0, 1.0, -1.0, 0.5), rarely=6)

    def indices(self, name: str, shape: Sequence[int], classes: int, *others: int) -> Tensor:
        """Class indices, sometimes with one of ``others`` or an index out of range, near the bounds or far away."""
        kind = self.mostly("right", "other", "wrong", weight=3) if others else self.mostly("right", "wrong", weight=6)
        dtype = self.mostly(torch.int64, torch.uint8, torch.int32, torch.float32, weight=12)
        generator = torch.Generator().manual_seed(self.draw(st.sampled_from(range(1000))))
        if kind == "other":
            among = self.choose(*others)
        else:
            among = self.choose(classes, -1, classes + 1, 2**31, -(2**31) - 1, 2**62, -(2**63))
        share = self.choose(0.2, 1.0, 0.01)
        if dtype is not torch.int64:
            among = max(-1, min(among, 255))

        def fill(n: int) -> Tensor:
            values = torch.randint(max(classes, 1), (n,), generator=generator)
            if kind != "right":
                values[torch.rand(n, generator=generator) < share] = among
            return values

        return self.place(name, shape, dtype, fill)

    def place(self, name: str, shape: Sequence[int], dtype: torch.dtype, fill: Callable[[int], Tensor]) -> Tensor:
        """A tensor of this shape in the middle of a larger storage."""
        order = list(range(len(shape)))
        kind = self.mostly("plain", "permuted", "gaps", "expanded", "overlapping", weight=2) if shape else "plain"
        if kind in ("permuted", "gaps"):
            order = self.draw(st.permutations(order))
        strides, step = [0] * len(shape), self.choose(2, 3) if kind == "gaps" else 1
        for d in reversed(order):
            strides[d] = step
            step *= max(shape[d], 1) + (self.choose(0, 1) if kind == "gaps" else 0)
        if kind in ("expanded", "overlapping"):
            d = self.draw(st.sampled_from(range(len(shape))))
            strides[d] = 0 if kind == "expanded" else min(strides[d], 1)
        offset = self.choose(0, 1, 7)
        length = offset + sum(stride * (n - 1) for stride, n in zip(strides, shape, strict=True) if n) + 1 + 9
        storage = torch.full((length,), SENTINELS.get(dtype, NAN)).to(dtype)
        touched = torch.arange(length).as_strided(shape, strides, offset).flatten()
        if kind in ("expanded", "overlapping"):
            touched = touched.unique()
        storage[touched] = fill(touched.numel()).to(dtype)
        self.storages[name] = storage
        return storage.as_strided(shape, strides, offset)


def described(arguments: Mapping[str, Any]) -> str:
    """The arguments, as printed for a failure."""

    def row(name: str, value: Any) -> str:
        if not isinstance(value, Tensor):
            return f"{name} = {value!r}"
        layout = f"shape {tuple(value.shape)}, strides {value.stride()}, offset {value.storage_offset()}"
        grad = ", requires_grad" if value.requires_grad else ""
        return f"{name}: {value.dtype}, {layout}{grad}\n{value.detach()}"

    return "\n".join(row(name, value) for name, value in arguments.items())


# -- one function for each functional: its arguments


def unit(x: Tensor) -> Tensor:
    return x.sigmoid()


def of_spec(name: str, d: Draw) -> dict[str, Any]:
    """For a pointwise loss that torch lacks: inputs from the domains of its spec, with its params."""
    spec, shape = specs.load(name), d.shape()
    known: dict[tuple[float, float], dict[str, Any]] = {
        UNIT: dict(typical=unit, special=(0.0, 1.0, 1e-6, NAN)),
        (0.0, INF): dict(typical=torch.exp, special=(0.0, 1.0, 1e-6, 1e4, NAN, INF)),
        (-INF, 0.0): dict(typical=lambda x: -x.exp(), special=(0.0, -1.0, -1e-6, -1e4, NAN, -INF)),
        REAL: {},
    }
    arguments = {}
    for i in spec.inputs:
        if i.name != "weight" or d.chance(3):
            arguments[i.name] = d.numbers(i.name, d.like(shape) if arguments else shape, **known[i.domain])
    return {**arguments, **{k: v for k, v in d.choose(*spec.params).items() if k != "reduction"}}


def residual(d: Draw, **options: Any) -> dict[str, Any]:
    shape = d.shape()
    return dict(input=d.numbers("input", shape), target=d.numbers("target", d.like(shape)), **options)


def with_weight(d: Draw, arguments: dict[str, Any], name: str = "weight", one_in: int = 3) -> dict[str, Any]:
    if d.chance(one_in):
        arguments[name] = d.numbers(name, d.like(arguments["input"].shape), rarely=6)
    return arguments


def l1_loss(d: Draw) -> dict[str, Any]:
    return with_weight(d, residual(d))


mse_loss = l1_loss


def smooth_l1_loss(d: Draw) -> dict[str, Any]:
    return residual(d, beta=d.mostly(1.0, 0.5, 0.0, 1e-6, INF, -1.0, NAN, 2))


def huber_loss(d: Draw) -> dict[str, Any]:
    return with_weight(d, residual(d, delta=d.mostly(1.0, 0.5, 0.0, 1e-6, INF, -1.0, NAN, 2)))


def binary_cross_entropy(d: Draw) -> dict[str, Any]:
    shape = d.shape()
    special = (0.0, 1.0, 1e-6, -1e-6, 1.01, NAN)
    x, t = (d.numbers(name, d.like(shape), typical=unit, special=special) for name in ("input", "target"))
    return with_weight(d, dict(input=x, target=t))


def binary_cross_entropy_with_logits(d: Draw) -> dict[str, Any]:
    shape = d.shape()
    arguments = dict(input=d.numbers("input", shape), target=d.numbers("target", d.like(shape), typical=unit))
    return with_weight(d, with_weight(d, arguments), "pos_weight")


def poisson_nll_loss(d: Draw) -> dict[str, Any]:
    shape, log_input = d.shape(), d.choose(True, False)
    special = (0.0, 1.0, -1.0, NAN, INF, -INF, 1e3, 1e-6)
    x = d.numbers("input", shape, typical=(lambda x: x) if log_input else torch.exp, special=special)
    t = d.numbers("target", d.like(shape), typical=lambda x: (2 * x.abs()).round(), special=special)
    return dict(input=x, target=t, log_input=log_input, full=d.choose(False, True), eps=d.mostly(1e-8, 0.0, 0.5))


def gaussian_nll_loss(d: Draw) -> dict[str, Any]:
    shape = d.shape()
    arguments = dict(input=d.numbers("input", shape), target=d.numbers("target", d.like(shape)))
    of_var = d.mostly("like", "short", "one", weight=4)
    var_shape = shape[:-1] if of_var == "short" else [*shape[:-1], 1] if of_var == "one" and shape else d.like(shape)
    special = (0.0, 1e-6, INF, NAN, -1.0, 1e4)
    arguments["var"] = d.numbers("var", var_shape, typical=torch.exp, special=special, rarely=4)
    return dict(**arguments, full=d.choose(False, True), eps=d.mostly(1e-6, 0.5, 0.0, 2))


def kl_div(d: Draw) -> dict[str, Any]:
    shape, log_target = d.shape(), d.choose(False, True)
    of_target = (lambda x: -x.exp()) if log_target else unit
    x = d.numbers("input", shape, typical=lambda x: -x.exp())
    return dict(input=x, target=d.numbers("target", d.like(shape), typical=of_target), log_target=log_target)


def soft_margin_loss(d: Draw) -> dict[str, Any]:
    shape = d.shape()
    return dict(input=d.numbers("input", shape), target=d.signs("target", d.like(shape)))


def hinge_embedding_loss(d: Draw) -> dict[str, Any]:
    return dict(**soft_margin_loss(d), margin=d.mostly(1.0, 0.0, -1.0, INF, NAN, 2))


def margin_ranking_loss(d: Draw) -> dict[str, Any]:
    shape = d.shape()
    x1, x2 = d.numbers("input1", shape), d.numbers("input2", d.like(shape))
    return dict(input1=x1, input2=x2, target=d.signs("target", d.like(shape)), margin=d.mostly(0.0, 0.5, -1.0, INF, 2))


def of_rows(d: Draw, shape: Sequence[int], **options: Any) -> dict[str, Any]:
    """Scores, class indices and a weight of each class."""
    classes = shape[1] if len(shape) > 1 else shape[0] if shape else 1
    ignore_index = d.mostly(-100, 0, 1, classes, -1, 2**62, weight=3)
    rows = [*shape[:1], *shape[2:]] if len(shape) > 1 else []
    arguments = dict(input=d.numbers("input", shape), ignore_index=ignore_index, **options)
    arguments["target"] = d.indices("target", d.like(rows), classes, ignore_index)
    if d.chance(3):
        arguments["weight"] = d.numbers("weight", d.like([classes]), d.floating(40), torch.abs, rarely=6)
    return arguments


def nll_loss(d: Draw) -> dict[str, Any]:
    return of_rows(d, d.shape(low=1) if not d.chance(20) else [])


def cross_entropy(d: Draw) -> dict[str, Any]:
    smoothing = d.mostly(0.0, 0.1, 1.0, 1, -0.1, NAN, weight=3)
    shape = d.shape(low=1) if not d.chance(20) else []
    if d.chance(2):
        return of_rows(d, shape, label_smoothing=smoothing)
    classes = shape[1] if len(shape) > 1 else shape[0] if shape else 1
    arguments = dict(input=d.numbers("input", shape), label_smoothing=smoothing)
    arguments["target"] = d.numbers("target", d.like(shape), typical=unit, special=(0.0, 1.0, -1.0, NAN, INF))
    if d.chance(3):
        arguments["weight"] = d.numbers("weight", d.like([classes]), d.floating(40), torch.abs, rarely=6)
    if d.chance(6):
        arguments["ignore_index"] = d.choose(-1, 0)
    return arguments


def matrix(d: Draw) -> list[int]:
    return d.shape(*d.mostly((2, 2), (1, 1), (0, 4), weight=3))


def multi_margin_loss(d: Draw) -> dict[str, Any]:
    shape = matrix(d)
    classes = shape[-1] if shape else 1
    arguments = dict(input=d.numbers("input", shape), target=d.indices("target", d.like(shape[:-1]), classes))
    if d.chance(3):
        arguments["weight"] = d.numbers("weight", d.like([classes]), d.floating(40), torch.abs, rarely=6)
    return dict(**arguments, p=d.mostly(1, 2, 3, weight=2), margin=d.mostly(1.0, 0.0, -1.0, INF, 2))


def multilabel_margin_loss(d: Draw) -> dict[str, Any]:
    shape = matrix(d)
    target = d.indices("target", d.like(shape), shape[-1] if shape else 1, -1)
    return dict(input=d.numbers("input", shape), target=target)


def multilabel_soft_margin_loss(d: Draw) -> dict[str, Any]:
    shape = d.shape(low=1) if not d.chance(20) else []
    x = d.numbers("input", shape)
    return with_weight(d, dict(input=x, target=d.numbers("target", d.like(shape), typical=unit)))


def cosine_embedding_loss(d: Draw) -> dict[str, Any]:
    shape = matrix(d)
    x1, x2 = d.numbers("input1", shape), d.numbers("input2", d.like(shape))
    margin = d.mostly(0.0, 0.5, -1.0, 2, INF)
    return dict(input1=x1, input2=x2, target=d.signs("target", d.like(shape[:-1])), margin=margin)


def triplet_margin_with_distance_loss(d: Draw) -> dict[str, Any]:
    shape = matrix(d)
    names = ("anchor", "positive", "negative")
    vectors = {name: d.numbers(name, d.like(shape) if i else shape) for i, name in enumerate(names)}
    options = dict(margin=d.mostly(1.0, 0.5, 0.0, INF, NAN, 2, weight=3), swap=d.choose(False, True))
    if d.chance(3):
        options["distance_function"] = distance
    return {**vectors, **options}


def distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().sum(-1)


def triplet_margin_loss(d: Draw) -> dict[str, Any]:
    arguments = triplet_margin_with_distance_loss(d)
    arguments.pop("distance_function", None)
    return dict(**arguments, p=d.mostly(2.0, 1.0, INF, 0.0, 3, 0.5, -1.0, weight=3), eps=d.mostly(1e-6, 0.0, 0.5))


def ctc_loss(d: Draw) -> dict[str, Any]:
    frames, samples, classes = (d.choose(*SIZES[: 6 if i == 0 else 5]) for i in range(3))
    batched = not d.chance(6)
    shape = [frames, samples, classes] if batched else [frames, classes]
    samples = samples if batched else 1
    most = d.choose(2, 1, 0, 5)
    # wrong lengths: more frames than there are, more labels than are stored, negative
    lie = d.mostly(None, "input_lengths", "target_lengths", weight=6)
    lengths = {"input_lengths": [], "target_lengths": []}
    for name, limit in (("input_lengths", frames), ("target_lengths", most)):
        lengths[name] = [d.choose(limit, max(limit - 1, 0), 0, 1) for _ in range(samples)]
        lengths[name] = [min(n, limit) for n in lengths[name]]
        if lie == name and samples:
            lengths[name][-1] = d.choose(limit + 1, -1, 2**31, 2**62, -(2**63), 2**63 - 1)
    concatenated = d.chance(3)
    stored = [sum(n for n in lengths["target_lengths"] if 0 <= n <= most)] if concatenated else [samples, most]
    if not batched and not concatenated:
        stored = d.choose([1, most], [most])
    arguments: dict[str, Any] = dict(
        log_probs=d.numbers("log_probs", shape, d.floating(40), lambda x: -x.exp(), (-INF, 0.0, NAN, INF, -1e4)),
        targets=d.indices("targets", d.like(stored), classes),
        blank=d.mostly(0, 1, classes, -1, max(classes - 1, 0)),
        zero_infinity=d.choose(False, True),
    )
    as_tensors = d.choose(True, False)
    for name, values in lengths.items():
        if as_tensors:
            dtype = d.mostly(torch.int64, torch.int32, torch.float32, weight=12) if lie is None else torch.int64
            values = d.place(name, d.like([samples]), dtype, cycled(values))
        arguments[name] = values
    return arguments


def cycled(values: Sequence[int]) -> Callable[[int], Tensor]:
    def fill(n: int) -> Tensor:
        return torch.tensor([values[i % len(values)] if values else 1 for i in range(n)], dtype=torch.int64)

    return fill


def linear_cross_entropy(d: Draw) -> dict[str, Any]:
    features, classes, samples = d.choose(3, 1, 0, 5), d.choose(4, 1, 2, 0), d.choose(*SIZES)
    positions = d.mostly([], [2], [2, 3], [0])
    batch = [samples] if not d.chance(6) else []
    narrow = dict(special=(0.0, NAN, INF, 1.0), rarely=6)
    arguments = dict(
        input=d.numbers("input", [*batch, features], **narrow),
        linear_weight=d.numbers("linear_weight", d.like([classes, *positions, features]), d.floating(40), **narrow),
    )
    if d.chance(2):
        arguments["linear_bias"] = d.numbers("linear_bias", d.like([classes, *positions]), d.floating(40), **narrow)
    if d.chance(3):
        arguments["target"] = d.numbers("target", d.like([*batch, classes, *positions]), typical=unit)
    else:
        ignore_index = d.mostly(None, 0, -1, classes, -100, weight=3)
        others = () if ignore_index is None else (ignore_index,)
        arguments["target"] = d.indices("target", d.like([*batch, *positions]), classes, *others)
        arguments["ignore_index"] = ignore_index
    if d.chance(3):
        arguments["weight"] = d.numbers("weight", d.like([classes]), d.floating(40), torch.abs, rarely=6)
    return dict(**arguments, label_smoothing=d.mostly(0.0, 0.1, 1.0, -0.1, weight=3))
