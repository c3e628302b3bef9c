"""The losses of DTensors: each process computes the loss of what it has, and the result says what it is a part of."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from manual_grad.engine import collectives, torch_private
from manual_grad.sharding.layouts import HIDDEN, LAYOUTS, OF_PAIRS, SPREAD, labels_of, whole
from manual_grad.sharding.log_prob import Shards


def call(dispatch: Callable[..., Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
    """``function`` of DTensors, as DTensors."""
    name, signature = function.__name__, inspect.signature(function)
    bound = signature.bind(*args, **kwargs).arguments
    mesh = _mesh(name, bound)
    order = [*LAYOUTS.get(name, ()), *bound]  # the first decides
    given = {k: bound[k] for k in dict.fromkeys(order) if isinstance(bound.get(k), Tensor)}
    labels, rows = labels_of(name, given)
    tensors = {k: _distributed(name, k, t, mesh) for k, t in given.items()}
    spread = [_spread(i, tensors, labels) for i in range(mesh.ndim)]
    of_pairs = name in OF_PAIRS
    takes_group = "group" in signature.parameters and not of_pairs
    sizes: dict[str, set[int]] = {}
    for k, t in tensors.items():
        for u, n in zip(labels[k], t.shape, strict=True):
            sizes.setdefault(u, set()).add(n)
    uneven = {u for u, found in sizes.items() if len(found) > 1}  # such as rows that have no partner
    _refuse(name, spread, labels, whole(name, rows, bound) | uneven, takes_group)
    of_rows = [label is not None and label[0] in SPREAD for label in spread]
    of_classes = [label == "c" for label in spread]

    def placed(dims: list[str], otherwise: Callable[[int], Placement]) -> list[Placement]:
        return [Shard(dims.index(u)) if u in dims else otherwise(i) for i, u in enumerate(spread)]  # type: ignore[arg-type]

    for k, t in tensors.items():
        hidden = HIDDEN.get(name) == k

        def of_gradient(i: int, hidden: bool = hidden) -> Placement:
            partial = hidden if of_classes[i] else of_rows[i] and not of_pairs
            return Partial() if partial else Replicate()

        t = t.redistribute(mesh, placed(labels[k], lambda i: Replicate()))
        bound[k] = t.to_local(grad_placements=placed(labels[k], of_gradient))
        tensors[k] = t
    if any(of_classes):
        k = next(k for k in tensors if "c" in labels[k])
        t, at = tensors[k], labels[k].index("c")
        groups = collectives.joined(mesh.get_group(i) for i, is_one in enumerate(of_classes) if is_one)
        bound["group"] = Shards(groups, torch_private.first_index(t, at), t.shape[at], partial=True)
    batch = [mesh.get_group(i) for i, is_one in enumerate(of_rows) if is_one]
    if of_pairs and batch:
        if len(batch) > 1:
            raise RuntimeError(f"{name}(): rows may be spread over one dimension of the mesh: flatten it")
        bound["group"] = batch.pop()
    with collectives.batch(collectives.joined(batch)):
        result = dispatch(**bound)

    def part(u: Any) -> Any:
        if not isinstance(u, Tensor):
            return u
        if u.dim() != len(rows):  # reduced
            parts = [Partial() if r and not of_pairs else Replicate() for r in of_rows]
            return DTensor.from_local(u, mesh, parts, run_check=False)
        shape = torch.Size(max(sizes[r]) for r in rows)
        stride = torch.empty(shape, device="meta").stride()
        places = placed(rows, lambda i: Replicate())
        return DTensor.from_local(u, mesh, places, run_check=False, shape=shape, stride=stride)

    if isinstance(result, tuple):
        return type(result)(*map(part, result))
    return part(result)


@torch.compiler.allow_in_graph
def in_graph(name: str, *args: Any, **kwargs: Any) -> Any:
    """The functional of that name, as one node in a graph of torch.compile."""
    from manual_grad import functional

    dispatch = getattr(functional, name)
    return call(dispatch, dispatch.__wrapped__, args, kwargs)


def _mesh(name: str, bound: dict[str, Any]) -> DeviceMesh:
    meshes = [t.device_mesh for t in bound.values() if isinstance(t, DTensor)]
    if any(mesh != meshes[0] for mesh in meshes):
        raise ValueError(f"{name}(): the DTensors must have the same device mesh")
    if bound.get("group") is not None:
        raise ValueError(f"{name}(): argument 'group' is for plain tensors; a DTensor says how it is spread")
    return meshes[0]


def _distributed(name: str, argument: str, t: Tensor, mesh: DeviceMesh) -> DTensor:
    """A plain tensor is one that every process has whole, as for torch's loss_parallel."""
    if isinstance(t, DTensor):
        return t
    return DTensor.from_local(t, mesh, [Replicate()] * mesh.ndim, run_check=False)


def _spread(i: int, tensors: dict[str, DTensor], labels: dict[str, list[str]]) -> str | None:
    """What is spread over dimension i of the mesh: what the first tensor has spread there, or the next."""
    for k, t in tensors.items():
        place = t.placements[i]
        if type(place) is Shard:
            label = labels[k][place.dim % t.dim()]
            if label != "-":
                return label
    return None


def _refuse(
    name: str, spread: list[str | None], labels: dict[str, list[str]], needed: set[str], takes_group: bool
) -> None:
    for label in spread:
        if label is None or (label[0] in SPREAD and label not in needed) or (label == "c" and takes_group):
            continue
        argument = next(k for k, dims in labels.items() if label in dims)
        dim = labels[argument].index(label)
        raise RuntimeError(
            f"{name}(): argument '{argument}' must be whole along dimension {dim} in every process: "
            f"redistribute it to Replicate, or spread it along its rows"
        )
