"""Contrastive losses of many vectors: tiles of the usual size, sure models, memory, and how they relate."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import manual_grad
import manual_grad.functional as M
from benchmarks.scaling import memory
from manual_grad import kernels, specs
from manual_grad.engine import tiles

EPS = torch.finfo(torch.float32).eps
LABELS = torch.arange(1300) % 700


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[str, Loss]] = {  # the name of the loss, and a function of two sets of vectors and a number
    "info_nce_loss": ("info_nce_loss", lambda x, y, t: M.info_nce_loss(x, y, t)),
    "info_nce_loss, extra keys": ("info_nce_loss", lambda x, y, t: M.info_nce_loss(x[:900], y, t)),
    "info_nce_loss, symmetric": ("info_nce_loss", lambda x, y, t: M.info_nce_loss(x, y, t, symmetric=True)),
    "clip_loss": ("clip_loss", lambda x, y, t: M.clip_loss(x, y, t)),
    "nt_xent_loss": ("nt_xent_loss", lambda x, y, t: M.nt_xent_loss(x, y, t)),
    "supervised_contrastive_loss": (
        "supervised_contrastive_loss", lambda x, y, t: M.supervised_contrastive_loss(x, LABELS, t)
    ),
    "siglip_loss": ("siglip_loss", lambda x, y, t: M.siglip_loss(x, y, t, -t)),
}  # fmt: skip
every_loss = pytest.mark.parametrize("name", LOSSES)


def gradients(fn: Loss, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor | None, ...]:
    leaves = [u.detach().requires_grad_() for u in (x, y, t)]
    value = fn(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True)


@every_loss
def test_tiles_of_the_usual_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles of rows and of columns, the last ones smaller, in float32; the definition of all in float64."""
    loss, fn = LOSSES[name]
    x, y, t = normal(1300, 8), normal(1300, 8, seed=1), torch.tensor(0.75)
    monkeypatch.setattr(tiles, "TILE", 1 << 19)
    assert len(tiles.blocks(1300, tiles.MOST_ROWS)) == 2
    found = gradients(fn, x, y, t)
    monkeypatch.setattr(M, loss, specs.load(loss).definition)
    definition = specs.load(loss).definition
    assert definition is not None
    monkeypatch.setattr(M, loss, lambda *args, **options: definition(*args, **options, reduction="mean"))
    for a, b in zip(found, gradients(fn, x.double(), y.double(), t.double()), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a.double() - b).abs().max() <= 32 * EPS * b.abs().max()  # products of float32


@pytest.mark.parametrize("gap", [20.0, 80.0])
def test_a_sure_model(gap: float) -> None:
    """Each pair leads by so much that in float32 its p is 1: the loss and its slopes keep their digits nevertheless."""
    count = 1100
    x, y = gap * torch.eye(count), torch.eye(count)
    others = (count - 1) * math.exp(-gap)
    expected = math.log1p(others)
    for fn in (LOSSES["info_nce_loss"][1], LOSSES["clip_loss"][1]):
        value, dx, dy, dt = gradients(fn, x, y, torch.tensor(1.0))
        assert abs(value.item() / expected - 1) < 4 * EPS
        assert dx is not None and dy is not None and dt is not None
        slope = others / (1 + others) / count
        torch.testing.assert_close(dx.diagonal(), torch.full((count,), -slope), rtol=4 * EPS, atol=0)
        torch.testing.assert_close(dy.diagonal(), torch.full((count,), -gap * slope), rtol=4 * EPS, atol=0)
        sign = 1 if fn is LOSSES["info_nce_loss"][1] else -1  # of a temperature, and of a scale
        assert abs(dt.item() / (sign * gap * others / (1 + others)) - 1) < 4 * EPS


def test_a_tile_of_nothing_but_vectors_and_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 1)
    monkeypatch.setattr(tiles, "MOST_ROWS", 1)
    x, y = normal(3, 4), normal(3, 4, seed=1)
    expected = specs.load("nt_xent_loss").definition
    assert expected is not None
    torch.testing.assert_close(M.nt_xent_loss(x, y, reduction="none"), expected(x, y))


def test_how_they_relate() -> None:
    x, y, t = normal(40, 6), normal(40, 6, seed=1), torch.tensor(0.5)
    torch.testing.assert_close(M.clip_loss(x, y, 1 / t), M.info_nce_loss(x, y, t, symmetric=True))
    pairs = torch.arange(40).repeat(2)
    both = M.supervised_contrastive_loss(torch.cat([x, y]), pairs, t)
    torch.testing.assert_close(M.nt_xent_loss(x, y, t), both)
    one, other = M.info_nce_loss(x, y, t), M.info_nce_loss(y, x, t)
    torch.testing.assert_close(M.info_nce_loss(x, y, t, symmetric=True), (one + other) / 2)


@every_loss
@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_what_needs_no_gradient_is_left_out(name: str, needed: tuple[bool, ...]) -> None:
    _, fn = LOSSES[name]
    given = normal(1300, 4), normal(1300, 4, seed=1), torch.tensor(0.75)
    every = gradients(fn, *given)[1:]
    leaves = [u.detach().requires_grad_(need) for u, need in zip(given, needed, strict=True)]
    expected = next(d for d, need in zip(every, needed, strict=True) if need)
    if expected is None:
        return
    value = fn(*leaves)
    value.backward(retain_graph=True)
    first = [u.grad for u in leaves]
    assert [d is not None for d in first] == list(needed)
    (d,) = (u.grad.clone() for u in leaves if u.grad is not None)
    torch.testing.assert_close(d, expected)
    value.backward()  # again
    torch.testing.assert_close(next(u.grad for u in leaves if u.grad is not None), 2 * expected)


@pytest.mark.skipif(not memory.measurable(), reason="this system does not let the peak of the resident set be reset")
@every_loss
def test_memory(name: str) -> None:
    """Of 8,192 vectors, all of whose scores are 268 MB: some tiles, besides numbers for each row."""
    count = 8192
    fn = LOSSES[name][1]
    if name == "supervised_contrastive_loss":
        fn = functools.partial(supervised, torch.arange(count) % 700)
    x, y, t = normal(count, 16), normal(count, 16, seed=1), torch.tensor(0.75)
    gradients(fn, x, y, t)  # warms up
    ctypes.CDLL(None).malloc_trim(0)
    before = memory.reset_peak()
    gradients(fn, x, y, t)
    # half of the scores: a large process may keep some of the memory of tiles that are gone
    assert memory.resident_peak() - before < 134e6


def supervised(labels: Tensor, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return M.supervised_contrastive_loss(x, labels, t)


def test_autocast_and_halves() -> None:
    """Scores are float32 for halves: what is lost is the rounding of the features alone."""
    x, y = normal(50, 16, dtype=torch.bfloat16), normal(50, 16, seed=1, dtype=torch.bfloat16)
    wide = M.clip_loss(x.double(), y.double(), 4.0)
    with torch.autocast("cpu", torch.bfloat16):
        within = M.clip_loss(x.float(), y.float(), 4.0)
    for value in (M.clip_loss(x, y, 4.0), within):
        assert value.dtype is torch.float32
        assert abs(value.double() / wide - 1) < 16 * EPS


def test_modules_hold_their_temperature() -> None:
    x, y = normal(5, 4), normal(5, 4, seed=1)
    learned = manual_grad.InfoNCELoss(torch.nn.Parameter(torch.tensor(0.5)))
    assert [name for name, _ in learned.named_parameters()] == ["temperature"]
    learned(x, y).backward()
    assert learned.temperature.grad is not None
    fixed = manual_grad.NTXentLoss(torch.tensor(0.5))
    assert not list(fixed.parameters()) and list(fixed.state_dict()) == ["temperature"]
    assert repr(fixed) == "NTXentLoss(temperature=0.5, reduction='mean')"


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_group_of_one_process() -> None:
    x, y, t = normal(6, 4), normal(6, 4, seed=1), torch.tensor(0.5)
    for group in (dist.group.WORLD, init_device_mesh("cpu", (1,))):
        here = gradients(lambda x, y, t, group=group: M.clip_loss(x, y, t, group=group), x, y, t)
        torch.testing.assert_close(here, gradients(M.clip_loss, x, y, t))
    with pytest.raises(ValueError, match="one dimension, but got a mesh of 2"):
        M.clip_loss(x, y, t, group=init_device_mesh("cpu", (1, 1)))


@every_loss
def test_forward_mode_meets_reverse_mode(name: str) -> None:
    _, fn = LOSSES[name]
    given = tuple(u.double() for u in (normal(1300, 3), normal(1300, 3, seed=1), torch.tensor(0.75)))
    along = tuple(torch.ones_like(u) for u in given)
    with kernels.switched(True):
        _, slope = torch.func.jvp(fn, given, along)
    expected = sum(d.sum() for d in gradients(fn, *given)[1:] if d is not None)
    torch.testing.assert_close(slope, expected)
