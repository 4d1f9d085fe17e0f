"""
One ledger's database: its address, its connections, its schema.

Rule 1: SQLite and PostgreSQL run the same statements through the same synchronous
        engine; code on an event loop calls it in a thread.
Rule 2: "written" means it survives the loss of power: WAL with ``synchronous=FULL``,
        and PostgreSQL's own default.
Rule 3: one thread writes; ``write``, ``flush`` and ``reset`` belong to it alone.
        What an operator changes is a short transaction of its own: ``change``.
Rule 4: reading never changes anything, least of all the schema.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    Engine,
    NullPool,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from gateway.ledger import schema
from gateway.ledger.presence import Presence
from gateway.ledger.request_upsert import request_upsert
from gateway.ledger.statement import (
    CoreStatement,
    DriverCall,
    DriverConnection,
    Upsert,
    plain_upsert,
    upsert,
)

BUSY_TIMEOUT_S = 5.0  # how long another process may keep SQLite's write lock
# Takes the write lock at once: a lock taken half-way fails without waiting.
BEGIN = "BEGIN IMMEDIATE"
STATEMENTS = 256  # that SQLite's driver keeps prepared; see ``statement.MAX_ROWS``
# Without adapters the driver searches for one for each None and bool, at length.
sqlite3.register_adapter(type(None), {None: None}.get)
sqlite3.register_adapter(bool, int)
POISON = (DataError, IntegrityError, ArithmeticError, TypeError, ValueError)
POSTGRESQL = {
    "connect_timeout": 5,  # seconds
    # A server that vanishes without a reset is noticed in seconds, not in hours.
    "tcp_user_timeout": 10_000,  # milliseconds
    "keepalives_idle": 10,  # seconds
}


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
        # It may hold a password.
        raise LedgerError("ledger.url: it is not a database URL") from None
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
    """
    One ledger's database. Its public methods are the ways to use it: one to prepare it,
    three to write, two to read, and how rows are written.

    Attributes:
        dialect: "sqlite" or "postgresql".
        requests: how whole requests are written here.
        presence: this process among those that write here.
    """

    def __init__(self, url: str, base: Path) -> None:
        self.url = resolve(url, base)
        self.dialect = self.url.get_backend_name()
        self._path = Path(self.url.database or "") if self.sqlite else None
        self._name = os.fspath(self._path or "")
        self.presence = Presence(self._path)
        self._inode: tuple[int, int] | None = None
        self._writer = self._writing_engine(pool_size=1)
        self._changer = self._writing_engine(poolclass=NullPool)
        self._reader = self._reading_engine()
        self._held: Connection | None = None  # by the one thread that writes
        self._driver: DriverConnection | None = None  # of ``_held``
        self.requests = request_upsert(self._dialect)

    @property
    def sqlite(self) -> bool:
        """Whether it is a file."""
        return self.dialect == "sqlite"

    @property
    def exists(self) -> bool:
        """Whether there is a file; a server's database is taken to be there."""
        return self._path is None or self._path.exists()

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def upsert(self, table: Table) -> Upsert:
        """How rows of *table* are written here."""
        return upsert(table, self._writer.dialect)

    def plain_upsert(self, table: Table) -> CoreStatement:
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
            self.presence.enter()
            with self.presence.turn(), self._writer.begin() as connection:
                schema.upgrade(connection)
        except schema.SchemaError as exc:
            raise LedgerError(f"ledger {self}: {exc}") from None
        except (SQLAlchemyError, OSError) as exc:
            raise LedgerError(f"ledger {self}: {reason(exc)}") from exc
        self._inode = self._identity()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction; durable when the block is left."""
        held, _ = self._connected()
        with self.presence.turn(), held.begin():
            yield held

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """
        A transaction beside those of the writer, in any thread; durable when the block
        is left. The write lock is held meanwhile: the block must not wait.

        Raises:
            LedgerError: the file is not there.
        """
        if self._path is not None and self._identity() != self._inode:
            raise LedgerError(f"ledger {self}: its file was removed or replaced")
        with self.presence.turn(), self._changer.begin() as connection:
            yield connection

    def flush(self, calls: Sequence[DriverCall]) -> None:
        """A transaction of *calls* alone, on the driver's own connection."""
        _, driver = self._connected()
        self.presence.take_turn()
        try:
            self._flush(driver, calls)
        finally:
            self.presence.end_turn()

    def _flush(self, driver: DriverConnection, calls: Sequence[DriverCall]) -> None:
        try:
            if self.sqlite and len(calls) > 1:  # one is a transaction by itself
                driver.execute(BEGIN)
            for text, values in calls:
                driver.execute(text, values)
            driver.commit()
        except BaseException:
            with suppress(self._errors.Error):  # the connection may be gone
                driver.rollback()
            raise

    def is_lost(self, exc: Exception) -> bool:
        """Whether *exc*, of ``write`` or ``flush``, means a broken connection."""
        if isinstance(exc, DBAPIError):
            return exc.connection_invalidated
        held: Any = self._driver
        return isinstance(exc, self._errors.Error) and self._dialect.is_disconnect(
            exc, held, None
        )

    def is_poison(self, exc: Exception) -> bool:
        """Whether *exc* is the row's own fault, so that a retry cannot help."""
        if isinstance(exc, StatementError) and not isinstance(exc, DBAPIError):
            return True  # raised while the values were made ready
        own = self._errors.DataError, self._errors.IntegrityError
        return isinstance(exc, (*POISON, *own))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that only reads; it works while a daemon writes."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def inspect(self) -> Iterator[Connection]:
        """
        As ``read``, for a command beside the daemon.

        Raises:
            LedgerError: no ledger there, of another version, or not readable.
        """
        if not self.exists:
            raise LedgerError(f"ledger {self}: there is no ledger yet")
        try:
            with self.read() as connection:
                schema.check(connection)
                yield connection
        except schema.SchemaError as exc:
            raise LedgerError(f"ledger {self}: {exc}") from None
        except SQLAlchemyError as exc:
            raise LedgerError(f"ledger {self}: {reason(exc)}") from exc

    def reset(self) -> None:
        """Drop the writing connection: after trouble the next use makes a new one."""
        held, self._held, self._driver = self._held, None, None
        if held is not None:
            held.invalidate()
            held.close()
        self._writer.dispose()

    def dispose(self) -> None:
        """Close every connection."""
        self.reset()
        self._changer.dispose()
        self._reader.dispose()
        self.presence.leave()

    @property
    def _dialect(self) -> Dialect:
        return self._writer.dialect

    @property
    def _errors(self) -> Any:
        """The driver's module, for its classes of errors."""
        return self._dialect.loaded_dbapi

    def _connected(self) -> tuple[Connection, DriverConnection]:
        """The connection that writes, as SQLAlchemy has it and as the driver has."""
        if self._path is not None and self._identity() != self._inode:
            # The file was removed or replaced: what SQLite still holds open has no
            # name any more and would be lost with this process.
            self.reset()
            self.prepare()
        if self._held is None or self._driver is None:
            self._held = self._writer.connect()
            self._driver = driver_of(self._held)
            for text in (*self.requests.setup, self.presence.setup):
                if text:
                    self._driver.execute(text)
        return self._held, self._driver

    def _make_file(self) -> None:
        # Stored responses hold what people wrote: other users must not read it.
        if self._path is not None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = os.stat(self._name)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _writing_engine(self, **pool: Any) -> Engine:
        if not self.sqlite:
            return create_engine(
                self.url,
                **pool,
                paramstyle="format",
                connect_args=POSTGRESQL,
                hide_parameters=True,
            )
        engine = create_engine(
            self.url,
            **pool,
            hide_parameters=True,  # errors are logged; rows hold prompts
            connect_args={
                "timeout": BUSY_TIMEOUT_S,
                "cached_statements": STATEMENTS,
            },
        )
        event.listen(engine, "connect", _writing_pragmas)
        event.listen(engine, "begin", _begin_immediate)
        return engine

    def _reading_engine(self) -> Engine:
        if not self.sqlite:
            return create_engine(
                self.url,
                pool_size=2,
                pool_pre_ping=True,
                connect_args=POSTGRESQL,
                hide_parameters=True,
            ).execution_options(postgresql_readonly=True)
        return create_engine(
            "sqlite://",
            creator=self._connect_read_only,
            poolclass=NullPool,
            hide_parameters=True,
        )

    def _connect_read_only(self) -> sqlite3.Connection:
        address = f"file:{quote(self._name)}?mode=ro"
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = ON")
        return connection


def driver_of(connection: Connection) -> DriverConnection:
    """The driver's connection below SQLAlchemy's *connection*."""
    driver: Any = connection.connection.driver_connection
    held: DriverConnection = driver
    return held


def reason(exc: BaseException) -> str:
    """The database's message, in one line."""
    said = getattr(exc, "orig", None) or exc
    lines = str(said).strip().splitlines()
    return lines[0] if lines else type(said).__name__


def _writing_pragmas(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: _begin_immediate does.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # The statement journal of many rows goes to memory: by default SQLite writes it
    # to a temporary file, half as much again as the log.
    connection.execute("PRAGMA temp_store = MEMORY")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql(BEGIN)
