"""Output to the terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(width: int | None = None) -> Console | None:
    """A rich console, or None (plain text) if rich is not installed or the output is not a terminal."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(width=width, highlight=False)


def columns() -> int:
    """The width of text: that of the terminal, but at most 80 for readability."""
    return min(shutil.get_terminal_size().columns, 80)
