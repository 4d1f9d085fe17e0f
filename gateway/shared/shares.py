"""
How many slots a node may use that has lost the engine.

Each node keeps what it holds, and has what the engine had set aside for it before: all
together have no more than the limit. A node that held nothing while others held all may
have nothing then, so in a long outage each has an equal part of the limit instead. It
comes in two steps: first no node has more than its part, and later each has all of it.
What has run since before the first step is all that can exceed the limit, until it
ends; it is shown.
"""

from __future__ import annotations


def share_of(limit: int, held: int, spare: int | None, nodes: int, rank: int) -> int:
    """
    The slots of a gate that this node may use; 0 = none at all.

    Args:
        limit: of the gate; at least 1.
        held: slots of this node now.
        spare: those set aside for it; None for a gate of which the engine has said
            nothing: no other node has used it.
        nodes: that lived at the last beat; *rank*: the node's number among them.
    """
    if spare is None:
        return max(held, equal_part(limit, nodes, rank))
    return max(held, min(limit, held + spare))


def equal_part(limit: int, nodes: int, rank: int) -> int:
    """The part of *limit* slots that is this node's; all parts together are *limit*."""
    nodes = max(1, nodes)
    return limit // nodes + (rank < limit % nodes)
