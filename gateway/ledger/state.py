"""What the next process is to know: account states, kept responses, sums of use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, bindparam, delete, select

from gateway.budget import DaySum
from gateway.ledger.ledger import Ledger
from gateway.ledger.report import day_sums
from gateway.ledger.statement import Plain, moment
from gateway.ledger.tables import account_state, response
from gateway.ledger.writer import Write

BUDGET_DAYS = 31  # the longest budget is a month
FOR_EVER = timedelta(days=36500)


class Kept(NamedTuple):
    """A response that a later request may go on from."""

    response_id: str
    user: str
    account: str
    body: bytes


class State:
    """
    Args:
        ledger: open; what is written here goes through its one writer.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        days = ledger.rules.response_retention_days
        self._kept_for = timedelta(days=days) if days else FOR_EVER
        self._put_account = ledger.database.upsert(account_state)
        self._put_response = ledger.database.plain_upsert(response)
        self._drop_response = Plain(
            delete(response).where(
                response.c.response_id == bindparam("id"),
                response.c.user == bindparam("owner"),
            )
        )
        self._written: set[str] = set()

    # --- accounts ------------------------------------------------------------------

    def keep_accounts(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write down what was learnt of accounts; each row has its ``account``."""
        states: dict[str, list[dict[str, Any]]] = {name: [] for name in self._written}
        for row in rows:
            states.setdefault(str(row["account"]), []).append(row)
        now = moment(datetime.now(UTC).timestamp())
        self._ledger.write_soon(
            Write(self._put_account, name, (name, orjson.dumps(state).decode(), now))
            for name, state in states.items()
        )
        self._written = {name for name, state in states.items() if state}

    async def accounts(self) -> list[dict[str, Any]]:
        """What ``keep_accounts`` wrote last."""
        states = await self._ledger.read(_account_states)
        self._written = set(states)
        return [row for state in states.values() for row in state]

    # --- responses -------------------------------------------------------------------

    async def keep(self, kept: Kept) -> None:
        """
        Keep a response, durably; a second one of the same id and user replaces it.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        now = datetime.now(UTC)
        row = {
            **kept._asdict(),
            "created_at": now,
            "expires_at": now + self._kept_for,
        }
        key = kept.response_id, kept.user
        await self._ledger.write(Write(self._put_response, key, row))

    async def find(self, response_id: str, user: str) -> Kept | None:
        """The kept response of *user*; None when there is none, or none any more."""

        def ask(connection: Connection) -> Kept | None:
            row = connection.execute(
                select(*(response.c[name] for name in Kept._fields)).where(
                    response.c.response_id == response_id,
                    response.c.user == user,
                    response.c.expires_at > datetime.now(UTC),
                )
            ).one_or_none()
            return None if row is None else Kept(*row)

        return await self._ledger.read(ask)

    async def forget(self, response_id: str, user: str) -> None:
        """
        Drop a kept response; one that is not there is no mistake.

        Raises:
            GatewayError: "ledger_unavailable".
        """
        row = {"id": response_id, "owner": user}
        await self._ledger.write(Write(self._drop_response, (response_id, user), row))

    # --- budgets ---------------------------------------------------------------------

    async def day_sums(self) -> list[DaySum]:
        """What every user has used on each of the days that a budget looks at."""
        since = datetime.now(UTC) - timedelta(days=BUDGET_DAYS + 1)
        return await self._ledger.read(lambda connection: day_sums(connection, since))


def _account_states(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    rows = connection.execute(select(account_state.c.account, account_state.c.state))
    return {account: orjson.loads(state) for account, state in rows}
