"""What one user has used, by day and model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from gateway.ledger.report import key_column
from gateway.ledger.tables import request

MAX_ROWS = 1000
TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


def usage_of(
    connection: Connection, user: str, since: datetime
) -> Sequence[dict[str, Any]]:
    """
    Sums of the requests of *user* that were sent to an account, the newest day first.

    Each row has ``day``, ``model``, ``requests``, the sums of ``TOKENS`` and
    ``cost_usd``; beyond ``MAX_ROWS`` the oldest are left out.
    """
    day, model = key_column(connection, "day").label("day"), request.c.model
    sums = [
        func.sum(func.coalesce(request.c[name], 0)).label(name)
        for name in (*TOKENS, "cost_usd")
    ]
    question = (
        select(day, model, func.count().label("requests"), *sums)
        .where(
            request.c.user == user,
            request.c.started_at >= since,
            # What was refused has cost nothing, and its model may be any word.
            request.c.attempts > 0,
            request.c.outcome != "open",
        )
        .group_by(day, model)
        .order_by(day.desc(), model)
        .limit(MAX_ROWS)
    )
    return [
        {
            "day": row["day"],
            "model": row["model"],
            "requests": int(row["requests"]),
            **{name: int(row[name]) for name in TOKENS},
            "cost_usd": round(float(row["cost_usd"]), 9),
        }
        for row in connection.execute(question).mappings()
    ]
