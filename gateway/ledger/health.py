"""
How well requests went, by the hour: for their users, by whose fault, by account.

Rule 1: ``ok`` and ``incomplete`` are well. What failed or was refused by a client's own
        fault, and what a client left, counts neither way.
Rule 2: a percentile is a value that was measured: the least that so large a part of
        the requests does not exceed.
Rule 3: every hour is there, also one without requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, literal_column, select

from gateway.errors import UPSTREAM_CODES
from gateway.ledger.tables import attempt, request

WELL = ("ok", "incomplete")
BAD = ("failed", "refused")
ORIGINS = ("client", "gateway", "upstream")
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MAX_HOURS = 31 * 24
HOUR = timedelta(hours=1)


@dataclass(slots=True)
class HourOfHealth:
    """
    One hour; times are milliseconds.

    Attributes:
        origin, code: failures and refusals by whose fault and by error code.
        attempts, failed: tries at each account, and those that failed.
        first_event, queue: the percentiles, None where nothing was measured.
    """

    hour: datetime
    requests: int = 0
    well: int = 0
    origin: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ORIGINS, 0))
    code: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    first_event: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(PERCENTILES)
    )
    queue: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(PERCENTILES)
    )

    @property
    def counted(self) -> int:
        """Those that were well or not: the whole of which ``well`` is a part."""
        return self.well + self.origin["gateway"] + self.origin["upstream"]

    @property
    def well_share(self) -> float | None:
        """The part that was well for its user; None where none counts."""
        return self.well / self.counted if self.counted else None


def by_hour(
    connection: Connection, since: datetime, until: datetime
) -> list[HourOfHealth]:
    """
    The hours from that of *since* to that of *until*, oldest first; at most the last
    ``MAX_HOURS``.
    """
    last = _begin_of_hour(until)
    first = max(_begin_of_hour(since), last - (MAX_HOURS - 1) * HOUR)
    hours = {_key(at): HourOfHealth(at) for at in _hours(first, last)}
    for hour, outcome, origin, code, count in _outcomes(connection, first):
        if one := hours.get(hour):
            _add(one, outcome, origin, code, int(count))
    for hour, account, count, failed in _attempts(connection, first):
        if one := hours.get(hour):
            one.attempts[account] = int(count)
            one.failed[account] = int(failed or 0)
    for name in ("first_event", "queue"):
        for hour, *values in _percentiles(connection, f"{name}_ms", first):
            if one := hours.get(hour):
                setattr(one, name, dict(zip(PERCENTILES, map(_rounded, values))))
    return list(hours.values())


def _add(one: HourOfHealth, outcome: str, origin: str, code: str, count: int) -> None:
    one.requests += count
    if outcome in WELL:
        one.well += count
    elif outcome in BAD:
        whose = origin if origin in ORIGINS else "gateway"
        one.origin[whose] += count
        one.code[code] = one.code.get(code, 0) + count


def _outcomes(connection: Connection, first: datetime) -> Iterable[Any]:
    hour = _hour_of(connection, request.c.started_at).label("hour")
    columns = (hour, request.c.outcome, request.c.origin, request.c.error_code)
    return connection.execute(
        select(*columns, func.count())
        .where(request.c.outcome != "open", request.c.started_at >= first)
        .group_by(*columns)
    )


def _attempts(connection: Connection, first: datetime) -> Iterable[Any]:
    hour = _hour_of(connection, attempt.c.request_started_at).label("hour")
    failed = case((attempt.c.error_code.in_(UPSTREAM_CODES), 1), else_=0)
    return connection.execute(
        select(hour, attempt.c.account, func.count(), func.sum(failed))
        .where(attempt.c.request_started_at >= first)
        .group_by(hour, attempt.c.account)
    )


def _percentiles(connection: Connection, name: str, first: datetime) -> Iterable[Any]:
    """(hour, p50, p95, p99) of the column *name*."""
    hour = _hour_of(connection, request.c.started_at).label("hour")
    value = request.c[name].label("value")
    # A name, not the expression: a bound value in it would make it another one.
    window: ColumnElement[str] = literal_column("hour")
    inner = (
        select(hour, value)
        .where(
            request.c.started_at >= first,
            request.c.outcome != "open",
            request.c[name].is_not(None),
        )
        .subquery()
    )
    ranked = select(
        inner.c.hour,
        inner.c.value,
        func.row_number().over(partition_by=window, order_by=inner.c.value).label("n"),
        func.count().over(partition_by=window).label("of"),
    ).subquery()
    reached = [
        func.min(case((ranked.c.n >= part * ranked.c["of"], ranked.c.value)))
        for part in PERCENTILES.values()
    ]
    return connection.execute(select(ranked.c.hour, *reached).group_by(ranked.c.hour))


def _hour_of(connection: Connection, column: Any) -> ColumnElement[str]:
    """``2026-11-24 09``, in UTC."""
    if connection.dialect.name == "sqlite":
        form: ColumnElement[str] = literal_column("'%Y-%m-%d %H'")
        return func.strftime(form, column)
    utc: ColumnElement[str] = literal_column("'UTC'")
    form = literal_column("'YYYY-MM-DD HH24'")
    return func.to_char(func.timezone(utc, column), form)


def _key(hour: datetime) -> str:
    return f"{hour:%Y-%m-%d %H}"


def _hours(first: datetime, last: datetime) -> Iterator[datetime]:
    while first <= last:
        yield first
        first += HOUR


def _begin_of_hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 1)
