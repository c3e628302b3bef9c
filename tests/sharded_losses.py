"""The losses with their classes spread over processes, as functions of whole tensors: for the checks of gradcheck."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import manual_grad.functional as F
from gradcheck import run
from gradcheck.spec import Case, Settings, Spec
from manual_grad import specs
from manual_grad.engine import collectives


@torch.compiler.allow_in_graph
def part(t: Tensor | None, dim: int) -> Tensor | None:
    """This process's part, which may be empty; the gradient of the whole tensor is put together again."""
    if t is None:
        return None
    world = dist.group.WORLD
    return collectives.spread(t, world.group_name).tensor_split(dist.get_world_size(), dim)[dist.get_rank()]


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, *args: Any, **options: Any) -> Any:
    if not input.dim():
        return F.cross_entropy(input, target, weight, *args, **options)
    dim = 1 if input.dim() > 1 else 0
    if target.shape == input.shape:
        target = part(target, dim)
    if weight is not None and weight.shape == input.shape[dim : dim + 1]:
        weight = part(weight, 0)
    return F.cross_entropy(part(input, dim), target, weight, *args, group=dist.group.WORLD, **options)


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
    weight: Tensor | None = None, **options: Any,
) -> Any:  # fmt: skip
    classes = linear_weight.shape[0] if linear_weight.dim() else 0
    if target.shape == (*input.shape[:-1], *linear_weight.shape[:-1]):
        target = part(target, input.dim() - 1)
    if weight is not None and weight.shape == (classes,):
        weight = part(weight, 0)
    if linear_bias is not None and linear_bias.shape == linear_weight.shape[:-1]:
        linear_bias = part(linear_bias, 0)
    if linear_weight.dim() > 1:
        linear_weight = part(linear_weight, 0)
    return F.linear_cross_entropy(
        input, linear_weight, target, linear_bias=linear_bias, weight=weight, group=dist.group.WORLD, **options
    )


def selected_log_prob(input: Tensor, index: Tensor, *args: Any, **options: Any) -> Any:
    return F.selected_log_prob(part(input, -1), index, *args, group=dist.group.WORLD, **options)


def log_prob_and_entropy(input: Tensor, index: Tensor, *args: Any, **options: Any) -> Any:
    return F.log_prob_and_entropy(part(input, -1), index, *args, group=dist.group.WORLD, **options)


def linear_log_prob(
    hidden: Tensor, weight: Tensor, index: Tensor, bias: Tensor | None = None, *args: Any, **options: Any
) -> Any:
    if weight.dim() == 2 and (bias is None or bias.shape == weight.shape[:1]):
        weight, bias = part(weight, 0), part(bias, 0)
    return F.linear_log_prob(hidden, weight, index, bias, *args, group=dist.group.WORLD, **options)


HERE = ("cross_entropy", "linear_cross_entropy", "selected_log_prob", "log_prob_and_entropy", "linear_log_prob")
AUDITED = ("cross_entropy", "cross_entropy_head", "selected_log_prob", "linear_cross_entropy",
           "linear_cross_entropy_head", "linear_log_prob")  # fmt: skip


def sharded_spec(name: str) -> Spec:
    """The spec of a loss, with everything that it asks asked of classes that are spread over processes.

    It replaces the function in the module of the spec, so it is for a process of its own.
    """
    module, spec = specs.module(name), specs.load(name)
    for own in HERE:
        if callable(getattr(module, own, None)):
            setattr(module, own, globals()[own])
    if hasattr(module, "loss"):
        module.loss = SimpleNamespace(**{own: globals()[own] for own in HERE})
    fn = globals()[name] if name in ("cross_entropy", "linear_cross_entropy") else spec.fn
    return replace(spec, fn=fn, peer=None, modules=())


def audit(rank: int, name: str, checks: tuple[str, ...], settings: Settings) -> tuple[int, list[str]]:
    """How many results there were, and the failures, of an audit that all processes run in step."""
    report = run.audit([sharded_spec(name)], checks, settings)
    lines = [
        f"{r.check}: {r.case}: {r.sample}: {r.what}: {r.error:.3g} > {r.bound:g} {r.message}" for r in report.failures
    ]
    return len(report.results), lines


def spread_over(t: Tensor, mesh: DeviceMesh, dim: int | None) -> DTensor:
    """A tensor that every process has, along ``dim`` of which they now have parts."""
    return distribute_tensor(t, mesh, [Replicate() if dim is None else Shard(dim)], src_data_rank=None)


def batch_sharded(rank: int, names: tuple[str, ...]) -> tuple[dict[str, set[int]], list[str]]:
    """Every loss, of DTensors of which the first is spread along one of its dimensions after the other.

    Returns, for each loss, the dimensions of its first tensor, counted from the last, along which it refuses to be
    spread; and what is wrong.
    """
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    refused: dict[str, set[int]] = {name: set() for name in names}
    wrong: list[str] = []
    for name in names:
        spec = specs.load(name)
        for plain, case in enumerate(spec.cases(Settings(quick=True))):
            expected, gradients = case.differentiate()
            for dim in range(next(iter(case.tensors.values())).dim()):
                try:
                    found, own = _of_dtensors(case, mesh, dim, bool(plain % 2))
                except RuntimeError as error:
                    if "must be whole along dimension" not in str(error):
                        raise RuntimeError(f"{case}, {dim}") from error
                    refused[name].add(dim - next(iter(case.tensors.values())).dim())
                    continue
                pairs = {"value": (found, expected), **{k: (own[k], gradients[k]) for k in own}}
                for what, (ours, theirs) in pairs.items():
                    if theirs is None:
                        continue
                    if not torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13, equal_nan=True):
                        wrong.append(f"{name}, {case}, spread along {dim}: {what}: {ours} instead of {theirs}")
    return refused, wrong


def _of_dtensors(case: Case, mesh: DeviceMesh, dim: int, plain: bool) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Value and gradients, whole; the tensors after the first are ``plain``, or DTensors that every process has."""
    first = next(iter(case.tensors))
    given = {k: t if plain and k != first else spread_over(t, mesh, dim if k == first else None)
             for k, t in case.tensors.items()}  # fmt: skip
    leaves = {k: given[k].detach().requires_grad_() for k in case.differentiable}
    value = case.call(**{**given, **leaves})
    whole = value.full_tensor()
    if not whole.requires_grad:
        return whole, {}
    found = torch.autograd.grad(whole, list(leaves.values()), case.upstream(whole), allow_unused=True)
    for k, d in zip(leaves, found, strict=True):
        if isinstance(d, DTensor) and d.placements != leaves[k].placements:
            raise AssertionError(f"{case}: the gradient of {k}, placed {leaves[k].placements}, is {d.placements}")
    gathered = [d.full_tensor() if isinstance(d, DTensor) else d for d in found]
    return whole.detach(), dict(zip(leaves, gathered, strict=True))


# -- what a process does in tests of their own, with the results for the test to compare


def counted(rank: int) -> dict[str, tuple[int, int, int]]:
    """How many all-reduces forward, backward and in the double backward take."""
    classes, world = 5 + rank, dist.group.WORLD
    scores = torch.randn(4, classes, dtype=torch.float64)
    hidden, weight = torch.randn(4, 3, dtype=torch.float64), torch.randn(classes, 3, dtype=torch.float64)
    y, p = torch.tensor([0, 6, -100, 3]), torch.rand(4, classes, dtype=torch.float64)
    calls: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "indices": (scores, lambda x: F.cross_entropy(x, y, group=world)),
        "smoothing, z-loss": (
            scores, lambda x: F.cross_entropy(x, y, label_smoothing=0.1, z_loss=0.1, softcap=3.0, group=world),
        ),
        "weights": (
            scores, lambda x: F.cross_entropy(x, y, torch.ones(classes, dtype=torch.float64), group=world),
        ),
        "probabilities": (scores, lambda x: F.cross_entropy(x, p, group=world)),
        "log-probability, entropy": (scores, lambda x: sum(F.log_prob_and_entropy(x, y, group=world)).sum()),
        "hidden states": (hidden, lambda x: F.linear_cross_entropy(x, weight, y, group=world)),
    }  # fmt: skip
    found = {}
    for name, (x, call) in calls.items():
        x = x.clone().requires_grad_()
        with CommDebugMode() as forward:
            loss = call(x)
        with CommDebugMode() as backward:
            torch.autograd.grad(loss, x, retain_graph=True)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        with CommDebugMode() as second:
            torch.autograd.grad(gradient.sum(), x)
        found[name] = tuple(mode.get_total_counts() for mode in (forward, backward, second))
    return found


def class_sharded(rank: int, shape: tuple[int, ...], placements: list[tuple[int | None, ...]]) -> list[str]:
    """Cross entropy of DTensors on a mesh, whole, beside that of whole tensors: what differs."""
    mesh = init_device_mesh("cpu", shape)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(5, 11, dtype=torch.float64, generator=draw)
    y, w = torch.tensor([0, -100, 10, 4, 7]), torch.rand(11, dtype=torch.float64, generator=draw)
    p = torch.rand(5, 11, dtype=torch.float64, generator=draw)
    wrong = []
    for places in placements:
        placed = [Replicate() if dim is None else Shard(dim) for dim in places]
        for target, weight, reduction, options in product(
            (y, p), (None, w), ("mean", "sum", "none"),
            ({}, dict(label_smoothing=0.1), dict(z_loss=0.1, accuracy=True, lse=True)),
        ):  # fmt: skip
            how = dict(weight=weight, reduction=reduction, **options)
            expected, whole = _loss_of(x.clone().requires_grad_(), target, **how)
            found, part = _loss_of(
                distribute_tensor(x, mesh, placed, src_data_rank=None).requires_grad_(), target, **how
            )
            rows = [Shard(0) if d == 0 else Replicate() for d in places]
            summed = [Partial() if d == 0 else Replicate() for d in places]
            label = f"{places}, {how}"
            if list(found.placements) != (rows if reduction == "none" else summed):
                wrong.append(f"{label}: the loss is placed {found.placements}")
            if list(part.placements) != placed:
                wrong.append(f"{label}: the gradient is placed {part.placements}")
            for ours, theirs in ((found, expected), (part, whole)):
                if not torch.allclose(ours.full_tensor(), theirs, rtol=1e-12, atol=1e-14):
                    wrong.append(f"{label}: {ours.full_tensor()} instead of {theirs}")
    return wrong


def _loss_of(x: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    found = F.cross_entropy(x, target, **options)
    loss = found if isinstance(found, Tensor) else found.loss
    loss.sum().backward()
    return loss.detach(), x.grad


def tensor_parallel(rank: int) -> list[str]:
    """Plans of parallelize_module: a head that leaves its scores divided, and hidden states divided by position."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    whole = torch.nn.Linear(6, 11, dtype=torch.float64)
    x, y = torch.randn(4, 3, 6, dtype=torch.float64), torch.randint(0, 11, (4, 3))
    y[0, 0] = -100
    loss = F.cross_entropy(whole(x).flatten(0, 1), y.flatten(), label_smoothing=0.1)
    loss.backward()
    wrong = []

    def compare(what: str, ours: Tensor, theirs: Tensor) -> None:
        if not torch.allclose(ours.full_tensor(), theirs, rtol=1e-12, atol=1e-14):
            wrong.append(f"{what}: {ours.full_tensor()} instead of {theirs}")

    head = copy.deepcopy(whole)
    plan = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    parallelize_module(head, mesh["tp"], plan)
    scores = head(x)
    own = F.cross_entropy(scores.flatten(0, 1), y.flatten(), label_smoothing=0.1)
    own.backward()
    compare("loss of scores", own, loss)
    compare("gradient of the weight", head.weight.grad, whole.weight.grad)

    hidden = distribute_tensor(x, mesh, [Shard(0), Shard(1)], src_data_rank=None).requires_grad_()
    weight = distribute_tensor(
        whole.weight.detach(), mesh, [Replicate(), Shard(0)], src_data_rank=None
    ).requires_grad_()
    bias = distribute_tensor(whole.bias.detach(), mesh, [Replicate(), Shard(0)], src_data_rank=None)
    target = distribute_tensor(y, mesh, [Shard(0), Replicate()], src_data_rank=None)
    own = F.linear_cross_entropy(hidden, weight, target, linear_bias=bias, label_smoothing=0.1, normalizer=11.0)
    with CommDebugMode() as backward:
        own.backward()
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(whole(x).flatten(0, 1), y.flatten(), label_smoothing=0.1)
    (dx,) = torch.autograd.grad(loss, x)
    compare("loss of hidden states", own, loss)
    compare("gradient of the hidden states", hidden.grad, dx)
    compare("gradient of the weight from hidden states", weight.grad, whole.weight.grad)
    counts = {str(op).rpartition(".")[2]: n for op, n in backward.get_comm_counts().items()}
    if hidden.grad.placements != hidden.placements or counts.get("reduce_scatter_tensor") != 1:
        wrong.append(f"hidden states, {hidden.grad.placements}: {counts}")
    return wrong


def compiled(rank: int) -> list[float]:
    """How far a compiled step, and one that is checkpointed, are from an eager one."""
    world = dist.group.WORLD
    torch.manual_seed(0)
    weight = torch.randn(11, 6).tensor_split(dist.get_world_size())[rank]
    x, y = torch.randn(5, 6), torch.tensor([0, -100, 10, 4, 7])

    def step(x: Tensor, weight: Tensor, smoothing: float) -> Tensor:
        scores = 2 * x @ weight.mT
        by_hidden = F.linear_cross_entropy(x, weight, y, group=world, z_loss=1e-3)
        return F.cross_entropy(scores, y, label_smoothing=smoothing, group=world) + by_hidden

    def checkpointed(x: Tensor, weight: Tensor, smoothing: float) -> Tensor:
        return torch.utils.checkpoint.checkpoint(step, x, weight, smoothing, use_reentrant=False)

    graph = torch.compile(step, fullgraph=True, backend="aot_eager")
    apart = []
    for smoothing in (0.0, 0.1):
        found = []
        for call in (step, graph, checkpointed):
            leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
            loss = call(*leaves, smoothing)
            found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
        apart += [
            float((u - v).abs().max()) for other in found[1:] for u, v in zip(found[0], other, strict=True) if u.numel()
        ]
    return apart


def accumulated(rank: int) -> tuple[Tensor, Tensor]:
    """Under DDP over the batch and classes spread over the rest: two parts of a batch, of which one is not synced."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    torch.manual_seed(0)
    body, weight = torch.nn.Linear(6, 6), torch.randn(11, 6)
    x, y = torch.randn(8, 6), torch.randint(0, 11, (8,))
    y[:3] = -100
    F.linear_cross_entropy(body(x), weight, y).backward()
    whole = body.weight.grad.clone()
    body.zero_grad()
    tp, dp = mesh["tp"].get_group(), mesh["dp"].get_group()
    own = weight.tensor_split(2)[mesh.get_local_rank("tp")]
    model = DistributedDataParallel(body, process_group=dp)
    parts = list(zip(x.chunk(4), y.chunk(4), strict=True))[2 * mesh.get_local_rank("dp") :][:2]
    count = (y != -100).sum()
    for i, (rows, labels) in enumerate(parts):
        with model.no_sync() if i == 0 else contextlib.nullcontext():
            # DDP averages over the processes, so that each has to count twice
            loss = 2 * F.linear_cross_entropy(model(rows), own, labels, normalizer=count, group=tp)
            loss.backward()
    return body.weight.grad, whole


def left_alone(rank: int, folder: str) -> None:
    """A process that is lost before the others' next message."""
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    F.cross_entropy(x, y, group=dist.group.WORLD)
    if rank == 1:
        os._exit(7)
    try:
        F.cross_entropy(x, y, group=dist.group.WORLD)
    except RuntimeError as error:
        (Path(folder) / str(rank)).write_text(str(error), encoding="utf-8")
    time.sleep(30)  # until it is ended


def bits(rank: int) -> list[Tensor]:
    """Losses that every process has."""
    torch.manual_seed(0)
    x, y = 4 * torch.randn(64, 1000), torch.randint(0, 1000, (64,))
    own, world = x.tensor_split(dist.get_world_size(), 1)[rank], dist.group.WORLD
    found = F.log_prob_and_entropy(own, y, group=world)
    return [*found, *(F.cross_entropy(own, y, group=world, label_smoothing=0.1, reduction=r) for r in ("mean", "none"))]


def tied(rank: int) -> list[list[bool]]:
    """Whether each of five classes with the same score leads, from scores and from hidden states."""
    own = torch.zeros(5, 5).tensor_split(dist.get_world_size(), 1)[rank]
    world, classes = dist.group.WORLD, torch.arange(5)
    weight = torch.zeros(5, 2).tensor_split(dist.get_world_size())[rank]
    found = [
        F.cross_entropy(own, classes, accuracy=True, group=world).correct,
        F.linear_log_prob(torch.ones(5, 2), weight, classes, accuracy=True, group=world).correct,
        F.cross_entropy(own, own + 0.2, accuracy=True, group=world).correct,
    ]
    return [correct.tolist() for correct in found]


def compiled_dtensors(rank: int) -> tuple[float, float]:
    """How far losses of DTensors are from eager ones in a graph."""
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    x, y = torch.randn(5, 7), torch.randint(0, 7, (5,))

    def step(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x, y, label_smoothing=0.1) + F.mse_loss(x, x.detach() + 1)

    apart = []
    for dim in (0, 1):
        found = []
        for call in (step, torch.compile(step, backend="aot_eager")):
            leaf = spread_over(x, mesh, dim).requires_grad_()
            call(leaf, spread_over(y, mesh, None)).full_tensor().backward()
            found.append(leaf.grad.full_tensor())
        apart.append(float((found[0] - found[1]).abs().max()))
    return apart[0], apart[1]


def refusals(rank: int) -> list[str]:
    """What bad calls say."""
    mesh, other = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
    x, y = torch.zeros(3, 4 + rank), torch.tensor([0, 9, 1])
    spread, target = spread_over(torch.zeros(3, 4), mesh, 1), torch.tensor([0, 1, 2])
    calls = [
        lambda: F.cross_entropy(x, y, group=dist.group.WORLD),
        lambda: F.nll_loss(spread, target),
        lambda: F.cross_entropy(spread, target, group=dist.group.WORLD),
        lambda: F.cross_entropy(spread, distribute_tensor(target, other)),
    ]
    found = []
    for call in calls:
        try:
            found.append(f"{call()}")
        except (IndexError, RuntimeError, ValueError) as error:
            found.append(str(error))
    return found


# -- functions of the parts that a process has, and the same of the whole, for gradcheck.check_sharded


def of_probabilities(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return F.cross_entropy(input, target, weight, label_smoothing=0.1, z_loss=0.01, group=dist.group.WORLD)


def of_probabilities_whole(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    loss = torch.nn.functional.cross_entropy(input, target, weight, label_smoothing=0.1)
    return loss + 0.01 * input.logsumexp(1).square().mean()


def of_hidden(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    labels = torch.tensor([3, 0, -100, 6, 2])
    return F.linear_cross_entropy(hidden, weight, labels, linear_bias=bias, reduction="none", group=dist.group.WORLD)


def of_hidden_whole(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    labels = torch.tensor([3, 0, -100, 6, 2])
    return torch.nn.functional.cross_entropy(hidden @ weight.mT + bias, labels, reduction="none")


def entropy(hidden: Tensor, weight: Tensor) -> Tensor:
    index = torch.zeros(len(hidden), dtype=torch.int64)
    found = F.linear_log_prob(hidden, weight, index, temperature=0.5, entropy=True, group=dist.group.WORLD)
    return found.entropy - found.log_prob


def entropy_whole(hidden: Tensor, weight: Tensor) -> Tensor:
    log_p = (2 * hidden @ weight.mT).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) - log_p[:, 0]


def of_rows(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean over rows, of which each process has some."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    x, t, w = (DTensor.from_local(u, mesh, [Shard(0)], run_check=False) for u in (input, target, weight))
    return F.mse_loss(x, t, weight=w).full_tensor()


def of_rows_whole(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return (weight * (input - target).square()).sum() / weight.sum()
