"""
Users and keys that are made at run time: their rows.

Rule 1: every function runs in a transaction that its caller opened, and commits
        nothing; ``RuntimeChanges.change`` puts those that change something in order.
Rule 2: a key is known by its hash alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.config.schema import Budget, Config, Limits, User
from gateway.ledger.database import Database, LedgerError, reason
from gateway.ledger.tables import key_use, runtime_key, runtime_user

KIND = "users"
"""Of ``RuntimeChanges``."""
MAX_USERS = 10_000
MAX_KEYS = 100  # of one user
PREFIX_DIGITS = 8

_LIMITS = tuple(field.name for field in dataclasses.fields(Limits))
_BUDGET = tuple(field.name for field in dataclasses.fields(Budget))


class UserChangeError(Exception):
    """
    A change that cannot be made; nothing was changed.

    Args:
        code: user_exists, unknown_user, unknown_key, ambiguous_key, too_many_users or
            too_many_keys.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RuntimeKey(NamedTuple):
    """One key; *expires_at* is None for never."""

    key_sha256: str
    user: str
    label: str
    created_at: datetime
    expires_at: datetime | None

    @property
    def prefix(self) -> str:
        """Its name in logs and commands."""
        return self.key_sha256[:PREFIX_DIGITS]


class RuntimeUsers(NamedTuple):
    """
    Attributes:
        users: each with the hashes of all its keys.
        keys: by hash.
        created_at: of each user.
    """

    users: tuple[User, ...] = ()
    keys: dict[str, RuntimeKey] = {}
    created_at: dict[str, datetime] = {}


def load(connection: Connection) -> RuntimeUsers:
    """All of them, by name."""
    users = connection.execute(select(runtime_user).order_by(runtime_user.c.name))
    listed = [dict(row) for row in users.mappings()]
    keys = [
        RuntimeKey(*row)
        for row in connection.execute(
            select(runtime_key).order_by(runtime_key.c.created_at)
        )
    ]
    hashes: dict[str, list[str]] = {row["name"]: [] for row in listed}
    for key in keys:
        if key.user in hashes:
            hashes[key.user].append(key.key_sha256)
    return RuntimeUsers(
        tuple(_user(row, hashes[row["name"]]) for row in listed),
        {key.key_sha256: key for key in keys},
        {row["name"]: row["created_at"] for row in listed},
    )


def stored_users(config: Config, base: Path) -> set[str]:
    """
    The names of all users in the ledger of *config*, which need not be open or exist.

    Args:
        base: the folder that relative paths of the config start from.

    Raises:
        LedgerError: it cannot be asked.
    """
    database = Database(config.ledger.url, base)
    try:
        if not database.exists:
            return set()
        with database.read() as connection:
            return names(connection)
    except SQLAlchemyError as exc:
        raise LedgerError(f"ledger {database}: {reason(exc)}") from None
    finally:
        database.dispose()


def names(connection: Connection) -> set[str]:
    """The names of all users; none in a ledger of an older version."""
    if not inspect(connection).has_table(runtime_user.name):
        return set()
    return set(connection.scalars(select(runtime_user.c.name)))


def key_uses(connection: Connection) -> dict[str, datetime]:
    """When each key was used last, by hash; also the keys of the config."""
    return {digest: at for digest, at in connection.execute(select(key_use))}


# --- changes -------------------------------------------------------------------------


def add_user(connection: Connection, user: User, now: datetime) -> None:
    """
    Add *user*, without keys.

    Raises:
        UserChangeError: "user_exists", "too_many_users".
    """
    if _row(connection, user.name) is not None:
        raise UserChangeError("user_exists", f"there is a user {user.name} already")
    counted = connection.scalar(select(func.count()).select_from(runtime_user))
    if (counted or 0) >= MAX_USERS:
        raise UserChangeError("too_many_users", f"there are {MAX_USERS} users already")
    row = {"name": user.name, "created_at": now, **_columns(user)}
    connection.execute(insert(runtime_user).values(row))


def set_user(
    connection: Connection, name: str, change: Callable[[User], User]
) -> tuple[User, User]:
    """
    Write what *change* makes of the user *name*; returns it before and after.

    Raises:
        UserChangeError: "unknown_user".
    """
    before = _known(connection, name)
    after = change(before)
    connection.execute(
        update(runtime_user).where(runtime_user.c.name == name).values(_columns(after))
    )
    return before, after


def remove_user(connection: Connection, name: str) -> User:
    """
    Remove the user *name* and its keys; returns what it was.

    Raises:
        UserChangeError: "unknown_user".
    """
    user = _known(connection, name)
    _forget(connection, _digests(connection, name))
    connection.execute(delete(runtime_user).where(runtime_user.c.name == name))
    return user


def add_key(connection: Connection, key: RuntimeKey) -> None:
    """
    Add *key* to its user.

    Raises:
        UserChangeError: "unknown_user", "too_many_keys".
    """
    _known(connection, key.user)
    if len(_digests(connection, key.user)) >= MAX_KEYS:
        raise UserChangeError("too_many_keys", f"{key.user} has {MAX_KEYS} keys")
    connection.execute(insert(runtime_key).values(key._asdict()))


def remove_key(connection: Connection, name: str, prefix: str) -> str:
    """
    Remove the key of the user *name* whose hash begins with *prefix*; returns the hash.

    Raises:
        UserChangeError: "unknown_user", "unknown_key", "ambiguous_key".
    """
    _known(connection, name)
    found = [d for d in _digests(connection, name) if d.startswith(prefix)]
    if len(prefix) < PREFIX_DIGITS or not found:
        raise UserChangeError("unknown_key", f"{name} has no key {prefix[:64]}")
    if len(found) > 1:
        raise UserChangeError("ambiguous_key", f"{name} has several keys {prefix}")
    _forget(connection, found)
    return found[0]


def _known(connection: Connection, name: str) -> User:
    row = _row(connection, name)
    if row is None:
        raise UserChangeError("unknown_user", f"there is no user {name[:64]}")
    return _user(row, _digests(connection, name))


def _row(connection: Connection, name: str) -> dict[str, Any] | None:
    statement = select(runtime_user).where(runtime_user.c.name == name)
    row = connection.execute(statement).mappings().one_or_none()
    return None if row is None else dict(row)


def _digests(connection: Connection, name: str) -> list[str]:
    statement = select(runtime_key.c.key_sha256).where(runtime_key.c.user == name)
    return list(connection.scalars(statement.order_by(runtime_key.c.created_at)))


def _forget(connection: Connection, digests: list[str]) -> None:
    for table in (runtime_key, key_use):
        connection.execute(delete(table).where(table.c.key_sha256.in_(digests)))


def _user(row: dict[str, Any], digests: list[str]) -> User:
    limits = {name: row[name] for name in _LIMITS}
    budget = Budget(**{name: row[name] for name in _BUDGET})
    return User(row["name"], tuple(digests), **limits, budget=budget)


def _columns(user: User) -> dict[str, Any]:
    limits = {name: getattr(user, name) for name in _LIMITS}
    return limits | {name: getattr(user.budget, name) for name in _BUDGET}
