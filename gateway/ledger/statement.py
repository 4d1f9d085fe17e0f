"""
Statements that take any number of rows at once, as one JSON text.

Rule 1: the same columns and meaning on SQLite and PostgreSQL; only the function that
        unpacks the JSON differs.
Rule 2: a batch is one call of the driver for each table. Row by row, a driver gives
        the interpreter away several times a row, and beside a busy event loop each
        time is a wait to get it back: a longer batch then took longer than the next
        one needed to fill. It also costs less (measured 2026-11).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache
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
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert, UpdateBase

from gateway.ledger.tables import Utc

MAX_UNIX_S = 4e9  # the year 2096: beyond it a clock is wrong


class Statement(Protocol):
    """What the writer runs with the rows of one batch."""

    def run(self, connection: Connection, rows: Collection[dict[str, Any]]) -> None:
        """Write *rows*."""
        ...


class Upsert:
    """
    Insert rows of *table*, or bring those with the same key up to date.

    A row is a dict with a JSON value for every column; a moment is the text that
    ``moment`` makes. No two rows of one call have the same key.
    """

    __slots__ = ("_sql",)

    def __init__(self, table: Table, dialect: Dialect) -> None:
        rows = (
            _sqlite_rows(table) if dialect.name == "sqlite" else _postgresql_rows(table)
        )
        names = [c.name for c in table.columns]
        statement = _replacing(table, _insert(table, dialect).from_select(names, rows))
        self._sql = str(statement.compile(dialect=dialect))

    def run(self, connection: Connection, rows: Collection[dict[str, Any]]) -> None:
        """Write *rows*."""
        text = orjson.dumps(list(rows)).decode()
        connection.exec_driver_sql(self._sql, (text,))


class Plain:
    """Any statement of Core, run once for every row; for what is rare or binary."""

    __slots__ = ("_statement",)

    def __init__(self, statement: UpdateBase) -> None:
        self._statement = statement

    def run(self, connection: Connection, rows: Collection[dict[str, Any]]) -> None:
        """Run it for *rows*."""
        connection.execute(self._statement, list(rows))


def plain_upsert(table: Table, dialect: Dialect) -> Plain:
    """As ``Upsert``, for a table with binary values; its rows are Python values."""
    return Plain(_replacing(table, _insert(table, dialect)))


def moment(unix_s: float) -> str:
    """A time as ``Upsert`` takes it: UTC, to the microsecond."""
    whole_s, micro = divmod(round(min(max(unix_s, 0.0), MAX_UNIX_S) * 1e6), 1_000_000)
    return f"{_second(whole_s)}.{micro:06d}"


@lru_cache(maxsize=256)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _insert(table: Table, dialect: Dialect) -> Any:
    # Core has no ON CONFLICT of its own; both dialects have the same.
    kind = sqlite if dialect.name == "sqlite" else postgresql
    return kind.insert(table)


def _replacing(table: Table, insert: Any) -> Insert:
    changed = {
        c.name: insert.excluded[c.name] for c in table.columns if not c.primary_key
    }
    keys = [c.name for c in table.primary_key]
    statement: Insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    return statement


def _sqlite_rows(table: Table) -> Select[Any]:
    listed = func.json_each(bindparam("rows")).table_valued("value")
    values: list[ColumnElement[Any]] = [
        func.json_extract(listed.c.value, literal_column(f"'$.{c.name}'")).label(c.name)
        for c in table.columns
    ]
    # Without WHERE, SQLite takes the ON of ON CONFLICT for that of a join.
    return select(*values).select_from(listed).where(true())


def _postgresql_rows(table: Table) -> Select[Any]:
    columns = [
        column(c.name, DateTime() if isinstance(c.type, Utc) else c.type)
        for c in table.columns
    ]
    listed = (
        func.json_to_recordset(cast(bindparam("rows"), postgresql.JSON))
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
