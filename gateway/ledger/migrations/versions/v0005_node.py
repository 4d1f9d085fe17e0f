"""Which process serves a request, so that a crash of one closes its rows alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """The rows that are there have no node, so no process answers for them."""
    node = sa.Column("node", sa.Text, nullable=False, server_default="")
    op.add_column("request", node)
