"""The specs that gradcheck audits: one per loss, in a file that mirrors the loss's own."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from types import ModuleType

from gradcheck.spec import Kernels, Spec
from manual_grad import catalogue, kernels

NAMES = tuple(sorted(catalogue.BY_NAME))


KERNELS = Kernels(kernels.loaded, kernels.switched, lambda: kernels.interpreting)


def module(name: str) -> ModuleType:
    """The module of a loss's spec, which also defines how the loss is drawn (``CURVE``)."""
    return importlib.import_module(f"{__name__}.{catalogue.BY_NAME[name].family}.{name}")


@functools.cache
def load(name: str) -> Spec:
    """The ``SPEC`` of its module, completed from the catalogue: family; peer and Modules unless it has its own."""
    spec, loss = module(name).SPEC, catalogue.BY_NAME[name]
    modules = spec.modules or tuple(getattr(loss.module, name) for name in loss.modules)
    return dataclasses.replace(spec, family=loss.family, peer=spec.peer or loss.peer, kernels=KERNELS, modules=modules)


def find(text: str) -> str:
    return catalogue.find(text).name


def environment() -> dict[str, str]:
    rows = (line.split("  ", 1) for line in kernels.show_config().splitlines())
    return {name.strip(): value.strip() for name, value in rows}
