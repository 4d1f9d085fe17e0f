"""
Answers of the daemon as tables for people, and as JSON for scripts.

Colours are for a terminal alone; what is not a terminal gets a width that cuts nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 200  # of what is no terminal
STYLES = {
    "ready": "green",
    "running": "green",
    "ok": "green",
    "waiting": "yellow",
    "cooling": "yellow",
    "paused": "magenta",
    "failed": "red",
    "refused": "red",
}


def console() -> Console:
    """The standard output."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(
        file=sys.stdout, width=width, markup=False, emoji=False, highlight=False
    )


def print_json(answer: Any) -> None:
    """What the API answered."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()
) -> None:
    """
    Args:
        rows: texts; numbers are written as they are, None as a dash.
        right: the heads of the columns that are aligned to the right.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(
            head, justify="right" if head in right else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    console().print(table)


def _cell(value: Any) -> Text:
    text = "-" if value in (None, "") else str(value)
    return Text(text, style=STYLES.get(text, ""))


def seconds(value: float | None) -> str | None:
    """A duration for people: 0.3 s, 12 s, 3 min, 2 h."""
    if value is None:
        return None
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
