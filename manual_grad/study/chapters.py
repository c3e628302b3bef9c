"""The chapters of the losses: the docstrings of their files."""

from __future__ import annotations

from gradcheck.chapter import Chapter, read
from manual_grad.catalogue import BY_NAME


def chapter(loss: str) -> Chapter:
    """The chapter of one of manual_grad's losses, by name."""
    return read(BY_NAME[loss].module.__doc__ or "")
