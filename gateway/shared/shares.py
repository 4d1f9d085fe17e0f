"""
How many slots a node may use that has lost the engine.

At first each node keeps what it held, and gets an equal part of what was free, so that
all together have no more than the limit. It is computed from the last beat, which all
nodes had within the same second. A node that held nothing then may have nothing, so in
a long outage each has an equal part of the limit instead: only what still runs beyond
it can exceed the limit, until it ends.
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
    part = equal_part(max(0, limit - last.used), nodes, rank)
    return max(held, min(limit, last.held + part))


def equal_part(limit: int, nodes: int, rank: int) -> int:
    """The part of *limit* slots that is this node's; all parts together are *limit*."""
    nodes = max(1, nodes)
    return limit // nodes + (rank < limit % nodes)
