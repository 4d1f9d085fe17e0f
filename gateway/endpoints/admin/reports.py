"""``/api/v1/usage`` and ``/api/v1/health``: what was used, and how well it went."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import invalid
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.admin.requests import since_of
from gateway.ledger import report
from gateway.ledger.health import MAX_HOURS, HourOfHealth, by_hour
from gateway.ledger.ledger import Ledger

DEFAULT_BY = "user"
DEFAULT_HEALTH = timedelta(hours=24)
MOMENT = {"doc": "a day or moment in UTC, or 90m, 24h, 7d"}


@dataclass(frozen=True, slots=True)
class UsageQuery:
    by: str = field(
        default=DEFAULT_BY, metadata={"doc": f"any of {','.join(report.BY)}"}
    )
    user: str = ""
    since: str = field(default="", metadata=MOMENT)
    until: str = field(default="", metadata=MOMENT)


@dataclass(frozen=True, slots=True)
class UsageList:
    """
    Attributes:
        data: sums, each with the keys that were asked for, ``requests``, one number
            for each outcome, tokens by kind, ``cost_usd``, and how far to trust them:
            ``estimated`` and ``unpriced`` requests.
    """

    data: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HealthQuery:
    since: str = field(
        default="", metadata={"doc": f"at most {MAX_HOURS} hours ago; without it 24h"}
    )


@dataclass(frozen=True, slots=True)
class Failures:
    """
    Attributes:
        origin, code: requests that failed or were refused.
        account: attempts that failed, also those that another account made good.
    """

    origin: dict[str, int]
    code: dict[str, int]
    account: dict[str, int]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds; null where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class HealthHour:
    """
    Attributes:
        hour: its beginning.
        well: ended ok or incomplete.
        counted: well, or failed by the fault of the gateway or of an upstream.
        well_share: the part of *counted* that was well; null where there is none.
        attempts: by account.
    """

    hour: datetime
    requests: int
    well: int
    counted: int
    well_share: float | None
    failures: Failures
    attempts: dict[str, int]
    first_event_ms: Percentiles
    queue_ms: Percentiles


@dataclass(frozen=True, slots=True)
class HealthList:
    """Hours, oldest first; those without a request, too."""

    data: list[HealthHour]


class ReportOperations(OperationSource):
    """The handlers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET",
            "/usage",
            "Sums of requests, tokens and cost",
            self._usage,
            answer=UsageList,
            query=UsageQuery,
        )
        yield Operation(
            "GET",
            "/health",
            "By hour: well for the user or not, whose fault, and how long it took",
            self._health,
            answer=HealthList,
            query=HealthQuery,
        )

    async def _usage(self, call: AdminCall) -> UsageList:
        query: UsageQuery = call.query
        try:
            by = report.parse_by(query.by)
        except report.QuestionError:
            raise invalid("by", f"must be of {','.join(report.BY)}") from None
        ask = partial(
            report.usage,
            by=by,
            user=query.user,
            since=since_of(query.since),
            until=since_of(query.until, "until"),
        )
        return UsageList(await self._ledger.read(ask))

    async def _health(self, call: AdminCall) -> HealthList:
        query: HealthQuery = call.query
        now = datetime.now(UTC)
        since = since_of(query.since) or now - DEFAULT_HEALTH
        if now - since > timedelta(hours=MAX_HOURS):
            raise invalid("since", f"must be at most {MAX_HOURS} hours ago")
        hours = await self._ledger.read(partial(by_hour, since=since, until=now))
        return HealthList([_hour(one) for one in hours])


def _hour(one: HourOfHealth) -> HealthHour:
    share = one.well_share
    return HealthHour(
        hour=one.hour,
        requests=one.requests,
        well=one.well,
        counted=one.counted,
        well_share=None if share is None else round(share, 6),
        failures=Failures(one.origin, one.code, one.failed),
        attempts=one.attempts,
        first_event_ms=Percentiles(**one.first_event),
        queue_ms=Percentiles(**one.queue),
    )
