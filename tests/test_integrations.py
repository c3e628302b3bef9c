"""manual_grad.patch() of programs that bring losses of their own: the mechanism, with modules that stand in."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import manual_grad
from manual_grad import integrations
from manual_grad.integrations import Program

HOME = '''
import torch

def scaled(x, factor=2.0, *, where="here"):
    """Theirs."""
    return x * factor

class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor=2.0):
        return x * factor

    @staticmethod
    def backward(ctx, g):
        return g, None

TABLE = {"scaled": scaled, "other": len}
'''


def ours_scaled(theirs: Any, x: Tensor, factor: float = 2.0, *, where: str = "here") -> Tensor:
    return theirs(x, factor, where=where) if where == "there" else x * -factor


def ours_scale(theirs: Any, x: Tensor, factor: float = 2.0) -> Tensor:
    return theirs(x, factor) if factor == 0 else x * -factor


PROGRAM = Program("stand_in", ("1.5", "2"), {"stand_in.home.scaled": ours_scaled, "stand_in.home.Scale": ours_scale})
USERS = ("stand_in.trainer", "users_own")  # modules that import the names


def load(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(source, vars(module))
    return module


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A program with the losses of ``HOME``, known to patch()."""
    package = load("stand_in", "__version__ = '1.7.2.dev0'\n__path__ = []", monkeypatch)
    package.home = load("stand_in.home", HOME, monkeypatch)
    monkeypatch.setattr(integrations, "PROGRAMS", ("stand_in",))
    monkeypatch.setattr(integrations, "load", lambda name: PROGRAM)
    yield package.home


def user(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    return load(name, "from stand_in.home import scaled as renamed, Scale, TABLE", monkeypatch)


def is_ours(module: Any) -> list[bool]:
    x = torch.ones(())
    function = getattr(module, "renamed", None) or module.scaled
    return [(call(x) < 0).item() for call in (function, module.Scale.apply, module.TABLE["scaled"])]


@pytest.mark.parametrize("name", USERS)
def test_every_name_is_replaced_and_restored(name: str, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = user(name, monkeypatch)
    originals = dict(vars(before)), dict(vars(stand_in)), dict(stand_in.TABLE)
    with manual_grad.patch("stand_in"):
        later = user(f"{name}_later", monkeypatch)
        for module in (stand_in, before, later):
            assert is_ours(module) == [True] * 3
        assert stand_in.TABLE["other"] is len
    for module in (stand_in, before, later):
        assert is_ours(module) == [False] * 3
    assert (vars(before), vars(stand_in), stand_in.TABLE) == originals


def test_patches_overlap(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = manual_grad.patch("stand_in"), manual_grad.patch("stand_in", "mse_loss")
    later = user("users_own", monkeypatch)
    first.undo()
    first.undo()
    assert is_ours(stand_in) == is_ours(later) == [True] * 3
    assert torch.nn.functional.mse_loss is manual_grad.functional.mse_loss
    second.undo()
    assert is_ours(stand_in) == is_ours(later) == [False] * 3
    assert torch.nn.functional.mse_loss is not manual_grad.functional.mse_loss


def test_undone_by_an_exception(stand_in: Any) -> None:
    with pytest.raises(ZeroDivisionError), manual_grad.patch("stand_in"):
        raise ZeroDivisionError
    assert is_ours(stand_in) == [False] * 3


def test_what_others_put_there(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    another, imported = (lambda x: x), user("users_own", monkeypatch)
    with manual_grad.patch("stand_in"):
        stand_in.scaled = another
    assert stand_in.scaled is another
    assert is_ours(imported) == [False] * 3


def test_without_names_no_program_is_touched(stand_in: Any) -> None:
    with manual_grad.patch():
        assert is_ours(stand_in) == [False] * 3


def test_ours_can_leave_it_to_theirs(stand_in: Any) -> None:
    x = torch.ones(())
    with manual_grad.patch("stand_in"):
        assert stand_in.scaled(x, 3.0, where="there") == 3
        assert stand_in.Scale.apply(x.requires_grad_(), 0).grad_fn.name() == "ScaleBackward"


def test_ours_look_like_theirs(stand_in: Any) -> None:
    theirs = stand_in.Scale
    with manual_grad.patch("stand_in"):
        assert (stand_in.scaled.__name__, stand_in.scaled.__doc__) == ("scaled", "Theirs.")
        assert issubclass(stand_in.Scale, theirs) and stand_in.Scale.__name__ == "Scale"
        assert pickle.loads(pickle.dumps(stand_in.scaled)) is stand_in.scaled
        assert pickle.loads(pickle.dumps(stand_in.Scale)) is stand_in.Scale


@pytest.mark.parametrize("version", ["1.4.9", "0.9", "2.0.0.dev0", "2.1", "11.6"])
def test_other_versions_are_refused(version: str, stand_in: Any) -> None:
    sys.modules["stand_in"].__version__ = version
    message = rf"patch\('stand_in'\) supports stand_in from 1.5 to below 2, and this is {version}"
    with pytest.raises(RuntimeError, match=message):
        manual_grad.patch("mse_loss", "stand_in")
    assert is_ours(stand_in) == [False] * 3
    assert torch.nn.functional.mse_loss is not manual_grad.functional.mse_loss


@pytest.mark.parametrize("version", ["1.5", "1.5.0", "1.99.1"])
def test_supported_versions(version: str, stand_in: Any) -> None:
    sys.modules["stand_in"].__version__ = version
    with manual_grad.patch("stand_in"):
        assert is_ours(stand_in) == [True] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("del scaled", "its stand_in.home.scaled is not there"),
        ("del Scale", "its stand_in.home.Scale is not there"),
        ("def scaled(x, factor=2.0): ...", r"its .*scaled takes \(x, factor=2.0\), not \(.*, \*, where='here'\)"),
        ("def scaled(x, factor=2.0, where='here'): ...", r"its .*scaled takes \(x, factor=2.0, where='here'\)"),
        ("def scaled(x, factor=1.0, *, where='here'): ...", r"its .*scaled takes \(x, factor=1.0, "),
        ("Scale.forward = lambda ctx, y, factor=2.0: y", r"its .*Scale takes \(y, factor=2.0\), not \(x, factor=2.0\)"),
    ],
)
def test_a_loss_that_has_moved_or_changed_is_refused(change: str, message: str, stand_in: Any) -> None:
    exec(change, vars(stand_in))
    left = dict(vars(stand_in))
    with pytest.raises(RuntimeError, match=rf"patch\('stand_in'\) does not know stand_in 1.7.2.dev0: {message}"):
        manual_grad.patch("stand_in")
    assert vars(stand_in) == left


def test_a_module_that_has_moved_is_refused(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stand_in.home")
    with pytest.raises(RuntimeError, match=r"does not know stand_in 1.7.2.dev0: its stand_in.home.scaled is not there"):
        manual_grad.patch("stand_in")


def test_a_program_that_is_not_installed(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stand_in")
    with pytest.raises(ImportError, match=r"patch\('stand_in'\) needs stand_in, which is not installed"):
        manual_grad.patch("stand_in")


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"no loss named 'transformer' to be patched; .*, transformers, trl"):
        manual_grad.patch("transformer")


@pytest.mark.parametrize("name", integrations.PROGRAMS)
def test_every_program_is_stated(name: str) -> None:
    program = integrations.load(name)
    assert program.name == name
    assert all(path.startswith(f"{name}.") for path in program.losses)
