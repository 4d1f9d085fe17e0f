"""What the next process starts with: the states of accounts, the use of budgets."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, select

from gateway.ledger.day_sum import DaySum
from gateway.ledger.ledger import Ledger
from gateway.ledger.report import day_sums
from gateway.ledger.statement import moment
from gateway.ledger.tables import account_state
from gateway.ledger.writer import RowWrite

BUDGET_DAYS = 31  # the longest budget is a month


class SavedState:
    """
    Args:
        ledger: open; what is written here goes through its one writer.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._upsert_account = ledger.database.upsert(account_state)
        self._written: set[str] = set()

    # --- accounts ------------------------------------------------------------------

    def save_accounts(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the states of accounts; each row names its ``account``."""
        states: dict[str, list[dict[str, Any]]] = {name: [] for name in self._written}
        for row in rows:
            states.setdefault(str(row["account"]), []).append(row)
        now = moment(datetime.now(UTC).timestamp())
        self._ledger.write_soon(
            RowWrite(
                self._upsert_account, name, (name, orjson.dumps(state).decode(), now)
            )
            for name, state in states.items()
        )
        self._written = {name for name, state in states.items() if state}

    async def accounts(self) -> list[dict[str, Any]]:
        """The rows that ``save_accounts`` wrote last."""
        states = await self._ledger.read(_account_states)
        self._written = set(states)
        return [row for state in states.values() for row in state]

    # --- budgets ---------------------------------------------------------------------

    async def day_sums(self) -> list[DaySum]:
        """What every user has used on each day that a budget counts."""
        since = datetime.now(UTC) - timedelta(days=BUDGET_DAYS + 1)
        return await self._ledger.read(lambda connection: day_sums(connection, since))


def _account_states(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    rows = connection.execute(select(account_state.c.account, account_state.c.state))
    return {account: orjson.loads(state) for account, state in rows}
