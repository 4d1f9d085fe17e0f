"""When the writer writes, what wakes it, and how many rows go into one statement."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from gateway.ledger import statement
from gateway.ledger.database import Database
from gateway.ledger.statement import Values
from gateway.ledger.tables import account_state, request
from gateway.ledger.writer import (
    COMMIT_EVERY_S,
    LINGER_S,
    Entry,
    Listening,
    Writer,
)
from tests.ledger_places import Place, sqlite_place_fixture  # noqa: F401

URGENT = Entry((), urgent=True, put_at=100.0)
LATER = Entry((), put_at=50.0)


@pytest.fixture(name="writer")
def writer_fixture(sqlite_place: Place) -> Writer:
    """One whose thread does not run."""
    database = Database(sqlite_place.url, sqlite_place.base)
    return Writer(database, lambda connection: False, lambda report: None)


@pytest.mark.parametrize(
    ("entries", "retry_at", "until", "listening"),
    [
        pytest.param([], 0.0, 7.0, Listening.ANY, id="idle-until-the-purge"),
        pytest.param([LATER], 0.0, 50 + LINGER_S, Listening.URGENT, id="lingering"),
        pytest.param([URGENT], 0.0, 90 + COMMIT_EVERY_S, Listening.NONE, id="pulse"),
        pytest.param(
            [LATER, URGENT], 0.0, 90 + COMMIT_EVERY_S, Listening.NONE, id="both"
        ),
        pytest.param([URGENT], 120.0, 120.0, Listening.NONE, id="in-trouble"),
    ],
)
def test_how_long_the_writer_waits_and_for_what(
    writer: Writer,
    entries: list[Entry],
    retry_at: float,
    until: float,
    listening: Listening,
) -> None:
    writer._began_at, writer._purge_at, writer._retry_at = 90.0, 7.0, retry_at
    for entry in entries:
        writer.put(entry)
    writer._take()

    assert (until, listening) == writer._patience()


@pytest.mark.parametrize(
    ("listening", "entries", "rings"),
    [
        pytest.param(Listening.NONE, [URGENT], 0, id="asleep"),
        pytest.param(Listening.URGENT, [LATER], 0, id="can-wait"),
        pytest.param(Listening.URGENT, [URGENT], 1, id="urgent"),
        pytest.param(Listening.URGENT, [LATER, URGENT], 1, id="along"),
        pytest.param(Listening.ANY, [LATER], 1, id="anything"),
    ],
)
def test_the_thread_is_woken_only_for_what_it_listens_to(
    writer: Writer, listening: Listening, entries: list[Entry], rings: int
) -> None:
    writer._listening = listening

    writer.put(*entries)
    writer.put(*entries)

    assert rings == writer._bell.qsize()


class Calls:
    """A driver that notes what it is asked."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []

    def execute(self, sql: str, values: Any = ()) -> None:
        self.made.append((sql, values))

    def commit(self) -> None:
        """Nothing to do."""

    def rollback(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(
    ("rows", "calls"),
    [(0, []), (1, [1]), (2, [2]), (30, [30]), (31, [30, 1]), (75, [30, 30, 15])],
)
def test_many_rows_are_few_calls(rows: int, calls: list[int]) -> None:
    driver = Calls()
    listed = [(f"account-{number}", "[]", "now") for number in range(rows)]

    Values(account_state, sqlite.dialect()).write(driver, listed)

    assert calls == [sql.count("(?, ?, ?)") for sql, _ in driver.made]
    assert [one for row in listed for one in row] == [
        value for _, values in driver.made for value in values
    ]


def test_no_statement_has_more_variables_than_an_old_sqlite_takes() -> None:
    driver = Calls()
    width = len(request.columns)

    Values(request, sqlite.dialect()).write(driver, [tuple(range(width))] * 100)

    assert 1 < max(len(values) for _, values in driver.made) <= statement.MAX_VARIABLES
