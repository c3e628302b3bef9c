"""Train the language model of ``language_model.py`` on several processes, none of which has the whole head.

The processes are a grid, data × tensor. Those along "tensor" have the same part of the batch, and each scores some of
the vocabulary: a row of the head's weight is on one of them. Those along "data" have different parts of the batch, and
FSDP divides all weights between them. On a CPU gloo connects them, and on GPUs nccl:

    torchrun --nproc-per-node 4 examples/language_model_sharded.py --steps 100 --checkpoint run
    torchrun --nproc-per-node 2 examples/language_model_sharded.py --steps 200 --checkpoint run

The second line goes on from the first one's checkpoint, with half as many processes. The losses are those that any
other number of processes would have, up to rounding: to 6 digits for some 20 steps, and later to fewer, because Adam
divides a gradient by its size, even one that is nothing but rounding.

The head's weight is a DTensor. ``linear_cross_entropy`` also takes this process's rows as a plain tensor, with
``group=``, but a DTensor says which rows of the whole weight they are. So do FSDP's parameters and the optimizer's
state, and so the checkpoint is that of a whole model, which every grid can read.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import manual_grad.functional
from language_model import BATCH, EVERY, Model, Text, contexts, load

IGNORED = -100  # the label of a token that does not count


def divided(model: Model, mesh: DeviceMesh) -> Model:
    """The model, which is the same in every process, with all but this process's part of each weight given up."""
    head = distribute_tensor(model.head.detach(), mesh["tensor"], [Shard(0)], src_data_rank=None)
    model.head = nn.Parameter(head)
    for block in model.blocks:
        fully_shard(block, mesh=mesh["data"])
    # the head's rows are divided already, so FSDP divides its columns
    fully_shard(model, mesh=mesh["data"], shard_placement_fn=lambda p: Shard(1) if p is model.head else None)
    for part in (*model.blocks, model):
        part.set_gradient_divide_factor(1.0)  # a loss is a share of the whole batch's, so gradients add up
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return model


class Training:
    """What one process does; its state is what a checkpoint has."""

    def __init__(self, model: Model, text: Text, mesh: DeviceMesh, seed: int) -> None:
        self.model, self.text, self.mesh, self.steps = divided(model, mesh), text, mesh, 0
        self.generator = torch.Generator().manual_seed(seed)  # of all batches: every process draws the same
        others = [p for p in model.parameters() if p is not model.head]  # on one dimension of the grid, the head on two
        self.optimizer = torch.optim.AdamW([{"params": others}, {"params": [model.head]}], lr=2e-3)

    def step(self) -> Tensor:
        """The mean loss of all tokens of the batch, and the norm of its gradient: the same bits in every process."""
        data = self.mesh["data"]
        batch = contexts(self.text.train, BATCH, self.generator).tensor_split(data.size())[data.get_local_rank()]
        batch = batch.to(self.mesh.device_type)
        tokens = (batch[:, 1:] != IGNORED).sum()
        dist.all_reduce(tokens, group=data.get_group())

        def share(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
            loss = manual_grad.functional.linear_cross_entropy(hidden, weight, target, normalizer=tokens)
            return loss.to_local()

        loss = self.model.loss(share, batch)
        loss.backward()
        norm = self.clip(max_norm=1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        loss = loss.detach()
        dist.all_reduce(loss, group=data.get_group())
        return torch.stack([loss, norm])

    def clip(self, max_norm: float) -> Tensor:
        """As clip_grad_norm_, which takes gradients on one mesh only."""
        gradients = [[p.grad.to_local() for p in group["params"]] for group in self.optimizer.param_groups]
        squares = torch.stack([sum(g.square().sum() for g in some) for some in gradients])
        dist.all_reduce(squares, group=self.mesh["data"].get_group())
        dist.all_reduce(squares[1:], group=self.mesh["tensor"].get_group())  # of the head; each has all of the others
        norm = squares.sum().sqrt()
        for g in itertools.chain(*gradients):
            g.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def state_dict(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "generator": self.generator.get_state(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        how = dict(model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        set_state_dict(self.model, self.optimizer, **how)
        self.generator.set_state(state["generator"])
        self.steps = state["steps"]


def latest(checkpoints: Path) -> Path | None:
    """The last one that is complete: its metadata are written when all else has been."""
    return max((path.parent for path in checkpoints.glob("step-*/.metadata")), default=None)


def save(training: Training, checkpoints: Path) -> None:
    dcp.save({"training": training}, checkpoint_id=checkpoints / f"step-{training.steps:06}")


def assert_same(found: Tensor) -> None:
    """In every process, bit by bit."""
    all_found = [torch.empty_like(found) for _ in range(dist.get_world_size())]
    dist.all_gather(all_found, found)
    assert all(torch.equal(other, found) for other in all_found), f"the processes differ: {all_found}"


def train(
    text: Text, mesh: DeviceMesh, steps: int, seed: int, checkpoints: Path | None = None
) -> Iterator[tuple[int, float, float]]:
    """Yields each step, its loss and the norm of its gradient, from the last checkpoint on."""
    torch.manual_seed(seed)
    training = Training(Model(text.vocabulary).to(mesh.device_type), text, mesh, seed)
    if checkpoints and (last := latest(checkpoints)):
        dcp.load({"training": training}, checkpoint_id=last)
    while training.steps < steps:
        found = training.step()
        if training.steps % EVERY == 0 or training.steps == steps:
            assert_same(found)
            if checkpoints:
                save(training, checkpoints)
        yield training.steps, *found.tolist()


@contextmanager
def connected() -> Iterator[str]:
    """The processes that torchrun started, by the device of this one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def grid(device: str, tensor_parallel: int) -> DeviceMesh:
    shape = dist.get_world_size() // tensor_parallel, tensor_parallel
    return init_device_mesh(device, shape, mesh_dim_names=("data", "tensor"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of training in all (%(default)s)")
    parser.add_argument("--vocabulary", type=int, default=16_384, help="pieces at most (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights and the batches (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="go on from the last one here, and save here")
    parser.add_argument(
        "--tensor-parallel", type=int, metavar="N", default=2, help="processes that share the head (%(default)s)"
    )
    args = parser.parse_args()
    processes = int(os.environ.get("WORLD_SIZE", 0))
    if not processes:
        parser.error(f"run it by torchrun --nproc-per-node 4 {Path(__file__).name}")
    tensor_parallel = min(args.tensor_parallel, processes)
    if processes % tensor_parallel:
        parser.error(f"{processes} processes cannot be divided into rows of {tensor_parallel}")

    with connected() as device:
        mesh, first = grid(device, tensor_parallel), dist.get_rank() == 0
        found = [load(args.vocabulary) if first else None]
        dist.broadcast_object_list(found)
        (text,) = found
        for step, loss, norm in train(text, mesh, args.steps, args.seed, args.checkpoint):
            if first:
                print(f"step {step}: loss {loss:.7f}, gradient {norm:.7f}", flush=True)


if __name__ == "__main__":
    main()
