"""
Questions to the ledger: who used what, and what happened to one request.

Every function takes a connection and gives plain values; it changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    func,
    literal_column,
    or_,
    select,
)

from gateway.ledger.day_sum import DaySum
from gateway.ledger.rows import plain, read_marks
from gateway.ledger.tables import (
    HAS_FOREIGN_RESPONSE_ID,
    HAS_SESSION,
    HAS_UPSTREAM_ID,
    attempt,
    request,
    timeline,
)
from gateway.record import TimelineMark

TOKENS = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
OUTCOMES = ("ok", "incomplete", "failed", "refused", "client_gone")
SUMS = ("requests", *OUTCOMES, *TOKENS, "cost_usd", "estimated", "unpriced")
BY = ("user", "model", "account", "day", "protocol", "client")
MAX_LISTED = 1000
_AGO = re.compile(r"(\d{1,5})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

ReportRow = dict[str, Any]


class QuestionError(ValueError):
    """A question that makes no sense; the text says what would."""


class RequestHistory(NamedTuple):
    """
    Everything that is known about one request.

    Attributes:
        age_s: seconds since it was received, where a process says that it runs or
            waits; its row has its ``phase`` then. None for what the ledger has.
    """

    request: ReportRow
    attempts: list[ReportRow]
    marks: list[TimelineMark]
    age_s: float | None = None


def parse_since(text: str, now: datetime) -> datetime:
    """
    A day or moment in UTC (``2026-11-24``, ``2026-11-24T09:30``), or how long before
    *now* (``90m``, ``24h``, ``7d``).

    Raises:
        QuestionError: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise QuestionError(
            f"--since {text!r}: must be a day such as 2026-11-24, or 24h, or 7d"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def parse_by(text: str) -> list[str]:
    """
    The keys in *text*, in order.

    Raises:
        QuestionError: one of them is none of ``BY``.
    """
    keys = [key.strip() for key in text.split(",") if key.strip()]
    for key in keys:
        if key not in BY:
            raise QuestionError(f"--by {key!r}: must be of {','.join(BY)}")
    return list(dict.fromkeys(keys))


def usage(
    connection: Connection,
    by: Sequence[str],
    user: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[ReportRow]:
    """
    Sums over all requests that have ended, by the keys *by*.

    A row has the keys, ``requests``, one number for each outcome, the sums of
    ``TOKENS``, ``cost_usd``, and two that say how far to trust them: ``estimated``
    requests whose usage the upstream did not report, and ``unpriced`` ones.
    """
    keys = [key_column(connection, name).label(name) for name in by]
    question = (
        select(*keys, *_sums())
        .where(request.c.outcome != "open", *_filters(user, since, until))
        .group_by(*keys)
        .order_by(*keys)
    )
    return [_plain_row(row) for row in connection.execute(question).mappings()]


def day_sums(connection: Connection, since: datetime) -> list[DaySum]:
    """What every user has used on each day, from the day of *since* on."""
    day = key_column(connection, "day").label("day")
    tokens = func.sum(_or_zero("input_tokens") + _or_zero("output_tokens"))
    question = (
        select(request.c.user, day, func.sum(_or_zero("cost_usd")), tokens)
        .where(request.c.started_at >= since.replace(hour=0, minute=0, second=0))
        .group_by(request.c.user, day)
    )
    return [
        DaySum(user, date.fromisoformat(on), float(usd), int(used))
        for user, on, usd, used in connection.execute(question)
    ]


def requests(
    connection: Connection,
    user: str = "",
    since: datetime | None = None,
    failed: bool = False,
    limit: int = MAX_LISTED,
) -> list[ReportRow]:
    """The newest requests, oldest first."""
    filters = _filters(user, since)
    if failed:
        filters.append(request.c.outcome.not_in(("ok", "open")))
    return _listed(connection, filters, limit)


def find(connection: Connection, wanted: str) -> list[ReportRow]:
    """
    The requests that *wanted* names, oldest first: a request id (dashes or not), a
    response id, an upstream's id, or the id of a client's session.
    """
    wanted = plain(wanted.strip())
    undashed = wanted.replace("-", "")
    if not undashed:
        return []
    # The words of an index's own condition: without them SQLite does not use it.
    of_one = or_(
        request.c.plain_id.in_((undashed, undashed.removeprefix("resp_"))),
        and_(request.c.response_id == wanted, HAS_FOREIGN_RESPONSE_ID),
        and_(request.c.upstream_request_id == wanted, HAS_UPSTREAM_ID),
    )
    of_session = and_(request.c.session == wanted, HAS_SESSION)
    return _listed(connection, [of_one], MAX_LISTED) or _listed(
        connection, [of_session], MAX_LISTED
    )


def history(connection: Connection, row: ReportRow) -> RequestHistory:
    """Everything about the request in *row*."""
    tries = connection.execute(
        select(attempt)
        .where(
            attempt.c.request_id == row["request_id"],
            attempt.c.request_started_at == row["started_at"],
        )
        .order_by(attempt.c.n)
    ).mappings()
    marks = connection.execute(
        select(timeline.c.marks).where(
            timeline.c.request_id == row["request_id"],
            timeline.c.started_at == row["started_at"],
        )
    ).scalar_one_or_none()
    return RequestHistory(row, [dict(one) for one in tries], read_marks(marks or "[]"))


def _listed(
    connection: Connection, filters: Iterable[ColumnElement[bool]], limit: int
) -> list[ReportRow]:
    question = (
        select(request)
        .where(*filters)
        .order_by(request.c.started_at.desc(), request.c.request_id)
        .limit(limit)
    )
    rows = [dict(row) for row in connection.execute(question).mappings()]
    return rows[::-1]


def _filters(
    user: str, since: datetime | None, until: datetime | None = None
) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if user:
        filters.append(request.c.user == user)
    if since:
        filters.append(request.c.started_at >= since)
    if until:
        filters.append(request.c.started_at < until)
    return filters


def key_column(connection: Connection, name: str) -> ColumnElement[str]:
    """The column of a request that has the key *name* of ``BY``."""
    if name != "day":
        return request.c[name]
    if connection.dialect.name == "sqlite":
        return func.date(request.c.started_at)
    utc: ColumnElement[str] = literal_column("'UTC'")
    day: ColumnElement[str] = literal_column("'YYYY-MM-DD'")
    return func.to_char(func.timezone(utc, request.c.started_at), day)


def _sums() -> list[ColumnElement[Any]]:
    outcome, cost = request.c.outcome, request.c.cost_usd
    tokens = _or_zero("input_tokens") + _or_zero("output_tokens")
    return [
        func.count().label("requests"),
        *(_count(outcome == name).label(name) for name in OUTCOMES),
        *(func.sum(_or_zero(name)).label(name) for name in TOKENS),
        func.sum(_or_zero("cost_usd")).label("cost_usd"),
        _count(request.c.estimated).label("estimated"),
        _count(cost.is_(None) & (tokens > 0)).label("unpriced"),
    ]


def _or_zero(name: str) -> ColumnElement[Any]:
    return func.coalesce(request.c[name], 0)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _plain_row(row: RowMapping) -> ReportRow:
    """Whole numbers as int (PostgreSQL sums to Decimal), money as float."""
    return {
        name: (
            value
            if isinstance(value, str)
            else round(float(value or 0), 9) if name == "cost_usd" else int(value or 0)
        )
        for name, value in row.items()
    }
