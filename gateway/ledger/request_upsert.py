"""
A request with its attempts and its timeline, written together.

On SQLite that is *one* statement: its rows go into a view that only the writing
connection has, and the view's trigger puts each part where it belongs. One statement
is a transaction by itself and one call of the driver. As five (begin, three tables,
commit) the writer handed the interpreter over some fifteen times a batch, and each
time had to wait for a busy event loop to give it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Protocol

from sqlalchemy import (
    ColumnElement,
    Dialect,
    create_engine,
    literal_column,
    select,
    text,
)

from gateway.ledger.rows import RequestRows, Row
from gateway.ledger.statement import (
    DriverCall,
    RecordsetUpsert,
    batches,
    compiled,
    insert_into,
    replacing,
)
from gateway.ledger.tables import attempt, request, timeline

VIEW = "whole_request"
_REQUEST = [f"request_{c.name}" for c in request.columns]
_ATTEMPT = [f"attempt_{c.name}" for c in list(attempt.columns)[2:]]  # without the key
_COLUMNS = [*_REQUEST, *_ATTEMPT, "marks"]
_KEY = _REQUEST[:2]
_NO_ATTEMPT = (None,) * len(_ATTEMPT)


class RequestUpsert(Protocol):
    """
    Writes ``RequestRows``.

    Attributes:
        setup: what a connection must run once before.
    """

    setup: Sequence[str]

    def calls(self, rows: Collection[RequestRows]) -> Iterator[DriverCall]:
        """What is to be executed, in one transaction, to write *rows*."""
        ...


class SqliteRequestUpsert:
    """By the view."""

    setup: Sequence[str]

    def __init__(self, dialect: Dialect) -> None:
        columns = ", ".join(f"NULL AS {name}" for name in _COLUMNS)
        self.setup = (
            f"CREATE TEMP VIEW {VIEW} AS SELECT {columns}",
            f"CREATE TEMP TRIGGER {VIEW}_insert INSTEAD OF INSERT ON {VIEW}"
            f" BEGIN {'; '.join(_parts(dialect))}; END",
        )
        self._head = f"INSERT INTO {VIEW} ({', '.join(_COLUMNS)}) VALUES "
        self._row = f"({', '.join('?' * len(_COLUMNS))})"
        self._texts: dict[int, str] = {}  # by number of rows, made when it is needed

    def calls(self, rows: Collection[RequestRows]) -> Iterator[DriverCall]:
        """See ``RequestUpsert.calls``."""
        listed = chain.from_iterable(map(_view_rows, rows))
        for batch in batches(listed, len(_COLUMNS)):
            yield self._text(len(batch)), list(chain(*batch))

    def _text(self, count: int) -> str:
        text = self._texts.get(count)
        if text is None:
            text = self._head + ", ".join([self._row] * count)
            self._texts[count] = text
        return text


def _parts(dialect: Dialect) -> Iterator[str]:
    """The statements of the trigger."""
    for table, names, having in (
        (request, _REQUEST, "true"),
        (attempt, [*_KEY, *_ATTEMPT], "NEW.attempt_n IS NOT NULL"),
        (timeline, [*_KEY, "marks"], "true"),
    ):
        values: list[ColumnElement[Any]] = [
            literal_column(f"NEW.{name}") for name in names
        ]
        # Without WHERE, SQLite takes the ON of ON CONFLICT for that of a join.
        row = select(*values).where(text(having))
        columns = [c.name for c in table.columns]
        insert = insert_into(table, dialect).from_select(columns, row)
        yield compiled(replacing(table, insert), dialect)


def _view_rows(whole: RequestRows) -> list[Row]:
    """A row for each attempt; the request's own part is the same in all of them."""
    marks = whole.timeline[2]
    attempts = whole.attempts or [(*whole.timeline[:2], *_NO_ATTEMPT)]
    return [(*whole.request, *row[2:], marks) for row in attempts]


class PostgresqlRequestUpsert:
    """Table by table."""

    setup: Sequence[str] = ()

    def __init__(self, dialect: Dialect) -> None:
        self._request = RecordsetUpsert(request, dialect)
        self._attempt = RecordsetUpsert(attempt, dialect)
        self._timeline = RecordsetUpsert(timeline, dialect)

    def calls(self, rows: Collection[RequestRows]) -> Iterator[DriverCall]:
        """See ``RequestUpsert.calls``."""
        yield from self._request.calls([whole.request for whole in rows])
        attempts = [row for whole in rows for row in whole.attempts]
        if attempts:
            yield from self._attempt.calls(attempts)
        yield from self._timeline.calls([whole.timeline for whole in rows])


def request_upsert(dialect: Dialect) -> RequestUpsert:
    """How requests are written to a database of *dialect*."""
    if dialect.name == "sqlite":
        return _sqlite_upsert(dialect.driver)
    return PostgresqlRequestUpsert(dialect)


@cache
def _sqlite_upsert(driver: str) -> SqliteRequestUpsert:
    """It holds no state, and to make it takes 0.01 seconds."""
    return SqliteRequestUpsert(create_engine(f"sqlite+{driver}://").dialect)
