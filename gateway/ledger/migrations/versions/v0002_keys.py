"""Keys that lead with the time, and indexes of only what can be asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEYS = {
    "request": ["started_at", "request_id"],
    "attempt": ["request_started_at", "request_id", "n"],
    "timeline": ["started_at", "request_id"],
}
GONE = {
    "request": (
        *("request_started_at", "request_plain_id", "request_response_id"),
        *("request_upstream_request_id", "request_session", "request_open"),
    ),
    "attempt": ("attempt_request_started_at",),
    "timeline": ("timeline_started_at",),
}
PARTIAL = {
    "response_id": "response_id <> '' AND response_id <> 'resp_' || plain_id",
    "upstream_request_id": "upstream_request_id <> ''",
    "session": "session <> ''",
}


def _new_key(table: str) -> None:
    """SQLite copies the table for it; PostgreSQL makes a new index."""
    name = f"{table}_pkey"
    kind = {"sqlite_with_rowid": table != "attempt"}
    with op.batch_alter_table(table, table_kwargs=kind) as batch:
        if op.get_context().dialect.name != "sqlite":
            batch.drop_constraint(name, type_="primary")
        batch.create_primary_key(name, KEYS[table])


def _partial(name: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        "request",
        [column],
        sqlite_where=condition,
        postgresql_where=condition,
    )


def upgrade() -> None:
    """Give the tables of the requests their new keys and indexes."""
    for table, indexes in GONE.items():
        for index in indexes:
            op.drop_index(index, table)
        _new_key(table)
    op.create_index("request_plain_id", "request", ["plain_id"])
    for column, where in PARTIAL.items():
        _partial(f"request_{column}", column, where)
    _partial("request_open", "outcome", "outcome = 'open'")
