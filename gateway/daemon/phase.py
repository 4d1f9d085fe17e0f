"""The phases of the parent's life."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """How far the parent has come."""

    STARTING = 0
    RUNNING = 1
    STOPPING = 2
