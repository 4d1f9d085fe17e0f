"""Accounts that an operator has paused, or whose cooldown was forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """New tables only."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "account_pause",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("paused_at", moment, nullable=False),
        sa.Column("who", sa.Text, nullable=False, server_default=""),
    )
    op.create_table(
        "account_reset",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("reset_at", moment, nullable=False),
    )
