"""
The requests that run and wait now, and those that ended last, in this process.

The first are read from the open requests and from admission, which knows those of other
processes, too. Of those that ended, the last records are kept as they are: what the
ledger has not written yet, or never keeps, is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.admission.interface import Admission
from gateway.endpoints.admin.ended_records import EndedRecords
from gateway.endpoints.admin.request_rows import (
    ENDED,
    LiveFacts,
    detail_of_record,
    summary_of_holder,
    summary_of_record,
)
from gateway.endpoints.admin.schema import Phase, RequestDetail, RequestSummary
from gateway.endpoints.open_requests import OpenRequests
from gateway.endpoints.request_scope import RequestScope
from gateway.record import Record

MAX_MODELS = 200  # whose bytes per token are remembered


class LiveRequests:
    """
    Args:
        ended: the last records of this process.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        open_requests: OpenRequests,
        admission: Admission,
        ended: EndedRecords,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open_requests
        self._admission = admission
        self.ended = ended
        self._clock = clock
        self._learned = 0
        self._bytes_per_token: dict[tuple[str, str], float] = {}

    async def summaries(self) -> list[RequestSummary]:
        """Every request that runs or waits, the oldest first; then other nodes'."""
        holders = await self._admission.holders()
        now, own = self._clock(), self.scopes()
        self._learn()
        known = {scope.record.request_id for scope in own}
        rows = [summary_of_record(one.record, self.facts(one), now) for one in own]
        return rows + [
            summary_of_holder(one) for one in holders if one.request_id not in known
        ]

    def details(self, named: Callable[[Record], bool]) -> list[RequestDetail]:
        """Those that *named* picks, live or ended lately; the latest first."""
        now = self._clock()
        self._learn()
        live = [
            detail_of_record(scope.record, self.facts(scope), now)
            for scope in reversed(self.scopes())
            if named(scope.record)
        ]
        return live + [
            detail_of_record(record, ENDED, now)
            for record in self.ended
            if named(record)
        ]

    def scopes(self) -> list[RequestScope]:
        """Those of this process that ask for an answer of a model, the oldest first."""
        found = [one for one in self._open if one.context or one.reading_body]
        return sorted(found, key=lambda scope: scope.record.received)

    def facts(self, scope: RequestScope) -> LiveFacts:
        """What *scope* does now."""
        context, record = scope.context, scope.record
        now = self._clock()
        if context is None:
            return LiveFacts("arriving", round(now - record.received, 3))
        holder = context.holder
        phase: Phase = "running"
        place = None
        if holder.state.startswith("queued"):
            phase = "queued_user" if holder.state == "queued_user" else "queued_account"
            place = self._admission.queue_position(holder)
        return LiveFacts(
            phase,
            round(now - holder.since, 3) if holder.since else None,
            place.position if place else None,
            round(place.expected_s, 1) if place else None,
            self._bytes_per_token.get((record.account, record.upstream_model)),
        )

    def _learn(self) -> None:
        """How many bytes of a stream a token takes, from the answers that ended."""
        for record in self.ended.since(self._learned):
            tokens, attempts = record.usage.output_tokens, record.attempts
            if not (tokens and attempts and record.stream) or record.estimated:
                continue
            if len(self._bytes_per_token) >= MAX_MODELS:
                self._bytes_per_token.clear()
            each = attempts[-1].received_bytes / tokens
            key = record.account, record.upstream_model
            before = self._bytes_per_token.get(key, each)
            self._bytes_per_token[key] = before + (each - before) / 4
        self._learned = self.ended.count
