"""What gradcheck audits: one spec for each loss, in a file that mirrors the loss' own."""

from __future__ import annotations

import dataclasses
import functools
import importlib

from gradcheck.spec import Kernels, Spec
from manual_grad import catalogue, kernels

NAMES = tuple(sorted(catalogue.BY_NAME))


KERNELS = Kernels(kernels.loaded, kernels.switched, lambda: kernels.interpreting)


@functools.cache
def load(name: str) -> Spec:
    """The ``SPEC`` of its file, and what the catalogue says: its family, and its peer unless the file has another."""
    loss = catalogue.BY_NAME[name]
    spec = importlib.import_module(f"{__name__}.{loss.family}.{name}").SPEC
    return dataclasses.replace(spec, family=loss.family, peer=spec.peer or loss.peer, kernels=KERNELS)


def find(text: str) -> str:
    return catalogue.find(text).name


def environment() -> dict[str, str]:
    rows = (line.split("  ", 1) for line in kernels.show_config().splitlines())
    return {name.strip(): value.strip() for name, value in rows}
