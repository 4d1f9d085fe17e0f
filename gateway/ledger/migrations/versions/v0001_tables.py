"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def _request() -> None:
    op.create_table(
        "request",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("started_at", MOMENT, primary_key=True),
        *map(_text, ("response_id", "user", "key", "account", "protocol")),
        *map(_text, ("upstream_protocol", "model", "upstream_model")),
        sa.Column("stream", sa.Boolean, nullable=False),
        *map(_text, ("outcome", "origin", "error_code")),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("queue_ms", sa.Float),
        sa.Column("first_event_ms", sa.Float),
        sa.Column("duration_ms", sa.Float),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("cache_write_1h_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost_usd", sa.Float(53)),
        *map(_text, ("upstream_request_id", "client", "session", "dropped")),
        _text("plain_id"),
    )
    for column in ("started_at", "plain_id", "response_id", "upstream_request_id"):
        op.create_index(f"request_{column}", "request", [column])
    op.create_index("request_session", "request", ["session"])
    is_open = sa.text("outcome = 'open'")
    op.create_index(
        "request_open",
        "request",
        ["outcome"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def _of_a_request() -> None:
    op.create_table(
        "attempt",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("request_started_at", MOMENT, primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        _text("account"),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.Column("status", sa.Integer, nullable=False),
        _text("error_code"),
    )
    op.create_index("attempt_request_started_at", "attempt", ["request_started_at"])
    op.create_table(
        "timeline",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("started_at", MOMENT, primary_key=True),
        sa.Column("marks", sa.Text, nullable=False),
    )
    op.create_index("timeline_started_at", "timeline", ["started_at"])


def _kept() -> None:
    op.create_table(
        "account_state",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
    )
    op.create_table(
        "response",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("user", sa.Text, primary_key=True),
        _text("account"),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("response_expires_at", "response", ["expires_at"])


def upgrade() -> None:
    """Make every table of the first version."""
    _request()
    _of_a_request()
    _kept()
