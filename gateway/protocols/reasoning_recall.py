"""
Reasoning and what only its maker can use, put back where they belong in a request.

Rule 1: what is bound to a server goes to that server alone.
Rule 2: what the gateway kept for the client, which could not keep it, replaces the
        bare text that the client has of the same turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.protocols.call_ids import wide
from gateway.protocols.model import (
    Item,
    Message,
    Reasoning,
    Request,
    ToolCall,
    ToolResult,
)

Recall = Callable[[str], Sequence[Reasoning]]
"""Gives the reasoning that led to the call of an id; nothing if it is not known."""


def returned(request: Request, maker: str, recall: Recall | None = None) -> None:
    """
    Put what was kept of each call before it, and what is bound to *maker* to the calls
    that it is of; what is bound to others is dropped.
    """
    if recall is not None:
        _recalled(request, recall)
    _bound(request, maker)


def _recalled(request: Request, recall: Recall) -> None:
    """Put what was kept of each call before it."""
    items: list[Item] = []
    begun = 0  # where the assistant's turn begins in items
    for item in request.items:
        if isinstance(item, ToolResult) or (
            isinstance(item, Message) and item.role != "assistant"
        ):
            items.append(item)
            begun = len(items)
            continue
        if isinstance(item, ToolCall) and (kept := recall(item.call_id)):
            items[begun:] = [one for one in items[begun:] if not _bare(one)]
            items += kept
        items.append(item)
    request.items = items


def _bare(item: Item) -> bool:
    """Whether *item* is reasoning that nothing proves."""
    if not isinstance(item, Reasoning):
        return False
    proof = item.signature or item.redacted or item.blob or item.opaque
    return not proof and bool(item.path)


def _bound(request: Request, maker: str) -> None:
    """Give what is bound to *maker* to the calls that it is of; drop all else."""
    items = request.items
    kept: list[Item] = []
    for position, item in enumerate(items):
        opaque = item.opaque if isinstance(item, Reasoning) else None
        if opaque is None:
            kept.append(item)
        elif not maker or opaque.maker != maker:
            request.drop(item.path)
        elif not opaque.call_id:
            kept.append(item)
        elif call := _nearest(items, position, wide(opaque.call_id)):
            call.own |= opaque.fields
    request.items = kept


def _nearest(items: list[Item], position: int, call_id: str) -> ToolCall | None:
    """The next call after *position*, else the last before it."""
    for item in (*items[position:], *reversed(items[:position])):
        if isinstance(item, ToolCall) and item.call_id == call_id:
            return item
    return None
