"""The schema's versions and the tables say the same."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, inspect

from gateway.ledger import migrations, report, schema
from gateway.ledger.database import Database
from gateway.ledger.tables import metadata
from tests.ledger_places import (  # noqa: F401
    OpenLedger,
    Place,
    open_ledger_fixture,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
    record_of,
    sqlite_place_fixture,
)

CONTRACT = {
    "request": (
        "request_id response_id user account protocol upstream_protocol model"
        " upstream_model stream outcome origin error_code status attempts queue_ms"
        " first_event_ms duration_ms input_tokens cached_tokens output_tokens"
        " reasoning_tokens upstream_request_id client session started_at estimated"
        " cost_usd"
    ),
    "attempt": "request_id n account started_at ended_at status error_code",
    "runtime_user": "name max_concurrent max_queued usd_per_day tokens_per_day",
    "runtime_key": "key_sha256 user label created_at expires_at",
}


def test_the_tables_have_the_columns_of_the_contract() -> None:
    missing = {
        (table, name)
        for table, names in CONTRACT.items()
        for name in names.split()
        if name not in metadata.tables[table].columns
    }

    assert set() == missing


def test_every_migration_is_a_version() -> None:
    script = ScriptDirectory(str(Path(migrations.__path__[0])))
    made = [found.revision for found in script.walk_revisions()]

    assert list(schema.VERSIONS) == made[::-1]


@pytest.mark.parametrize("first", [None, *schema.VERSIONS])
def test_the_versions_make_the_tables_that_the_program_means(
    place: Place, first: str | None
) -> None:
    """A new ledger, and one that has come through the migrations."""
    database = Database(place.url, place.base)
    if first:
        make(database.url, first, {})
    database.prepare()

    with database.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
        made = shape(connection)
    database.dispose()

    assert [] == differences
    assert intended(place) == made


def shape(connection: Connection) -> dict[str, Any]:
    """Keys and indexes, which the comparison above does not look at closely."""
    found = inspect(connection)
    return {
        table: (
            found.get_pk_constraint(table)["constrained_columns"],
            found.get_table_options(table),
            {
                index["name"]: (
                    index["column_names"],
                    {k: str(v) for k, v in index.get("dialect_options", {}).items()},
                )
                for index in found.get_indexes(table)
            },
        )
        for table in metadata.tables
    }


def intended(place: Place) -> dict[str, Any]:
    """The shape of the tables as the program would make them, in their place."""
    database = Database(place.url, place.base)
    with database.write() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        made = shape(connection)
    database.dispose()
    return made


def make(url: URL, version: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """The tables of *version*, by the migrations, and *rows* in them."""
    engine = create_engine(url)
    with engine.begin() as connection:
        schema._migrate(connection, version)
        for table, listed in rows.items():
            connection.execute(metadata.tables[table].insert(), listed)
    engine.dispose()


async def test_a_ledger_of_the_first_version_keeps_its_rows(
    place: Place, open_ledger: OpenLedger
) -> None:
    database = Database(place.url, place.base)
    make(database.url, "0001", FIRST_ROWS)
    database.dispose()

    ledger = await open_ledger(place)

    found = await ledger.read(lambda connection: report.find(connection, "resp_up-1"))
    history = await ledger.read(lambda connection: report.history(connection, found[0]))
    assert FIRST_ROWS["request"][0].items() <= history.request.items()
    assert [FIRST_ROWS["attempt"][0]] == history.attempts
    assert [(0.5, "received", {})] == history.marks
    assert [("a", "ok"), ("b", "failed")] == place.rows(
        "SELECT request_id, outcome FROM request ORDER BY request_id"
    )
    await ledger.close(record_of("c"))
    assert [(3, 2, 2)] == place.rows(
        "SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM attempt),"
        " (SELECT count(*) FROM timeline)"
    )


AT = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
SENT = {"started_at": AT, "stream": True, "status": 200, "attempts": 1}
FIRST_ROWS: dict[str, list[dict[str, Any]]] = {
    "request": [
        {
            **{"request_id": "a", "outcome": "ok", "user": "alice", "model": "gpt-5"},
            **{"response_id": "resp_up-1", "cost_usd": 0.25, "input_tokens": 7},
            **{"estimated": False, "plain_id": "a", "session": "s-1", **SENT},
        },
        {
            **{"request_id": "b", "outcome": "open", "user": "", "model": ""},
            **{"response_id": "", "cost_usd": None, "input_tokens": None},
            **{"estimated": True, "plain_id": "b", "session": "", **SENT},
        },
    ],
    "attempt": [
        {
            **{"request_id": "a", "request_started_at": AT, "n": 1, "account": "x"},
            **{"started_at": AT, "ended_at": AT, "status": 200, "error_code": ""},
        }
    ],
    "timeline": [
        {"request_id": "a", "started_at": AT, "marks": '[[0.5, "received", {}]]'}
    ],
}


def test_preparing_twice_changes_nothing(place: Place) -> None:
    database = Database(place.url, place.base)
    database.prepare()
    database.prepare()
    database.dispose()

    assert [(schema.NEWEST,)] == place.rows("SELECT version_num FROM alembic_version")
