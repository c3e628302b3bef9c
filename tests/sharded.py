"""The losses with their classes spread over processes, as functions of whole tensors: for the checks of gradcheck."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import manual_grad.functional as F
from gradcheck import run
from gradcheck.spec import Settings, Spec
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
