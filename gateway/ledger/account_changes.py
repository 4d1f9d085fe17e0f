"""
What the operator did to accounts, as rows: paused, and cooldowns forgotten.

Every function runs in a transaction that its caller opened, and commits nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Table, delete, select

from gateway.ledger.statement import insert_into
from gateway.ledger.tables import account_pause, account_reset

KIND = "accounts"
"""Of ``RuntimeChanges``."""


class AccountPause(NamedTuple):
    """Since when, and who did it."""

    paused_at: datetime
    who: str


class AccountRows(NamedTuple):
    """By account: the pauses that hold, and the latest resets."""

    paused: dict[str, AccountPause]
    reset_at: dict[str, datetime]


def load(connection: Connection) -> AccountRows:
    """All of them."""
    paused = connection.execute(select(account_pause))
    resets = connection.execute(select(account_reset))
    return AccountRows(
        {account: AccountPause(at, who) for account, at, who in paused},
        {account: at for account, at in resets},
    )


def pause(connection: Connection, account: str, at: datetime, who: str) -> None:
    """Pause *account*; one that is paused already stays as it is."""
    insert = insert_into(account_pause, connection.dialect)
    insert = insert.values(account=account, paused_at=at, who=who)
    connection.execute(insert.on_conflict_do_nothing())


def resume(connection: Connection, account: str) -> None:
    """Undo ``pause``."""
    _remove(connection, account_pause, account)


def reset(connection: Connection, account: str, at: datetime) -> None:
    """Note that the cooldown of *account* is to be forgotten."""
    _remove(connection, account_reset, account)
    insert = insert_into(account_reset, connection.dialect)
    connection.execute(insert.values(account=account, reset_at=at))


def _remove(connection: Connection, table: Table, account: str) -> None:
    connection.execute(delete(table).where(table.c.account == account))
