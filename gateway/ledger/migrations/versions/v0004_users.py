"""Users and keys that are made at run time, and when each key was used last."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """New tables only."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "runtime_user",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("max_concurrent", sa.Integer),
        sa.Column("max_queued", sa.Integer),
        sa.Column("queue_timeout_s", sa.Float(53)),
        sa.Column("ping_interval_s", sa.Float(53)),
        sa.Column("max_waiting_bytes", sa.BigInteger),
        _budget("usd_per_day", sa.Float(53)),
        _budget("usd_per_month", sa.Float(53)),
        _budget("tokens_per_day", sa.BigInteger()),
        _budget("requests_per_minute", sa.Integer()),
    )
    op.create_table(
        "runtime_key",
        sa.Column("key_sha256", sa.Text, primary_key=True),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
    )
    op.create_index("runtime_key_user", "runtime_key", ["user"])
    op.create_table(
        "key_use",
        sa.Column("key_sha256", sa.Text, primary_key=True),
        sa.Column("last_used_at", moment, nullable=False),
    )
    op.create_table(
        "runtime_version",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )


def _budget(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default="0")
