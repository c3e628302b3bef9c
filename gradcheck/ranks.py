"""What each process of a sharded audit runs. It imports torch alone, to start fast."""

from __future__ import annotations

import faulthandler
import importlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

FIRST_BACKWARD = "torch.fx.experimental.symbolic_shapes"  # which torch imports then, for seconds


Call = tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Job:
    """One process's part.

    Args:
        fn: The function, or where to find it, as on the command line.
        calls: For each call its arguments in order, each the whole tensor or this process's shard; what the gradient
            starts from, of the shape of this process's value; and for each argument with a gradient the direction that
            this is differentiated along, or no directions.
        differentiable: The places of the arguments with a gradient.
        params: Further keyword arguments.
        folder: Where the processes meet, and leave what they find.
        rank: Which of the processes it is.
        processes: How many there are.
        seconds: How long a call may take.
    """

    fn: Callable[..., Tensor] | str
    calls: tuple[Call, ...]
    differentiable: tuple[int, ...]
    params: Mapping[str, Any]
    folder: Path
    rank: int
    processes: int
    seconds: float

    def file(self, kind: str) -> Path:
        return self.folder / f"{self.rank}.{kind}"


def work(job: Job) -> None:
    """Leaves ``<rank>.found``, or ``<rank>.error`` with a traceback; ``<rank>.stack`` says where it hung."""
    torch.set_num_threads(1)
    try:
        fn = _loaded(job.fn) if isinstance(job.fn, str) else job.fn
        store = dist.FileStore(str(job.folder / "store"), job.processes)
        # longer than the calls may take: the one who waits ends them, and says where they were
        limit = timedelta(seconds=10 * job.seconds + 60)
        dist.init_process_group("gloo", store=store, rank=job.rank, world_size=job.processes, timeout=limit)
        importlib.import_module(FIRST_BACKWARD)
        own = dist.new_group()  # so that what the function forgets to receive is not taken for a message of ours
        meet(own)
        job.file("ready").touch()
        with job.file("stack").open("w") as stack:
            faulthandler.dump_traceback_later(job.seconds, file=stack)
            found = [[_results(job, fn, *call, own) for _ in range(2)] for call in job.calls]
            faulthandler.cancel_dump_traceback_later()
        torch.save(found, job.file("saved"))
        job.file("saved").rename(job.file("found"))  # only once it is whole
        meet(own)
        dist.destroy_process_group()
    except BaseException:
        job.file("written").write_text(traceback.format_exc(), encoding="utf-8")
        job.file("written").rename(job.file("error"))
        raise SystemExit(1) from None


def meet(own: Any) -> None:
    """Wait for the others: one that leaves out a message is found here, and not where it sends the next."""
    dist.barrier(group=own)


def _loaded(text: str) -> Callable[..., Tensor]:
    from gradcheck import target

    return target.callable_of(target.load(text)[1])


def _results(
    job: Job, fn: Callable[..., Tensor], given: tuple[Tensor, ...], g: Tensor, directions: tuple[Tensor, ...], own: Any
) -> dict[str, Any]:
    inputs = [t.clone() for t in given]
    for i in job.differentiable:
        inputs[i].requires_grad_()
    leaves = [inputs[i] for i in job.differentiable]
    value = fn(*inputs, **job.params)
    meet(own)
    if not isinstance(value, Tensor):
        raise TypeError(f"the function returned a {type(value).__name__}, not a tensor")
    if value.shape != g.shape:
        return {"value": value.detach(), "gradients": None}
    found = []
    for _ in range(2):
        if value.requires_grad:
            gradients = torch.autograd.grad(value, leaves, g, retain_graph=True, allow_unused=True)
        else:
            gradients = (None,) * len(leaves)
        meet(own)
        found.append([None if d is None else d.detach().clone() for d in gradients])
    bent = _bent(value, leaves, g, directions, own) if directions else []
    unchanged = [torch.equal(a.detach(), b) for a, b in zip(inputs, given, strict=True)]
    return {"value": value.detach(), "gradients": found[0], "again": found[1], "bent": bent, "unchanged": unchanged}


def _bent(
    value: Tensor, leaves: list[Tensor], g: Tensor, directions: tuple[Tensor, ...], own: Any
) -> list[list[Tensor | None]]:
    """Each gradient's derivatives along its direction, by every leaf and by ``g``; None where it has no graph."""
    how: dict[str, Any] = dict(retain_graph=True, allow_unused=True, materialize_grads=True)
    g = g.clone().requires_grad_()
    slopes = directions  # which have no graph
    if value.requires_grad:
        slopes = torch.autograd.grad(value, leaves, g, create_graph=True, **how)
    meet(own)
    found: list[list[Tensor | None]] = []
    for v, slope in zip(directions, slopes, strict=True):
        along = (v * slope).sum()
        if along.requires_grad:
            found.append([d.detach().clone() for d in torch.autograd.grad(along, [*leaves, g], **how)])
        else:
            found.append([None] * (len(leaves) + 1))
        meet(own)
    return found
