"""How often attempts failed lately, by account and code."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from gateway.errors import UPSTREAM_CODES
from gateway.ledger.tables import attempt

LONGEST = timedelta(hours=2)  # that a request runs before its last attempt begins


def failures_since(
    connection: Connection, since: datetime
) -> dict[str, dict[str, int]]:
    """The failed attempts that began after *since*: by account, by code."""
    question = (
        select(attempt.c.account, attempt.c.error_code, func.count())
        .where(
            # The key leads with it: only what can matter is read.
            attempt.c.request_started_at >= since - LONGEST,
            attempt.c.started_at >= since,
            attempt.c.error_code.in_(UPSTREAM_CODES),
        )
        .group_by(attempt.c.account, attempt.c.error_code)
    )
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for account, code, count in connection.execute(question):
        found[account][code] = count
    return dict(found)
