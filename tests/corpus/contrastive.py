"""Contrastive losses of rows that are spread over processes, and models that are trained with them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import manual_grad.functional as M


def losses(
    x: Tensor, y: Tensor, negatives: Tensor, labels: Tensor, temperature: Tensor, bias: Tensor, **options: Any
) -> list[Tensor]:
    return [
        M.info_nce_loss(x, torch.cat([y, negatives]), temperature, **options),
        M.info_nce_loss(x, y, temperature, symmetric=True, **options),
        M.clip_loss(x, y, temperature, **options),
        M.nt_xent_loss(x, y, temperature, **options),
        M.supervised_contrastive_loss(x, labels, temperature, **options),
        M.siglip_loss(x, y, temperature, bias, **options),
    ]


def rows(*tensors: Tensor, **options: Any) -> Tensor:
    return torch.stack(losses(*tensors, reduction="none", **options), 1)


def reduced(*tensors: Tensor, **options: Any) -> Tensor:
    return torch.stack([u for how in ("mean", "sum") for u in losses(*tensors, reduction=how, **options)])


def rows_here(*tensors: Tensor) -> Tensor:
    return rows(*tensors, group=dist.group.WORLD)


def reduced_here(*tensors: Tensor) -> Tensor:
    found = reduced(*tensors, group=init_device_mesh("cpu", (dist.get_world_size(),)))
    others = [torch.empty_like(found) for _ in range(dist.get_world_size())]
    dist.all_gather(others, found.detach())
    if not all(torch.equal(other, found.detach()) for other in others):
        raise AssertionError("the processes disagree about the loss")
    return found


# -- training


class Towers(torch.nn.Module):
    """Two layers and a scale that is learned."""

    def __init__(self, images: Tensor, texts: Tensor) -> None:
        super().__init__()
        self.images = torch.nn.Linear(*images.mT.shape, bias=False, dtype=images.dtype)
        self.texts = torch.nn.Linear(*texts.mT.shape, bias=False, dtype=texts.dtype)
        self.log_scale = torch.nn.Parameter(torch.full((1,), 0.5, dtype=images.dtype))
        with torch.no_grad():
            self.images.weight.copy_(images)
            self.texts.weight.copy_(texts)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.images(image), self.texts(text), self.log_scale.exp().squeeze()


def gradients(model: torch.nn.Module) -> Tensor:
    found = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    return torch.cat([d.flatten() for d in found])


def alone(image: Tensor, text: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """The gradients of the parameters, on one process."""
    with torch.enable_grad():
        model = Towers(images, texts)
        M.clip_loss(*model(image, text)).backward()
    return gradients(model)


def trained(model: torch.nn.Module, image: Tensor, text: Tensor) -> Tensor:
    """Likewise, with the rows of this process, as the documentation says."""
    size, (x, y, scale) = dist.get_world_size(), model(image, text)
    for features in (x, y):
        features.register_hook(lambda g: size * g)
    M.clip_loss(x, y, scale, group=dist.group.WORLD).backward()
    return gradients(model)


def with_ddp(image: Tensor, text: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    return trained(DistributedDataParallel(Towers(images, texts)), image, text)


def with_fsdp(image: Tensor, text: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    model, mesh = Towers(images, texts), init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (model.images, model.texts, model):
        fully_shard(module, mesh=mesh)
    return trained(model, image, text)


def without_the_factor(image: Tensor, text: Tensor, images: Tensor, texts: Tensor) -> Tensor:
    """What is left of the gradients of the two layers, and of the scale, if nothing makes up for the average."""
    model = DistributedDataParallel(Towers(images, texts))
    M.clip_loss(*model(image, text), group=dist.group.WORLD).backward()
    scale, *layers = (p.grad for p in model.parameters())
    return torch.cat([scale, *(dist.get_world_size() * d.flatten() for d in layers)])


# -- what must not be


def compiled(*tensors: Tensor) -> Tensor:
    """torch.compile leaves a call with a group to eager mode, and refuses it in a graph that must be whole."""
    mean = torch.compile(lambda x, y, t: 2 * M.clip_loss(2 * x, y, t, group=dist.group.WORLD), backend="eager")
    return mean(*tensors)


def compiled_whole(*tensors: Tensor) -> Tensor:
    whole = torch.compile(lambda x, y, t: M.clip_loss(x, y, t, group=dist.group.WORLD), backend="eager", fullgraph=True)
    return whole(*tensors)
