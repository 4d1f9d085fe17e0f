"""How long the ledger keeps which rows; old ones are removed a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Column, Connection, Table, delete, select, tuple_

from gateway.config import schema as config
from gateway.ledger import response_rows
from gateway.ledger.tables import attempt, request, timeline

STEP = 200
"""Rows removed by one transaction: small enough that no ending waits for it."""

Rule = Callable[[Connection, datetime], bool]
"""Removes some rows that are too old at a time; whether there may be more."""


class Retention:
    """
    The rules, applied in rotation: one that always finds more does not starve the
    others. 0 days: kept for ever.
    """

    def __init__(
        self,
        rules: config.LedgerSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._next = 0
        self._done = 0  # rules in a row that found no more
        self.replace(rules)

    def replace(self, rules: config.LedgerSettings) -> None:
        """Apply changed rules; ``purge`` may run in another thread meanwhile."""
        days = rules.retention_days
        aged: list[tuple[Table, Column[datetime], int]] = [
            (timeline, timeline.c.started_at, rules.trace_retention_days or days),
            (timeline, timeline.c.started_at, days),
            (attempt, attempt.c.request_started_at, days),
            (request, request.c.started_at, days),
        ]
        self._rules: list[Rule] = [
            *(
                partial(_aged, table, column, timedelta(days=days))
                for table, column, days in aged
                if days
            ),
            _turns,
        ]

    def purge(self, connection: Connection) -> bool:
        """Apply the next rule; whether it, or another since, may find more."""
        rules = self._rules
        more = rules[self._next % len(rules)](connection, self._now())
        self._next += 1
        self._done = 0 if more else self._done + 1
        if self._done < len(rules):
            return True
        self._done = 0
        return False


def _aged(
    table: Table,
    column: Column[datetime],
    age: timedelta,
    connection: Connection,
    now: datetime,
) -> bool:
    key = tuple_(*table.primary_key)
    some = select(*table.primary_key).where(column < now - age).limit(STEP)
    return connection.execute(delete(table).where(key.in_(some))).rowcount >= STEP


def _turns(connection: Connection, now: datetime) -> bool:
    return response_rows.purge(connection, now, STEP) >= STEP
