"""
structlog, without what it would draw tracebacks with.

Where rich is installed, structlog imports it: 4 MB and a sixteenth of a start, for
tracebacks that the gateway renders itself. rich is for the commands; it stays
importable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RICH = "rich"


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """For the duration of the block the module *name* cannot be imported."""
    modules: dict[str, Any] = sys.modules
    if name in modules:
        yield
        return
    modules[name] = None
    try:
        yield
    finally:
        del modules[name]


with _hidden(RICH):
    import structlog
    from structlog.typing import EventDict, Processor

__all__ = ["EventDict", "Processor", "structlog"]
