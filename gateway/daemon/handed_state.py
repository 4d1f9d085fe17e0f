"""
What the worker that follows another has to know at once, as JSON.

    cooldowns    of accounts
    memory       which account knows a session, or has made a response or reasoning
    used         budgets, and the requests of the last minute
    positions    that are reserved in the queue
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.admission.overlap import OverlapRegistry
from gateway.daemon.wiring import Components


def dump_state(components: Components) -> dict[str, Any]:
    """The state of *components*, which another worker goes on with from here."""
    state: dict[str, Any] = {
        "cooldowns": components.accounts.status.dump(),
        "memory": components.accounts.dump_memory(),
        "used": components.budget_guard.dump_use(),
    }
    if isinstance(components.registry, OverlapRegistry):
        state["positions"] = components.registry.dump_positions()
    components.upkeep.followed = True
    return state


def load_state(components: Components, state: Mapping[str, Any]) -> None:
    """Take over what ``dump_state`` of another worker gave."""
    components.accounts.status.load(state["cooldowns"])
    components.accounts.load_memory(state["memory"])
    components.budget_guard.load_use(state["used"])
    if isinstance(components.registry, OverlapRegistry) and "positions" in state:
        components.registry.load_positions(state["positions"])
