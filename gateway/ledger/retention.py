"""How long the ledger keeps what; removed a few rows at a time between the writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, Connection, Table, delete, select, tuple_

from gateway import config
from gateway.ledger.tables import attempt, request, response, timeline

STEP = 500
"""Rows removed by one transaction: small enough that no ending waits for it."""


class Retention:
    """The rules; ``purge`` applies them once. 0 days: kept for ever."""

    def __init__(
        self,
        rules: config.Ledger,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        days = rules.retention_days
        self._rules: list[tuple[Table, Column[datetime], int]] = [
            (timeline, timeline.c.started_at, rules.trace_retention_days or days),
            (timeline, timeline.c.started_at, days),
            (attempt, attempt.c.request_started_at, days),
            (request, request.c.started_at, days),
        ]

    def purge(self, connection: Connection) -> bool:
        """Remove some rows that are too old; whether there may be more."""
        now = self._now()
        steps = [
            (table, column, now - timedelta(days=days))
            for table, column, days in self._rules
            if days
        ]
        steps.append((response, response.c.expires_at, now))
        return any(_step(connection, *step) for step in steps)


def _step(
    connection: Connection, table: Table, column: Column[datetime], before: datetime
) -> bool:
    key = tuple_(*table.primary_key)
    some = select(*table.primary_key).where(column < before).limit(STEP)
    return connection.execute(delete(table).where(key.in_(some))).rowcount >= STEP
