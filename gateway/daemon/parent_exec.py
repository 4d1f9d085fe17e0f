"""
The exec: another program takes over in the same process, with its descriptors.

Signals that come between the two wait; none of them ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.daemon import parent_state
from gateway.daemon.worker_handle import WorkerHandle, own_program

if TYPE_CHECKING:
    from gateway.daemon.parent import Parent


def dump(parent: Parent) -> parent_state.ParentState:
    """What the next program has to know, but for the restart that is under way."""
    return {
        "format": parent_state.FORMAT,
        "settings": parent.settings,
        "listeners": parent.listeners.dump(),
        "workers": [one.dump() for one in parent.pool.workers],
        "inherited": list(parent.inherited),
        "buried": parent.buried,
        "retired": parent.counters.retired,
        "config_number": parent.config_number,
        "started_at": parent.questions.started_at,
        "lines_lost": parent.log.lines_lost,
        "engine": parent.engine.dump(),
    }


def go_on(parent: Parent, state: parent_state.ParentState) -> None:
    """Let *parent* go on where the program before it was."""
    parent.pool.adopt(WorkerHandle.load(one) for one in state["workers"])
    if "engine" in state:
        parent.engine.load(state["engine"])
    parent.buried = state.get("buried", [])
    parent.counters.retired = state.get("retired", {})
    parent.changed(state["settings"])
    parent.config_number = state.get("config_number", 0)
    parent.questions.started_at = state.get("started_at", parent.questions.started_at)
    parent.restart.go_on(state["restart"])


def execute(parent: Parent, state: parent_state.ParentState) -> None:
    """
    Execute the code on disk instead of this one; returns only by an exception.

    Raises:
        OSError: it cannot be executed; nothing has changed.
    """
    program = own_program()
    words = [*program, "serve", "--config", str(parent.path)]
    kept = [
        *(one["fd"] for one in state["listeners"]),
        *(one["fd"] for one in state["workers"]),
        *state["inherited"],
        *parent.engine.kept_fds,
    ]
    parent.log.settle()
    for worker in parent.pool.workers:
        worker.channel.flush()
    state_fd = parent_state.write(state)
    parent.pool.hold_signals()
    try:
        _let_inherit(kept, True)
        environment = {**os.environ, parent_state.VARIABLE: str(state_fd)}
        os.execve(program[0], words, environment)
    finally:  # it was not executed
        _let_inherit(kept, False)
        os.close(state_fd)
        parent.pool.let_signals()


def _let_inherit(fds: Iterable[int], allowed: bool) -> None:
    for fd in fds:
        os.set_inheritable(fd, allowed)
