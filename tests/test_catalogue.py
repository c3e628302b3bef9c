"""Files, classes, specs and Modules agree with the catalogue of losses."""

from __future__ import annotations

import importlib
import inspect

import pytest

import manual_grad
from gradcheck.families import FAMILIES
from manual_grad import catalogue, specs
from manual_grad.catalogue import BY_NAME, LOSSES, Loss
from manual_grad.engine.function import LossFunction

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)


def test_families_are_those_of_gradcheck() -> None:
    assert set(catalogue.FAMILIES) == set(FAMILIES) == {loss.family for loss in LOSSES}


def test_every_file_is_of_a_loss() -> None:
    for folder in ("losses", "specs"):
        root = BY_NAME["mse_loss"].file.parents[2] / folder
        found = {(path.parent.name, path.stem) for path in root.glob("*/*.py") if path.stem != "__init__"}
        assert found == {(loss.family, loss.name) for loss in LOSSES}


@every_loss
def test_the_class_is_of_the_family(loss: Loss) -> None:
    """The family of a loss: the name of the engine file that its base class comes from."""
    own = [v for v in vars(loss.module).values() if inspect.isclass(v) and v.__module__ == loss.path]
    functions = [v for v in own if issubclass(v, LossFunction)]
    for function in functions:
        engine = importlib.import_module(f"manual_grad.engine.{loss.family}")
        assert any(base.__module__ == engine.__name__ for base in function.__mro__[1:]), function
        assert next(b.__module__ for b in function.__mro__[1:]).endswith(f".{loss.family}")
    assert functions or not loss.functional  # composed of others


@every_loss
def test_the_spec_is_of_the_family_and_beside_torch(loss: Loss) -> None:
    spec = specs.load(loss.name)
    assert (spec.name, spec.family) == (loss.name, loss.family)
    assert spec.fn.__name__ == loss.name or not loss.functional
    assert (spec.peer is not None) == loss.torch


@every_loss
def test_modules_and_functional(loss: Loss) -> None:
    assert all(getattr(manual_grad, name).__module__ == loss.path for name in loss.modules)
    assert hasattr(manual_grad.functional, loss.name) == loss.functional


@every_loss
def test_find(loss: Loss) -> None:
    assert catalogue.find(loss.name) is loss
    assert all(catalogue.find(name) is loss for name in loss.modules)
