"""
An exception as text: where it was raised, and its message, redacted.

Frames show lines of code, never values. A message may quote anything, so each goes
through *clean*; notes are not shown.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

MAX_EXCEPTIONS = 8  # of a chain, groups included
MAX_FRAMES = 40  # of each; the innermost
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def traceback_text(error: BaseException, clean: Callable[[str], str]) -> str:
    """*error* and what led to it, the innermost last, as Python writes it."""
    parts: list[str] = []
    for one, link in reversed(list(_chain(error))):
        parts.append(_one(one, clean))
        if link:
            parts.append(link)
    return "\n\n".join(parts)


def _chain(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """*error*, then what led to it; each with the sentence that introduces it."""
    seen: set[int] = set()
    link = ""
    pending: list[tuple[BaseException, str]] = [(error, link)]
    while pending and len(seen) < MAX_EXCEPTIONS:
        one, link = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one, link
        if isinstance(one, BaseExceptionGroup):
            pending += [(part, "In a group:") for part in one.exceptions]
        if one.__cause__ is not None:
            pending.append((one.__cause__, _CAUSE))
        elif one.__context__ is not None and not one.__suppress_context__:
            pending.append((one.__context__, _CONTEXT))


def _one(error: BaseException, clean: Callable[[str], str]) -> str:
    frames = traceback.extract_tb(error.__traceback__, limit=-MAX_FRAMES)
    head = "Traceback (most recent call last):\n" if frames else ""
    try:
        message = str(error)
    except Exception:  # its own __str__ fails
        message = ""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    lines = "".join(traceback.format_list(frames))
    return f"{head}{lines}{name}" + (f": {clean(message)}" if message else "")
