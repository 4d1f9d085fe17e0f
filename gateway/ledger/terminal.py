"""What the standard output of a command can show, and drawings printed to it."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console
from rich.text import Text

from gateway.ledger.bars import EIGHTHS
from gateway.ledger.usage_plot import FILLS, PlotLook

WIDTH = 80  # of what is no terminal, without COLUMNS
MIN_WIDTH = 40
MAX_WIDTH = 160  # longer bars say no more


def look() -> PlotLook:
    """How wide a drawing may be, and of which characters."""
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    return PlotLook(max(MIN_WIDTH, min(width, MAX_WIDTH)), not _has_blocks())


def print_drawing(drawing: Text) -> None:
    """Print *drawing*, with colours on a terminal alone; its lines are not folded."""
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        print(drawing.plain)
        return
    console.print(drawing, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)


def _has_blocks() -> bool:
    try:
        (EIGHTHS + FILLS).encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
