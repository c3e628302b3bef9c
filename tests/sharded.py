"""The losses with their classes spread over processes, as functions of whole tensors: for the checks of gradcheck."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

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
        setattr(module, own, globals()[own]) if own in vars(module) and own != name else None
    if hasattr(module, "loss"):
        module.loss = SimpleNamespace(**{own: globals()[own] for own in HERE})
    fn = globals()[name] if name in ("cross_entropy", "linear_cross_entropy") else spec.fn
    return replace(spec, fn=fn, peer=None, modules=())


def audit(rank: int, name: str, checks: tuple[str, ...], settings: Settings) -> tuple[int, list[str]]:
    """How many results there were, and the failures, of an audit that all processes run in step."""
    report = run.audit([sharded_spec(name)], checks, settings)
    lines = [f"{r.check}: {r.case}: {r.sample}: {r.what}: {r.error:.3g} > {r.bound:g} {r.message}" for r in report.failures]
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
                    if theirs is None or theirs.isnan().any() and ours is not None and ours.isnan().any():
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
