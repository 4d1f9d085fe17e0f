"""
Requests that have ended, newest first, a page at a time.

A page ends with a key; the next one begins behind it, so that what is written meanwhile
moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from gateway.ledger.tables import request


class PageKey(NamedTuple):
    """The last request of a page; the next page is older."""

    started_at: datetime
    request_id: str


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Empty and None: any."""

    user: str = ""
    account: str = ""
    outcome: str = ""
    since: datetime | None = None


def ended_page(
    connection: Connection, wanted: RequestFilter, limit: int, after: PageKey | None
) -> list[dict[str, Any]]:
    """
    At most *limit* rows of *wanted*, newest first.

    Args:
        after: the last row of the page before.
    """
    filters: list[ColumnElement[bool]] = [request.c.outcome != "open"]
    for name in ("user", "account", "outcome"):
        if value := getattr(wanted, name):
            filters.append(request.c[name] == value)
    if wanted.since:
        filters.append(request.c.started_at >= wanted.since)
    if after:
        at, ident = request.c.started_at, request.c.request_id
        older = or_(
            at < after.started_at,
            and_(at == after.started_at, ident < after.request_id),
        )
        # By itself SQLite does not find the beginning of the page in its key.
        filters += [at <= after.started_at, older]
    question = (
        select(request)
        .where(*filters)
        .order_by(request.c.started_at.desc(), request.c.request_id.desc())
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(question).mappings()]
