"""torch.jit and torch.export: the result contains torch's own losses, even in a patched program."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import manual_grad
import manual_grad.functional as M
from calls import FUNCTIONALS, SHARED, SHARED_MODULES, Scaled, constructor_arguments, example, inputs, pair

F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:DeprecationWarning", "ignore:.NLLLoss2d. has been deprecated", "ignore:reduction. 'mean' divides"
)


def reloaded(program: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    return torch.jit.load(file)


def of_tensors(name: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """An ordinary call as a function of its tensors, and the tensors; the first requires a gradient."""
    arguments = example(name)
    names = [k for k, v in arguments.items() if isinstance(v, Tensor)]
    rest = {k: v for k, v in arguments.items() if k not in names}
    tensors = [arguments[k].detach() for k in names]
    tensors[0].requires_grad_()
    return lambda *tensors: getattr(M, name)(**dict(zip(names, tensors, strict=True)), **rest), tensors


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_a_traced_loss_is_saved_and_differentiated(name: str) -> None:
    function, tensors = of_tensors(name)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", torch.jit.TracerWarning
        )  # shapes become constants, with torch's losses as with ours
        traced = reloaded(torch.jit.trace(function, tensors))
    expected = function(*tensors)
    found = traced(*tensors)
    torch.testing.assert_close(found, expected)
    if name != "ctc_loss":  # its gradient differs from torch's on purpose
        ours, theirs = (torch.autograd.grad(loss.sum(), tensors[0])[0] for loss in (expected, found))
        torch.testing.assert_close(theirs, ours)


UNEXPORTED = ("ctc_loss", "gaussian_nll_loss")  # torch's read values, which do not exist during export


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", [name for name in FUNCTIONALS if name not in UNEXPORTED])
def test_an_exported_program_is_trained(name: str, strict: bool) -> None:
    function, tensors = of_tensors(name)
    program, tensors = Scaled(function), tuple(t.detach() for t in tensors)
    exported = torch.export.export(program, tensors, strict=strict).module()
    expected, found = program(*tensors), exported(*tensors)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(v.sum(), m.scale)[0] for v, m in ((expected, program), (found, exported)))
    torch.testing.assert_close(theirs, ours)


def scripts(thing: Any) -> bool:
    try:
        torch.jit.script(thing)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", SHARED)
def test_functionals_script_where_torchs_do(name: str) -> None:
    assert scripts(getattr(M, name)) == scripts(getattr(F, name))


@pytest.fixture(params=["ours", "patched"])
def module(request: pytest.FixtureRequest) -> Iterator[Callable[[str], torch.nn.Module]]:
    """Create a Module that uses our losses: one of ours, or torch's in a patched program."""
    if request.param == "ours":
        yield lambda name: pair(name, **constructor_arguments(name, required_only=True))[0]
        return
    with manual_grad.patch():
        yield lambda name: pair(name, **constructor_arguments(name, required_only=True))[1]


# torch cannot script these
UNSCRIPTABLE = (
    "AdaptiveLogSoftmaxWithLoss",
    "GaussianNLLLoss",
    "LinearCrossEntropyLoss",
    "TripletMarginWithDistanceLoss",
)


@pytest.mark.parametrize("name", [name for name in SHARED_MODULES if name not in UNSCRIPTABLE])
def test_modules_script(name: str, module: Callable[[str], torch.nn.Module]) -> None:
    made = module(name)
    scripted = reloaded(torch.jit.script(copy.deepcopy(made)))
    torch.testing.assert_close(scripted(*inputs(name)), made(*inputs(name)))


@pytest.mark.parametrize("name", [name for name in UNSCRIPTABLE if name in SHARED_MODULES])
def test_torch_does_not_script_the_others_either(name: str) -> None:
    _, torchs = pair(name, **constructor_arguments(name, required_only=True))
    assert not scripts(torchs)


def test_a_model_with_its_loss_is_scripted_while_patched() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(self.layer(x), y, label_smoothing=0.1)

    model, x, y = Model(), torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])
    with manual_grad.patch():
        scripted = reloaded(torch.jit.script(model))
    torch.testing.assert_close(scripted(x, y), model(x, y))
