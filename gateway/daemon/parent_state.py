"""
What the parent's code hands to the next one, over an ``exec`` in the same process.

JSON in a file in memory, whose descriptor stands in an environment variable. It is read
by another version of this program: what is new gets a default, what is gone is passed
over, and FORMAT grows with a change that neither can do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

VARIABLE = "GATEWAY_PARENT_STATE"
FORMAT = 1
_NEEDED = ("format", "settings", "listeners", "workers", "restart", "inherited")

ParentState = dict[str, Any]


def problem_of(state: ParentState, load: Callable[[], object]) -> str:
    """
    Why this program cannot go on with *state*; "" if it can.

    Args:
        load: loads the parent's part of the program.
    """
    try:
        load()
    except Exception as error:  # whatever stands in the code on disk
        return f"the new code of the main process cannot be loaded: {error!r}"
    if missing := [name for name in _NEEDED if name not in state]:
        return f"the running parent does not say: {', '.join(missing)}"
    if state["format"] != FORMAT:
        return (
            f"the running parent speaks another form ({state['format']}, not {FORMAT});"
            " stop and start it once"
        )
    return ""


def write(state: ParentState) -> int:
    """Write *state* into a file in memory; returns its inheritable descriptor."""
    fd = os.memfd_create("gateway-state", 0)
    data = json.dumps(state).encode()
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def take() -> ParentState | None:
    """The state that the code before has written; None at a real start."""
    number = os.environ.pop(VARIABLE, "")
    if not number.isdigit():
        return None
    with open(int(number), "rb") as file:
        state: ParentState = json.load(file)
    return state
