"""Users made at run time: by the gateway under test itself, or by another process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from gateway.config.keys import key_sha256
from gateway.config.schema import User
from gateway.ledger import runtime_users
from gateway.ledger.database import Database
from gateway.ledger.runtime_changes import raise_version
from gateway.ledger.runtime_users import RuntimeKey
from tests.kit import settings

Change = Callable[[Connection], object]


def added(name: str, expires_at: datetime | None = None, **limits: Any) -> Change:
    """The change that makes a user with the key ``settings.key_of(name)``."""

    def change(connection: Connection) -> None:
        now = datetime.now(UTC)
        digest = key_sha256(settings.key_of(name))
        runtime_users.add_user(connection, User(name, (), **limits), now)
        key = RuntimeKey(digest, name, "", now, expires_at)
        runtime_users.add_key(connection, key)

    return change


def removed(name: str) -> Change:
    return lambda connection: runtime_users.remove_user(connection, name)


def revoked(name: str) -> Change:
    """The change that revokes the key of ``added``."""
    prefix = key_sha256(settings.key_of(name))[:8]
    return lambda connection: runtime_users.remove_key(connection, name, prefix)


def change_elsewhere(folder: Path, change: Change) -> None:
    """Make *change* in the ledger of a gateway in *folder*, as another process does."""
    database = Database("sqlite:///gateway.db", folder)
    try:
        database.prepare()
        with database.change() as connection:
            raise_version(connection, runtime_users.KIND)
            change(connection)
    finally:
        database.dispose()
