"""``/api/v1/requests``: what runs, waits and has ended; one of them; ending one."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from gateway.admission.interface import AdmissionView
from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import invalid, not_found
from gateway.endpoints.admin.live_requests import MAX_OTHERS, LiveRequests
from gateway.endpoints.admin.operations import AdminCall, Operation
from gateway.endpoints.admin.request_rows import (
    detail_of_row,
    is_id,
    summary_of_row,
)
from gateway.endpoints.admin.schema import (
    Outcome,
    RequestDetail,
    RequestEnding,
    RequestList,
    RequestState,
    RequestSummary,
)
from gateway.endpoints.open_requests import OpenRequests
from gateway.errors import GatewayError
from gateway.ledger import report
from gateway.ledger.ledger import Ledger
from gateway.ledger.request_pages import PageKey, RequestFilter, ended_page

MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class RequestQuery:
    state: RequestState | None = None
    user: str = ""
    account: str = ""
    outcome: Outcome | None = None
    since: str = field(
        default="", metadata={"doc": "a day or moment in UTC, or 90m, 24h, 7d"}
    )
    limit: int = field(default=100, metadata={"doc": f"from 1 to {MAX_LIMIT}"})
    next: str = field(default="", metadata={"doc": "of the answer before"})


class RequestOperations(OperationSource):
    """The handlers."""

    def __init__(
        self,
        live: LiveRequests,
        admission: AdmissionView,
        open_requests: OpenRequests,
        ledger: Ledger,
    ) -> None:
        self._live = live
        self._admission = admission
        self._open = open_requests
        self._ledger = ledger

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET",
            "/requests",
            "Requests: those that wait and run, then those that ended, newest first",
            self._list,
            answer=RequestList,
            query=RequestQuery,
        )
        yield Operation(
            "GET",
            "/requests/{id}",
            "One request, by any of its ids or by its session's",
            self._get,
            answer=RequestDetail,
        )
        yield Operation(
            "DELETE",
            "/requests/{id}",
            "End a request that waits or runs: its client gets ended_by_operator",
            self._end,
            answer=RequestEnding,
            status=202,
        )

    # --- a list -----------------------------------------------------------------------

    async def _list(self, call: AdminCall) -> RequestList:
        query: RequestQuery = call.query
        if not 1 <= query.limit <= MAX_LIMIT:
            raise invalid("limit", f"must be from 1 to {MAX_LIMIT}")
        wanted = RequestFilter(
            query.user, query.account, query.outcome or "", since_of(query.since)
        )
        after = _key_of(query.next) if query.next else None
        rows: list[RequestSummary] = []
        if query.state != "ended" and not query.outcome and not after:
            rows = [
                row
                for row in await self._live.summaries()
                if query.state in (None, row.state) and _fits(row, wanted)
            ]
        if query.state in (None, "ended"):
            left = query.limit + 1 - len(rows)
            if left > 0:
                rows += await self._ended(wanted, left, after)
        more = rows[query.limit :]
        rows = rows[: query.limit]
        last = rows[-1] if rows else None
        pages = more and last and last.state == "ended"
        return RequestList(rows, _next_after(last) if pages and last else None)

    async def _ended(
        self, wanted: RequestFilter, limit: int, after: PageKey | None
    ) -> list[RequestSummary]:
        """At most *limit* that have ended: those of the ledger and the last ones."""
        ask = partial(_page, wanted=wanted, limit=limit, after=after)
        kept = await self._ledger.read(ask)
        known = set(map(_page_key, kept))
        latest = self._live.endings(self._live.ended)
        rows = kept + [
            row
            for row in latest
            if row.protocol
            and _page_key(row) not in known
            and _fits(row, wanted)
            and (after is None or _page_key(row) < after)
        ]
        if len(kept) == limit:  # what is older than the page belongs to the next
            oldest = _page_key(kept[-1])
            rows = [row for row in rows if _page_key(row) >= oldest]
        return sorted(rows, key=_page_key, reverse=True)[:limit]

    # --- one request ------------------------------------------------------------------

    async def _get(self, call: AdminCall) -> RequestDetail | dict[str, Any]:
        wanted = call.part("id")
        found = await self._live.maybe_detail(wanted)
        if found is not None:
            return found
        detail = await self._ledger.read(partial(_kept_detail, wanted=wanted))
        if detail is None:
            raise not_found("No request has this id")
        return detail

    async def _end(self, call: AdminCall) -> RequestEnding:
        wanted, error = call.part("id"), GatewayError("ended_by_operator")
        rows = [one for one in await self._live.summaries() if _is_row(one, wanted)]
        for row in rows:
            ident = row.request_id
            self._live.mark_ended(ident, call.who)
            if self._open.end(ident, error) or await self._admission.end(ident, error):
                call.changed(f"request.{ident}", row.phase, "ended")
                return RequestEnding(ident, row.state)
        raise not_found("No request that waits or runs has this id")


def since_of(text: str, name: str = "since") -> datetime | None:
    """
    The parameter *since*, or another of that *name*; None for none.

    Raises:
        AdminError: it is no moment.
    """
    if not text:
        return None
    try:
        return report.parse_since(text, datetime.now(UTC)).astimezone(UTC)
    except (report.QuestionError, OverflowError):
        raise invalid(name, "must be a day or a moment, or 90m, 24h, 7d") from None


def _is_row(row: RequestSummary, wanted: str) -> bool:
    return is_id(wanted, row.request_id) or wanted == row.response_id


def _fits(row: RequestSummary, wanted: RequestFilter) -> bool:
    return (
        wanted.user in ("", row.user)
        and wanted.account in ("", row.account)
        and wanted.outcome in ("", row.outcome)
        and (wanted.since is None or _page_key(row).started_at >= wanted.since)
    )


def _page(
    connection: Connection, *, wanted: RequestFilter, limit: int, after: PageKey | None
) -> list[RequestSummary]:
    return [summary_of_row(row) for row in ended_page(connection, wanted, limit, after)]


def _kept_detail(connection: Connection, *, wanted: str) -> RequestDetail | None:
    found = report.find(connection, wanted)
    if not found:
        return None
    kept = report.history(connection, found[-1])
    others = [row["request_id"] for row in found[-2::-1]]
    return detail_of_row(kept.request, kept.attempts, kept.marks, others[:MAX_OTHERS])


# --- pages ----------------------------------------------------------------------------


def _page_key(row: RequestSummary) -> PageKey:
    return PageKey(row.started_at or datetime.now(UTC), row.request_id)


def _next_after(row: RequestSummary) -> str:
    at, ident = _page_key(row)
    return base64.urlsafe_b64encode(f"{at.isoformat()} {ident}".encode()).decode()


def _key_of(text: str) -> PageKey:
    try:
        moment, _, ident = base64.b64decode(text, b"-_", True).decode().partition(" ")
        return PageKey(datetime.fromisoformat(moment).astimezone(UTC), ident)
    except (ValueError, OverflowError):
        raise invalid("next", "must be the next of an answer") from None
