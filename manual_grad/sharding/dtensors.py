"""The losses of DTensors: each process computes the loss of what it has, and the result says what it is a part of."""

from __future__ import annotations

import functools
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
    arguments = signature.bind(*args, **kwargs).arguments
    plan = Plan(name, arguments, "group" in signature.parameters)
    arguments |= plan.here()
    group = plan.group()
    if group is not None:
        arguments["group"] = group
    with collectives.batch("" if plan.of_pairs else collectives.joined(plan.groups_of_rows)):
        return plan.placed(dispatch(**arguments))


@torch.compiler.allow_in_graph
def in_graph(name: str, *args: Any, **kwargs: Any) -> Any:
    """The functional of that name, as one node in a graph of torch.compile."""
    from manual_grad import functional

    dispatch = getattr(functional, name)
    return call(dispatch, dispatch.__wrapped__, args, kwargs)


class Plan:
    """How the tensors of one call are spread over a mesh.

    ``spread`` says for each dimension of the mesh which of the labels of :mod:`~manual_grad.sharding.layouts` is spread
    over it, or None.
    """

    def __init__(self, name: str, arguments: dict[str, Any], takes_group: bool) -> None:
        self.name, self.of_pairs = name, name in OF_PAIRS
        self.mesh = _mesh(name, arguments)
        order = [*LAYOUTS.get(name, ()), *arguments]  # the first decides
        given = {k: arguments[k] for k in dict.fromkeys(order) if isinstance(arguments.get(k), Tensor)}
        self.labels, self.rows = labels_of(name, given)
        self.tensors = {k: _distributed(t, self.mesh) for k, t in given.items()}
        self.spread = [self._spread(i) for i in range(self.mesh.ndim)]
        self.sizes: dict[str, set[int]] = {}
        for k, t in self.tensors.items():
            for label, size in zip(self.labels[k], t.shape, strict=True):
                self.sizes.setdefault(label, set()).add(size)
        self._refuse(whole(name, self.rows, arguments), takes_group and not self.of_pairs)
        self.of_rows = [label is not None and label[0] in SPREAD for label in self.spread]
        self.of_classes = [label == "c" for label in self.spread]

    def _spread(self, i: int) -> str | None:
        """What the first tensor has spread over dimension i of the mesh, or the next."""
        for k, t in self.tensors.items():
            place = t.placements[i]
            if type(place) is Shard and (label := self.labels[k][place.dim % t.dim()]) != "-":
                return label
        return None

    def _refuse(self, needed: set[str], takes_group: bool) -> None:
        for label in self.spread:
            if label is None or (label == "c" and takes_group):
                continue
            # rows that have no partner in another tensor are spread otherwise
            if label[0] in SPREAD and label not in needed and len(self.sizes[label]) == 1:
                continue
            argument = next(k for k, dims in self.labels.items() if label in dims)
            raise RuntimeError(
                f"{self.name}(): argument '{argument}' must be whole along dimension "
                f"{self.labels[argument].index(label)} in every process: redistribute it to Replicate, or spread it "
                "along its rows"
            )

    def places(self, dims: list[str], otherwise: Callable[[int], Placement] = lambda i: Replicate()) -> list[Placement]:
        """How a tensor with these labels is placed, and where it has nothing that is spread."""
        shards = [dims.index(label) if label in dims else None for label in self.spread]
        return [otherwise(i) if at is None else Shard(at) for i, at in enumerate(shards)]

    def here(self) -> dict[str, Tensor]:
        """What this process has of every tensor; its gradient is placed as the tensor is."""
        for k, t in self.tensors.items():
            self.tensors[k] = t.redistribute(self.mesh, self.places(self.labels[k]))
        return {
            k: t.to_local(grad_placements=self.places(self.labels[k], functools.partial(self._gradient, k)))
            for k, t in self.tensors.items()
        }

    def _gradient(self, argument: str, i: int) -> Placement:
        """Whether processes along dimension i of the mesh have a replicated tensor's gradient whole, or terms of it."""
        if self.of_classes[i]:
            return Partial() if HIDDEN.get(self.name) == argument else Replicate()
        return Partial() if self.of_rows[i] and not self.of_pairs else Replicate()

    @property
    def groups_of_rows(self) -> list[Any]:
        return [self.mesh.get_group(i) for i, yes in enumerate(self.of_rows) if yes]

    def group(self) -> Any:
        """The argument of that name, for classes that are spread, or rows of which all pairs are wanted."""
        if self.of_pairs and any(self.of_rows):
            if sum(self.of_rows) > 1:
                raise RuntimeError(f"{self.name}(): rows may be spread over one dimension of the mesh: flatten it")
            return self.groups_of_rows[0]
        if not any(self.of_classes):
            return None
        k = next(k for k in self.tensors if "c" in self.labels[k])
        t, at = self.tensors[k], self.labels[k].index("c")
        groups = collectives.joined(self.mesh.get_group(i) for i, yes in enumerate(self.of_classes) if yes)
        return Shards(groups, torch_private.first_index(t, at), t.shape[at], partial=True)

    def placed(self, result: Any) -> Any:
        """The result as DTensors; what is not a tensor stays as it is."""
        if isinstance(result, tuple):
            return type(result)(*map(self.placed, result))
        if not isinstance(result, Tensor):
            return result
        if result.dim() != len(self.rows):  # reduced
            terms = [Partial() if yes and not self.of_pairs else Replicate() for yes in self.of_rows]
            if not self.of_pairs:
                result = collectives.term(result, collectives.joined(self.groups_of_rows))
            return DTensor.from_local(result, self.mesh, terms, run_check=False)
        shape = torch.Size(max(self.sizes[label]) for label in self.rows)
        stride = torch.empty(shape, device="meta").stride()
        places = self.places(self.rows)
        return DTensor.from_local(result, self.mesh, places, run_check=False, shape=shape, stride=stride)


def _mesh(name: str, arguments: dict[str, Any]) -> DeviceMesh:
    meshes = [t.device_mesh for t in arguments.values() if isinstance(t, DTensor)]
    if any(mesh != meshes[0] for mesh in meshes):
        raise ValueError(f"{name}(): the DTensors must have the same device mesh")
    if arguments.get("group") is not None:
        raise ValueError(f"{name}(): argument 'group' is for plain tensors; a DTensor says how it is spread")
    return meshes[0]


def _distributed(t: Tensor, mesh: DeviceMesh) -> DTensor:
    """A plain tensor is one that every process has whole, as for torch's loss_parallel."""
    if isinstance(t, DTensor):
        return t
    return DTensor.from_local(t, mesh, [Replicate()] * mesh.ndim, run_check=False)
