"""manual_grad.patch(): our losses in unmodified programs."""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import gradcheck
import manual_grad
import manual_grad.functional as M
from calls import SHARED, SHARED_MODULES, constructor_arguments, example, functional_of, inputs, pair
from manual_grad import specs

TORCHS = {name: getattr(F, name) for name in SHARED}


def methods() -> dict[str, dict[str, object]]:
    """The attributes of torch's Modules, except __annotations__, which Python adds to a class when they are read."""
    found = {name: dict(vars(getattr(torch.nn, name))) for name in SHARED_MODULES}
    return {name: {k: v for k, v in of.items() if k != "__annotations__"} for name, of in found.items()}


METHODS = methods()

pytestmark = pytest.mark.filterwarnings(
    "ignore:.NLLLoss2d. has been deprecated", "ignore:reduction. 'mean' divides the total loss"
)


def in_place() -> set[str]:
    return {name for name in SHARED if getattr(F, name) is not TORCHS[name]}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert not in_place()
    assert methods() == METHODS


def test_every_functional_is_put_in_place_and_taken_back() -> None:
    patch = manual_grad.patch()
    for name in SHARED:
        assert getattr(F, name) is getattr(torch.nn.modules.loss.F, name) is getattr(M, name)
    patch.undo()
    assert not in_place()
    patch.undo()  # undoing twice does nothing
    assert not in_place()


@pytest.mark.parametrize("name", SHARED_MODULES)
def test_torchs_modules_compute_with_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = constructor_arguments(name)
    ours, made_before = pair(name, **arguments)
    with manual_grad.patch():
        made_under = getattr(torch.nn, name)(**arguments)
        made_under.load_state_dict(ours.state_dict())
        for module in (made_before, made_under):
            torch.testing.assert_close(module(*inputs(name)), ours(*inputs(name)), rtol=0, atol=0, equal_nan=True)
            assert type(module) is getattr(torch.nn, name)
        if functional := functional_of(name):
            called = []
            monkeypatch.setattr(F, functional, lambda *args, **kwargs: called.append(functional))
            made_under(*inputs(name))
            assert called == [functional]
            monkeypatch.undo()
        else:
            assert type(made_under).forward is type(ours).forward
        assert isinstance(ours, getattr(torch.nn, name if name != "NLLLoss2d" else "NLLLoss"))


def test_names() -> None:
    with manual_grad.patch("huber_loss", "mse_loss"):
        assert in_place() == {"huber_loss", "mse_loss"}
    with pytest.raises(ValueError, match="no loss named 'hubris' to be patched; there are: "):
        manual_grad.patch("mse_loss", "hubris")


def test_nested() -> None:
    with manual_grad.patch("mse_loss"):
        with manual_grad.patch():
            assert in_place() == set(SHARED)
        assert in_place() == {"mse_loss"}
        with manual_grad.patch("mse_loss"):
            pass
        assert in_place() == {"mse_loss"}


def test_undone_in_any_order() -> None:
    first, second, third = manual_grad.patch("mse_loss"), manual_grad.patch(), manual_grad.patch("l1_loss")
    first.undo()
    assert in_place() == set(SHARED)
    second.undo()
    assert in_place() == {"l1_loss"}
    third.undo()
    assert not in_place()
    with manual_grad.patch() as patch:
        patch.undo()
        assert not in_place()


def test_undone_by_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), manual_grad.patch():
        raise ZeroDivisionError
    assert not in_place()


def test_what_others_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def another(*args: Any, **kwargs: Any) -> None: ...

    monkeypatch.setattr(F, "mse_loss", another)
    with manual_grad.patch():
        assert F.mse_loss is M.mse_loss
    assert F.mse_loss is another  # set before the patch

    with manual_grad.patch():
        F.huber_loss = another
    assert F.huber_loss is another  # set after the patch
    F.huber_loss = TORCHS["huber_loss"]


def test_threads() -> None:
    def work() -> None:
        for _ in range(200):
            with manual_grad.patch("mse_loss"):
                seen.add(F.mse_loss is M.mse_loss)

    seen: set[bool] = set()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {True}  # never undone while a thread is still inside


def test_pickles_are_torchs() -> None:
    with manual_grad.patch():
        model = torch.nn.ModuleDict({"loss": torch.nn.CrossEntropyLoss(weight=torch.rand(3))})
        pickled, saved = pickle.dumps(model), io.BytesIO()
        torch.save(model, saved)
    assert b"manual_grad" not in pickled
    saved.seek(0)
    for loaded in (pickle.loads(pickled), torch.load(saved, weights_only=False)):
        assert type(loaded["loss"]) is torch.nn.CrossEntropyLoss
        assert torch.equal(loaded["loss"].weight, model["loss"].weight)
    with manual_grad.patch():
        assert type(pickle.loads(pickled)["loss"]) is torch.nn.CrossEntropyLoss


@pytest.mark.parametrize("compiled_under", [False, True])
def test_compiled_programs_follow(compiled_under: bool) -> None:
    """One full graph, with the losses that are in place when it is called."""

    class Program(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = torch.nn.CrossEntropyLoss()

        def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return self.criterion(x, target) + F.huber_loss(x, x.roll(1))

    torch.compiler.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append({node.target for node in graph.graph.nodes if node.op == "call_function"})
        return graph

    program = torch.compile(Program(), backend=backend, fullgraph=True)
    x, target = torch.randn(4, 3), torch.randint(3, (4,))
    ours = {
        loss.__wrapped__ for loss in (M.cross_entropy, M.huber_loss)
    }  # without the wrapper for torch's dispatch on subclasses
    for patched in (compiled_under, not compiled_under, compiled_under):
        patch = manual_grad.patch() if patched else None
        torch.testing.assert_close(program(x, target), Program()(x, target))
        if patch:
            patch.undo()
    assert [ours <= targets for targets in graphs] == [compiled_under, not compiled_under]


@pytest.mark.parametrize("name", specs.NAMES)
def test_ours_do_not_lean_on_what_they_replace(name: str) -> None:
    checks = "definition", "second", "forward"
    with manual_grad.patch():
        report = gradcheck.audit([specs.load(name)], checks, gradcheck.Settings(quick=True))
    assert report, report


@pytest.mark.parametrize("name", SHARED)
def test_a_call_by_torchs_name_is_a_call_of_ours(name: str) -> None:
    arguments = example(name, torch.float64)
    expected = getattr(M, name)(**arguments)
    with manual_grad.patch():
        assert torch.equal(getattr(F, name)(**arguments), expected)
