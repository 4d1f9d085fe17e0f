"""
One ledger's database: its address, its connections, its schema.

Rule 1: SQLite and PostgreSQL run the same statements through the same synchronous
        engine; whoever lives in an event loop calls this from a thread.
Rule 2: "written" means it survives the loss of power: WAL with ``synchronous=FULL``,
        and PostgreSQL's own default.
Rule 3: one thread writes; ``write`` and ``reset`` belong to it alone.
Rule 4: reading never changes anything, least of all the schema.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    Table,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gateway.ledger.statement import Plain, Upsert, plain_upsert

BUSY_TIMEOUT_S = 5.0  # how long another process may keep SQLite's write lock
POSTGRESQL = {
    "connect_timeout": 5,  # seconds
    # A server that vanished without a word is noticed in seconds, not in hours.
    "tcp_user_timeout": 10_000,  # milliseconds
    "keepalives_idle": 10,  # seconds
}
UPGRADE_LOCK = 0x6761_7465  # PostgreSQL's advisory lock: one upgrade at a time


class LedgerError(Exception):
    """A ledger that cannot be used; the text is for the operator."""


def resolve(url: str, base: Path) -> URL:
    """
    The ledger's address; a relative SQLite path starts at the folder *base*.

    Raises:
        LedgerError: neither a SQLite file nor a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise LedgerError(f"ledger.url: {url!r} is not a database URL") from None
    kind = parsed.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise LedgerError("ledger.url: must begin with sqlite:/// or postgresql://")
    if not parsed.database or parsed.database == ":memory:":
        raise LedgerError("ledger.url: SQLite needs a file, as in sqlite:///gateway.db")
    path = base / Path(parsed.database).expanduser()
    return URL.create("sqlite", database=os.fspath(path.absolute()))


class Database:
    """One ledger's database; ``dialect`` is "sqlite" or "postgresql"."""

    def __init__(self, url: str, base: Path) -> None:
        self.url = resolve(url, base)
        self.dialect = self.url.get_backend_name()
        self._path = Path(self.url.database or "") if self.sqlite else None
        self._inode: tuple[int, int] | None = None
        self._writer = self._writing_engine()
        self._reader = self._reading_engine()
        self._held: Connection | None = None  # by the one thread that writes

    @property
    def sqlite(self) -> bool:
        """Whether it is a file."""
        return self.dialect == "sqlite"

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def upsert(self, table: Table) -> Upsert:
        """How rows of *table* are written here."""
        return Upsert(table, self._writer.dialect)

    def plain_upsert(self, table: Table) -> Plain:
        """The same for a table with binary values."""
        return plain_upsert(table, self._writer.dialect)

    def prepare(self) -> None:
        """
        Make the database ready for writing: the file, and the newest schema.

        Raises:
            LedgerError: it cannot be written, or is newer than this program.
        """
        try:
            self._make_file()
            with self._writer.begin() as connection:
                self._upgrade(connection)
        except (SQLAlchemyError, OSError) as exc:
            raise LedgerError(f"ledger {self}: {reason(exc)}") from exc
        self._inode = self._identity()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; durable when the block is left."""
        if self._path is not None and self._identity() != self._inode:
            # Somebody removed or replaced the file: what SQLite still holds open
            # has no name any more and would vanish with this process.
            self.reset()
            self.prepare()
        if self._held is None:
            self._held = self._writer.connect()
        with self._held.begin():
            yield self._held

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that only reads; works while a daemon writes."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def inspect(self) -> Iterator[Connection]:
        """
        As ``read``, for a command beside the daemon.

        Raises:
            LedgerError: no ledger there, of another version, or not readable.
        """
        if self._path is not None and not self._path.exists():
            raise LedgerError(f"ledger {self}: there is no ledger yet")
        try:
            with self.read() as connection:
                self._check_revision(connection)
                yield connection
        except SQLAlchemyError as exc:
            raise LedgerError(f"ledger {self}: {reason(exc)}") from exc

    def reset(self) -> None:
        """Drop the writing connection: after trouble the next use makes a new one."""
        held, self._held = self._held, None
        if held is not None:
            held.invalidate()
            held.close()
        self._writer.dispose()

    def dispose(self) -> None:
        """Close every connection."""
        self.reset()
        self._reader.dispose()

    def _make_file(self) -> None:
        # Kept responses hold what people wrote: nobody else on the machine reads it.
        if self._path is not None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _writing_engine(self) -> Engine:
        if not self.sqlite:
            return create_engine(
                self.url, pool_size=1, paramstyle="format", connect_args=POSTGRESQL
            )
        engine = create_engine(
            self.url, pool_size=1, connect_args={"timeout": BUSY_TIMEOUT_S}
        )
        event.listen(engine, "connect", _writing_pragmas)
        event.listen(engine, "begin", _begin_immediate)
        return engine

    def _reading_engine(self) -> Engine:
        if not self.sqlite:
            return create_engine(
                self.url, pool_size=2, pool_pre_ping=True, connect_args=POSTGRESQL
            ).execution_options(postgresql_readonly=True)
        return create_engine(
            "sqlite://", creator=self._connect_read_only, poolclass=NullPool
        )

    def _connect_read_only(self) -> sqlite3.Connection:
        address = f"file:{quote(os.fspath(self._path or ''))}?mode=ro"
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _upgrade(self, connection: Connection) -> None:
        if not self.sqlite:
            lock = text("SELECT pg_advisory_xact_lock(:key)")
            connection.execute(lock, {"key": UPGRADE_LOCK})
        config = _alembic()
        script = ScriptDirectory.from_config(config)
        current = MigrationContext.configure(connection).get_current_revision()
        if current == script.get_current_head():
            return
        self._refuse_unknown(script, current)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    def _check_revision(self, connection: Connection) -> None:
        script = ScriptDirectory.from_config(_alembic())
        current = MigrationContext.configure(connection).get_current_revision()
        self._refuse_unknown(script, current)
        if current != script.get_current_head():
            raise LedgerError(
                f"ledger {self}: its schema ({current or 'none'}) is older than this"
                " program's; start the daemon once to bring it up to date"
            )

    def _refuse_unknown(self, script: ScriptDirectory, current: str | None) -> None:
        known = {found.revision for found in script.walk_revisions()}
        if current is not None and current not in known:
            raise LedgerError(
                f"ledger {self}: its schema ({current}) is newer than this program"
                f" knows ({script.get_current_head()}); nothing was changed"
            )


def reason(exc: BaseException) -> str:
    """What the database said, in one line."""
    said = getattr(exc, "orig", None) or exc
    lines = str(said).strip().splitlines()
    return lines[0] if lines else type(said).__name__


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", "gateway.ledger:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _writing_pragmas(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: _begin_immediate does.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_immediate(connection: Connection) -> None:
    # Takes the write lock at once: a lock taken half-way fails without waiting.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
