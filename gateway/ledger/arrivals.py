"""The requests of the ledger as admission met them: who came when, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, select

from gateway.ledger.tables import request

REFUSED_IN_QUEUE = ("queue_full", "queue_timeout")
FETCHED_AT_ONCE = 5000


class PastRequest(NamedTuple):
    """
    A request that has ended.

    Attributes:
        account: where it ran last; "" if it never ran.
        session: names its conversation; "" for none.
        wait_s: in the queues.
        service_s: how long it held its slots; None if it never got them.
        refused: queue_full, queue_timeout, left (its client, while it waited), or "".
    """

    at: datetime
    user: str
    model: str
    account: str
    session: str
    wait_s: float
    service_s: float | None
    refused: str


def past_requests(connection: Connection, since: datetime) -> Iterator[PastRequest]:
    """Every request since *since* that asked for a slot, in the order of arrival."""
    r = request.c
    question = (
        select(
            r.started_at,
            r.user,
            r.model,
            r.account,
            r.session,
            r.queue_ms,
            r.duration_ms,
            r.outcome,
            r.error_code,
            r.attempts,
        )
        .where(r.started_at >= since, r.outcome != "open", r.user != "")
        .order_by(r.started_at)
    )
    result = connection.execution_options(yield_per=FETCHED_AT_ONCE).execute(question)
    for at, user, model, account, session, queue, duration, *ending in result:
        outcome, code, attempts = ending
        wait_s, whole_s = (queue or 0.0) / 1000, (duration or 0.0) / 1000
        refused = ""
        if not attempts:
            if code in REFUSED_IN_QUEUE:
                refused = code
            elif outcome == "client_gone" and queue is not None:
                refused = "left"
            else:
                continue  # it never came so far
        service_s = None if refused else max(0.0, whole_s - wait_s)
        yield PastRequest(at, user, model, account, session, wait_s, service_s, refused)
