"""The schema's versions and the tables say the same."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gateway.ledger.database import Database
from gateway.ledger.tables import metadata
from tests.ledger_places import (  # noqa: F401
    Place,
    place_fixture,
    postgres_fixture,
    postgres_place_fixture,
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
}


def test_the_tables_have_the_columns_of_the_contract() -> None:
    missing = {
        (table, name)
        for table, names in CONTRACT.items()
        for name in names.split()
        if name not in metadata.tables[table].columns
    }

    assert set() == missing


def test_the_versions_make_the_tables_that_the_program_means(place: Place) -> None:
    database = Database(place.url, place.base)
    database.prepare()

    with database.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    database.dispose()

    assert [] == differences


def test_preparing_twice_changes_nothing(place: Place) -> None:
    database = Database(place.url, place.base)
    database.prepare()
    database.prepare()
    database.dispose()

    assert [("0001",)] == place.rows("SELECT version_num FROM alembic_version")
