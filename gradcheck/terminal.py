"""What a terminal can show."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console | None:
    """rich's console, where rich is installed and a person is looking; None means plain text."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(width=width, highlight=False)


def columns() -> int:
    """The width of a text: that of the terminal, but no more than is easily read."""
    return min(shutil.get_terminal_size().columns, 80)
