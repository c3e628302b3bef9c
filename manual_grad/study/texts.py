"""The texts for study beside the chapters: a lesson for each loss, and the guides."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
LESSONS, GUIDES = HERE / "lessons", HERE / "guides"


def lesson(loss: str) -> str:
    """The lesson of a loss, in reStructuredText: an example by hand, its neighbours, its uses, exercises."""
    path = LESSONS / f"{loss}.rst"
    return path.read_text(encoding="utf-8") if path.exists() else ""
