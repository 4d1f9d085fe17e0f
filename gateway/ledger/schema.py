"""The version of a ledger's schema: which it is, and how it becomes the newest."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

UPGRADE_LOCK = 0x6761_7465  # PostgreSQL's advisory lock: one upgrade at a time


class SchemaError(Exception):
    """A schema that this program cannot work with; the text is for the operator."""


def upgrade(connection: Connection, to: str = "head") -> None:
    """
    Bring the schema up to the version *to*, inside the transaction that is open.

    Raises:
        SchemaError: it is newer than this program.
    """
    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        connection.execute(lock, {"key": UPGRADE_LOCK})
    config = _alembic()
    script = ScriptDirectory.from_config(config)
    current = _current(connection, script)
    if current == script.get_current_head():
        return
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def check(connection: Connection) -> None:
    """
    Do nothing if the schema is the newest.

    Raises:
        SchemaError: it is older or newer.
    """
    script = ScriptDirectory.from_config(_alembic())
    current = _current(connection, script)
    if current != script.get_current_head():
        raise SchemaError(
            f"its schema ({current or 'none'}) is older than this"
            " program's; start the daemon once to bring it up to date"
        )


def _current(connection: Connection, script: ScriptDirectory) -> str | None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {found.revision for found in script.walk_revisions()}
    if current is not None and current not in known:
        raise SchemaError(
            f"its schema ({current}) is newer than this program"
            f" knows ({script.get_current_head()}); nothing was changed"
        )
    return current


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", "gateway.ledger:migrations")
    config.set_main_option("path_separator", "os")
    return config
