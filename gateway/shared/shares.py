"""
How many slots a node may use that has lost the engine.

Each node keeps what it held, and gets an equal part of what was free, so that all
together have no more than the limit. It is computed from the last beat, which all nodes
had within the same second.
"""

from __future__ import annotations

from typing import NamedTuple


class LastBeat(NamedTuple):
    """
    What a node knows of a gate from its last beat.

    Attributes:
        used: slots in use by all nodes.
        held: those of this node.
    """

    used: int
    held: int


def share_of(
    limit: int, held: int, last: LastBeat | None, nodes: int, rank: int
) -> int:
    """
    The slots of a gate that this node may use; 0 = none at all.

    Args:
        limit: of the gate; at least 1.
        held: slots of this node now.
        last: None for a gate that the beat did not ask about: it was free.
        nodes: that lived at the last beat; *rank*: the node's number among them.
    """
    if last is None:
        last = LastBeat(0, 0)
    free, nodes = max(0, limit - last.used), max(1, nodes)
    part = free // nodes + (rank < free % nodes)
    return max(held, min(limit, last.held + part))
