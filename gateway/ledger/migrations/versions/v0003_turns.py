"""
Kept responses become turns that go on from each other.

Each of the old ones holds its whole conversation, so it goes on from nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

COPIED = 'response_id, "user", account, created_at, expires_at, body'
MADE = "response_id || ':' || \"user\", length(body), length(body)"


def upgrade() -> None:
    """SQLite copies the table for its new key; PostgreSQL alters it."""
    if op.get_context().dialect.name == "sqlite":
        _copy()
    else:
        _alter()
    op.create_index("response_expires_at", "response", ["expires_at"])
    op.create_index("response_response_id", "response", ["response_id", "user"])
    op.create_index("response_user", "response", ["user", "created_at", "bytes"])
    op.create_index("response_parent_id", "response", ["parent_id"])


def _new_columns() -> list[sa.Column[str] | sa.Column[int]]:
    return [
        sa.Column("parent_id", sa.Text, nullable=False, server_default=""),
        sa.Column("turns", sa.Integer, nullable=False, server_default="1"),
        sa.Column("total_bytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    ]


def _copy() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "response_turns",
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        *_new_columns(),
        sa.PrimaryKeyConstraint("turn_id", name="response_pkey"),
    )
    op.execute(
        f"INSERT INTO response_turns ({COPIED}, turn_id, bytes, total_bytes)"
        f" SELECT {COPIED}, {MADE} FROM response"
    )
    op.drop_table("response")
    op.rename_table("response_turns", "response")


def _alter() -> None:
    op.drop_index("response_expires_at", "response")
    for column in (sa.Column("turn_id", sa.Text), *_new_columns()):
        op.add_column("response", column)
    op.execute(f"UPDATE response SET (turn_id, bytes, total_bytes) = ({MADE})")
    op.alter_column("response", "turn_id", nullable=False)
    op.drop_constraint("response_pkey", "response", type_="primary")
    op.create_primary_key("response_pkey", "response", ["turn_id"])
