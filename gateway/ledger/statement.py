"""
Statements that take any number of rows at once.

Rule 1: the same columns and meaning on SQLite and PostgreSQL; only how the rows are
        handed over differs.
Rule 2: a batch is one call of the driver for each table. Row by row, a driver gives
        the interpreter away several times a row, and beside a busy event loop each
        time is a wait to get it back: a longer batch then took longer than the next
        one needed to fill.
Rule 3: what is written all the time goes to the driver itself, as the text that
        SQLAlchemy has compiled once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Protocol

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Select,
    Table,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import Insert, UpdateBase

from gateway.ledger.tables import Utc

MAX_UNIX_S = 4e9  # the year 2096: beyond it a clock is wrong
MAX_VARIABLES = 32766 if sqlite3.sqlite_version_info >= (3, 32) else 999
"""Of one statement, in SQLite."""
MAX_ROWS = 40  # of one statement; each number is a text of its own, kept prepared

Row = Sequence[Any]
"""The values of one row, in the order of the table's columns."""


class DriverConnection(Protocol):
    """What is used of a connection of sqlite3 or psycopg."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


DriverCall = tuple[str, Sequence[Any]]
"""What a driver's ``execute`` takes: the text and its values."""


class Upsert(Protocol):
    """
    Inserts rows, or brings those with the same key up to date.

    A row has a JSON value for every column; a moment is the text that ``moment``
    makes. No two rows of one call have the same key.
    """

    def calls(self, rows: Collection[Any]) -> Iterator[DriverCall]:
        """What is to be executed, in one transaction, to write *rows*."""
        ...


class MultiRowUpsert:
    """
    An upsert for SQLite: ``VALUES (?, …), (?, …)``, one text for each number of rows.

    Unpacking a JSON text of a request cost four times as much (SQLite 3.40).
    """

    __slots__ = ("_table", "_dialect", "_texts")

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._table = table
        self._dialect = dialect
        self._texts: dict[int, str] = {}  # by number of rows, made when it is needed

    def calls(self, rows: Collection[Row]) -> Iterator[DriverCall]:
        """See ``Upsert.calls``."""
        for batch in batches(rows, len(self._table.columns)):
            yield self._text(len(batch)), list(chain(*batch))

    def _text(self, count: int) -> str:
        if count not in self._texts:
            # The names only have to differ: in the text each is a question mark.
            values: list[dict[str, Any]] = [
                {c.name: bindparam(f"{c.name}_{n}") for c in self._table.columns}
                for n in range(count)
            ]
            insert = insert_into(self._table, self._dialect).values(values)
            self._texts[count] = compiled(replacing(self._table, insert), self._dialect)
        return self._texts[count]


def batches(rows: Iterable[Row], width: int) -> Iterator[list[Row]]:
    """*rows* of *width* values, as many at a time as one statement takes."""
    most = min(MAX_ROWS, MAX_VARIABLES // width)
    left = iter(rows)
    while batch := list(islice(left, most)):
        yield batch


class RecordsetUpsert:
    """An upsert for PostgreSQL: all rows as one JSON text."""

    __slots__ = ("_names", "_text")

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._names = [str(c.name) for c in table.columns]  # orjson wants no subclass
        rows = _recordset(table)
        insert = insert_into(table, dialect).from_select(self._names, rows)
        self._text = compiled(replacing(table, insert), dialect)

    def calls(self, rows: Collection[Row]) -> Iterator[DriverCall]:
        """See ``Upsert.calls``."""
        listed = orjson.dumps([dict(zip(self._names, row)) for row in rows])
        yield self._text, (listed.decode(),)


class CoreStatement:
    """
    Any statement of Core, run once for every row; for what is rare or binary.

    Its rows are dicts of Python values.
    """

    __slots__ = ("_statement",)

    def __init__(self, statement: UpdateBase) -> None:
        self._statement = statement

    def run(self, connection: Connection, rows: Collection[dict[str, Any]]) -> None:
        """Run it for *rows*."""
        connection.execute(self._statement, list(rows))


def upsert(table: Table, dialect: Dialect) -> Upsert:
    """How rows of *table* are written all the time."""
    kind = MultiRowUpsert if dialect.name == "sqlite" else RecordsetUpsert
    return kind(table, dialect)


def plain_upsert(table: Table, dialect: Dialect) -> CoreStatement:
    """As ``upsert``, for a table with binary values."""
    return CoreStatement(replacing(table, insert_into(table, dialect)))


def compiled(statement: UpdateBase, dialect: Dialect) -> str:
    """The text of *statement*, for the driver itself."""
    return str(statement.compile(dialect=dialect))


def moment(unix_s: float) -> str:
    """A time as ``Upsert`` takes it: UTC, to the microsecond."""
    if not 0.0 <= unix_s <= MAX_UNIX_S:
        unix_s = MAX_UNIX_S if unix_s > 0.0 else 0.0
    whole_s, micro = divmod(int(unix_s * 1e6 + 0.5), 1_000_000)
    return _second(whole_s) + str(1_000_000 + micro)[1:]  # ``:06d`` costs twice as much


@lru_cache(maxsize=256)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S.")


def insert_into(table: Table, dialect: Dialect) -> Any:
    """
    An insert that has ``on_conflict_do_update``: Core's own has not, those of both
    dialects have.
    """
    if dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


def replacing(table: Table, insert: Any) -> Insert:
    """*insert*, which brings a row up to date that has the same key."""
    changed = {
        c.name: insert.excluded[c.name] for c in table.columns if not c.primary_key
    }
    keys = [c.name for c in table.primary_key]
    statement: Insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    return statement


def _recordset(table: Table) -> Select[Any]:
    from sqlalchemy.dialects.postgresql import JSON

    columns = [
        column(c.name, DateTime() if isinstance(c.type, Utc) else c.type)
        for c in table.columns
    ]
    listed = (
        func.json_to_recordset(cast(bindparam("rows"), JSON))
        .table_valued(*columns)
        .render_derived(with_types=True)
    )
    utc: ColumnElement[str] = literal_column("'UTC'")
    values: list[ColumnElement[Any]] = [
        (
            func.timezone(utc, listed.c[c.name])
            if isinstance(c.type, Utc)
            else listed.c[c.name]
        )
        for c in table.columns
    ]
    return select(*values)
