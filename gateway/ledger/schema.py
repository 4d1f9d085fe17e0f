"""
The version of a ledger's schema: which it is, and how it becomes the newest.

A new ledger is made as the tables are; an older one goes through the migrations. Only
then is Alembic imported, which takes longer than all the rest of opening a ledger.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
)

from gateway.ledger.tables import metadata, speak_postgresql

VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Every version that this program knows, the oldest first."""
NEWEST = VERSIONS[-1]
UPGRADE_LOCK = 0x6761_7465  # PostgreSQL's advisory lock: one upgrade at a time

# Alembic's own table, as it makes it.
_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


class SchemaError(Exception):
    """A schema that this program cannot work with; the text is for the operator."""


def upgrade(connection: Connection, to: str = NEWEST) -> None:
    """
    Bring the schema up to the version *to*, inside the transaction that is open.

    Raises:
        SchemaError: it is newer than this program.
    """
    if connection.dialect.name == "postgresql":
        speak_postgresql()
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        connection.execute(lock, {"key": UPGRADE_LOCK})
    current = _current(connection)
    if current is None and to == NEWEST:
        metadata.create_all(connection)
        _version.create(connection)
        connection.execute(insert(_version).values(version_num=NEWEST))
    elif current != NEWEST:
        _migrate(connection, to)


def check(connection: Connection) -> None:
    """
    Do nothing if the schema is the newest.

    Raises:
        SchemaError: it is older or newer.
    """
    current = _current(connection)
    if current != NEWEST:
        raise SchemaError(
            f"its schema ({current or 'none'}) is older than this"
            " program's; start the daemon once to bring it up to date"
        )


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_version.name):
        return None
    current = connection.scalar(select(_version.c.version_num))
    if current is not None and current not in VERSIONS:
        raise SchemaError(
            f"its schema ({current}) is newer than this program"
            f" knows ({NEWEST}); nothing was changed"
        )
    return current


def _migrate(connection: Connection, to: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "gateway.ledger:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
