"""Saved tensors: freed as early as possible, passed through hooks, and never used after a modification."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from gradcheck.checks.again import again
from gradcheck.spec import Case, Settings
from manual_grad import specs

every_loss = pytest.mark.parametrize("name", specs.NAMES)
# 'none' computes the gradient in backward, 'mean' in forward
every_reduction = pytest.mark.parametrize("reduction", ["none", "mean"])

pytestmark = pytest.mark.usefixtures("route")


def case(name: str, reduction: str) -> Case:
    spec = specs.load(name)
    return spec.case(Settings(), params={**spec.params[0], "reduction": reduction}, dtype=torch.float32)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disable the garbage collector, so that objects are freed only by reference counting."""
    gc.disable()
    yield
    gc.enable()


def passing(this: Case, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensor arguments that are results of operations, so that only the graph of the loss can hold them."""
    return {k: leaves[k] * 1 if k in leaves else t.clone() for k, t in this.tensors.items()}


@every_loss
@every_reduction
def test_nothing_is_held_after_backward(name: str, reduction: str, no_collector: None) -> None:
    this = case(name, reduction)
    tensors = passing(this, this.leaves())
    held = {k: weakref.ref(t) for k, t in tensors.items()}
    loss = this.call(**tensors)
    del tensors
    if name != "nt_xent_loss":  # which holds a copy of both views
        assert any(held[k]() is not None for k in held)  # a graph that holds nothing would prove nothing
    loss.backward(torch.ones_like(loss))
    assert not [k for k in held if held[k]() is not None]


@every_loss
@every_reduction
def test_nothing_outlives_the_loss(name: str, reduction: str, no_collector: None) -> None:
    this = case(name, reduction)
    tensors = passing(this, this.leaves())
    loss = this.call(**tensors)
    held = [weakref.ref(t) for t in (*tensors.values(), loss)]
    del tensors, loss
    assert not [r for r in held if r() is not None]


@every_loss
@every_reduction
def test_a_gradient_is_held_by_nobody_else(name: str, reduction: str, no_collector: None) -> None:
    """A gradient computed in forward is freed after backward has returned it."""
    this = case(name, reduction)
    leaves = this.leaves()
    loss = this.call(**leaves)
    for _ in range(2):
        gradients = torch.autograd.grad(loss, list(leaves.values()), torch.ones_like(loss), retain_graph=True)
        held = [weakref.ref(d) for d in gradients]
        del gradients
        assert not [r for r in held if r() is not None]


def through(context: Callable[[], object]) -> Callable[[Case, dict[str, Tensor]], Tensor]:
    def call(this: Case, leaves: dict[str, Tensor]) -> Tensor:
        with context():  # type: ignore[attr-defined]
            return this.call(**leaves)

    return call


def checkpointed(use_reentrant: bool) -> Callable[[Case, dict[str, Tensor]], Tensor]:
    def call(this: Case, leaves: dict[str, Tensor]) -> Tensor:
        function = this.function()
        # after another operation, as in a model: the loss is recomputed from recomputed inputs
        return checkpoint(
            lambda *tensors: function(*(t * 1 for t in tensors)), *leaves.values(), use_reentrant=use_reentrant
        )

    return call


WAYS = {
    "save_on_cpu": through(save_on_cpu),
    "copies": through(lambda: saved_tensors_hooks(torch.clone, torch.clone)),
    "numbers": through(lambda: saved_tensors_hooks(lambda t: (t.tolist(), t), lambda p: p[1].new_tensor(p[0]))),
    "checkpoint": checkpointed(False),
    "reentrant checkpoint": checkpointed(True),
}


@every_loss
@every_reduction
@pytest.mark.parametrize("way", WAYS)
def test_saved_tensors_may_go_through_hooks(name: str, reduction: str, way: str) -> None:
    this = case(name, reduction)
    value = this.call()
    g = torch.full_like(value, 2)  # an exact factor, so it does not matter when the gradient is rounded
    _, expected = this.differentiate(g=g)
    leaves = this.leaves()
    loss = WAYS[way](this, leaves)
    loss.backward(g)
    assert again("value", loss, value, this).ok
    for k, leaf in leaves.items():
        assert again(k, leaf.grad, expected[k], this).ok


@every_loss
@every_reduction
def test_a_tensor_changed_before_backward(name: str, reduction: str) -> None:
    """Raise as torch does, or return the gradient of the original value if it has already been computed."""
    this = case(name, reduction)
    for changed in this.tensors:
        leaves = this.leaves()
        tensors = passing(this, leaves)
        loss = this.call(**tensors)
        g = torch.ones_like(loss)
        with torch.no_grad():
            tensors[changed].zero_()
        try:
            gradients = torch.autograd.grad(loss, list(leaves.values()), g, allow_unused=True)
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
        else:
            for d, wanted in zip(gradients, this.differentiate(g=g)[1].values(), strict=True):
                assert again("", d, wanted, this).ok
