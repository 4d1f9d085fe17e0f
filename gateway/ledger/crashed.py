"""Closes what processes have left open that live no more."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select, update

from gateway.ledger.presence import Presence
from gateway.ledger.tables import attempt, request

_IS_OPEN = request.c.outcome == "open"


def close_crashed(connection: Connection, presence: Presence) -> int:
    """Close the rows of every process that has ended; returns how many."""
    found = select(request.c.node).where(_IS_OPEN).distinct()
    nodes = presence.dead(list(connection.scalars(found)), connection)
    return sum(close_rows_of(connection, node) for node in nodes)


def close_rows_of(connection: Connection, node: str) -> int:
    """
    Close the requests that *node*, which lives no more, has left open; returns how
    many. Twice is the same as once.
    """
    theirs: list[ColumnElement[bool]] = [_IS_OPEN, request.c.node == node]
    connection.execute(
        update(attempt)
        .where(attempt.c.ended_at.is_(None), attempt.c.error_code == "")
        .where(attempt.c.request_id == request.c.request_id)
        .where(attempt.c.request_started_at == request.c.started_at)
        .where(*theirs)
        .values(error_code="crashed")
    )
    closed = connection.execute(
        update(request)
        .where(*theirs)
        .values(outcome="failed", origin="gateway", error_code="crashed")
    )
    return closed.rowcount
