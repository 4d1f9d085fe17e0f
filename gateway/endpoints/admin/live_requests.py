"""
The requests that run and wait now, and those that ended last.

Those of this process are read from the open requests and from admission, those of other
processes are asked for. Of those that ended here, the last records are kept as they
are: what the ledger has not written yet is there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.admission.interface import Admission
from gateway.endpoints.admin.ended_records import EndedRecords
from gateway.endpoints.admin.request_rows import (
    ENDED,
    LiveFacts,
    detail_of_record,
    is_named,
    place_of_record,
    place_of_row,
    summary_of_holder,
    summary_of_record,
)
from gateway.endpoints.admin.schema import Phase, RequestDetail, RequestSummary
from gateway.endpoints.open_requests import OpenRequests
from gateway.endpoints.request_scope import RequestScope
from gateway.record import Record

if TYPE_CHECKING:
    from gateway.endpoints.admin.neighbours import Neighbours

NOTHING: Mapping[str, RequestSummary] = {}
MAX_OTHERS = 100  # further ids that a session's id names
YOUNG_S = 1.0
MAX_LEARNED = 20  # of the answers that ended between two looks
MAX_MODELS = 200  # whose bytes per token are remembered


class LiveRequests:
    """
    Args:
        ended: the last records of this process.
        node: the name of this process where there are others, else "".
        clock: monotonic seconds.

    Attributes:
        neighbours: the other processes; None where there are none.
        unseen: requests of the last look without a row, by state.
    """

    def __init__(
        self,
        open_requests: OpenRequests,
        admission: Admission,
        ended: EndedRecords,
        node: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.neighbours: Neighbours | None = None
        self.unseen: Counter[str] = Counter()
        self._open = open_requests
        self._admission = admission
        self.ended = ended
        self._clock = clock
        self._learned = 0
        self._bytes_per_token: dict[tuple[str, str], float] = {}

    async def summaries(self) -> list[RequestSummary]:
        """Every request that runs or waits, the oldest first; then other processes'."""
        if self.neighbours is None:
            return self.own()
        others = await self.neighbours.rows()
        return self.own() + others

    def own(
        self,
        seen: Mapping[str, RequestSummary] = NOTHING,
        progress: int = 0,
        fresh: int | None = None,
    ) -> list[RequestSummary]:
        """
        Those of this process.

        Args:
            seen: rows of an earlier look, by id: those whose place is the same are
                taken as they are, but for
            progress: so many of them, which are made anew.
            fresh: how many that are not in *seen* get a row although they are younger
                than ``YOUNG_S``; None for all. Those without are counted in
                ``unseen``.
        """
        now, own = self._clock(), self.scopes()
        self._learn()
        rows: list[RequestSummary] = []
        for scope in self._shown(own, seen, fresh):
            record = scope.record
            row = seen.get(record.request_id)
            facts = self.facts(scope)
            if row is not None and place_of_row(row) == place_of_record(record, facts):
                progress -= 1
                if progress < 0:
                    rows.append(row)
                    continue
            rows.append(summary_of_record(record, facts, now))
        known = {scope.record.request_id for scope in own}
        return rows + [
            summary_of_holder(one, self.node)
            for one in self._admission.holders_now()
            if one.request_id not in known
        ]

    def _shown(
        self,
        scopes: Iterable[RequestScope],
        seen: Mapping[str, RequestSummary],
        fresh: int | None,
    ) -> Iterator[RequestScope]:
        """Those of *scopes* that get a row; see ``own``."""
        self.unseen.clear()
        since = self._clock() - YOUNG_S
        for scope in scopes:
            record = scope.record
            is_young = record.received > since and record.request_id not in seen
            if fresh is not None and is_young:
                if fresh <= 0:
                    context = scope.context
                    waits = context is None or context.holder.state.startswith("queued")
                    self.unseen["waiting" if waits else "running"] += 1
                    continue
                fresh -= 1
            yield scope

    def endings(self, records: Iterable[Record]) -> list[RequestSummary]:
        """Those that ended here, as a list shows them."""
        now, facts = self._clock(), ENDED._replace(node=self.node)
        return [summary_of_record(one, facts, now) for one in records]

    async def maybe_detail(self, wanted: str) -> RequestDetail | dict[str, Any] | None:
        """The request that *wanted* names, wherever it runs or has just ended."""
        found = self.detail(wanted)
        if found is not None or self.neighbours is None:
            return found
        return await self.neighbours.detail(wanted)

    def detail(self, wanted: str) -> RequestDetail | None:
        """The latest of this process that *wanted* names, and which others it names."""
        now = self._clock()
        self._learn()
        named = partial(is_named, wanted)
        found = [
            detail_of_record(scope.record, self.facts(scope), now)
            for scope in reversed(self.scopes())
            if named(scope.record)
        ]
        ended = ENDED._replace(node=self.node)
        found += [
            detail_of_record(record, ended, now)
            for record in self.ended
            if named(record)
        ]
        if not found:
            return None
        found[0].others.extend(one.request_id for one in found[1 : MAX_OTHERS + 1])
        return found[0]

    def mark_ended(self, request_id: str, who: str) -> None:
        """Note in the timeline of a request, wherever it is, who ends it now."""
        self.mark_own(request_id, who)
        if self.neighbours is not None:
            self.neighbours.tell_ended(request_id, who)

    def mark_own(self, request_id: str, who: str) -> None:
        for scope in self.scopes():
            if scope.record.request_id == request_id:
                scope.record.mark(self._clock(), "ended", who=who)

    def scopes(self) -> list[RequestScope]:
        """Those of this process that ask for an answer of a model, the oldest first."""
        found = [one for one in self._open if one.context or one.reading_body]
        return sorted(found, key=lambda scope: scope.record.received)

    def facts(self, scope: RequestScope) -> LiveFacts:
        """What *scope* does now."""
        context, record = scope.context, scope.record
        now = self._clock()
        if context is None:
            arrives_s = round(now - record.received, 3)
            return LiveFacts("arriving", arrives_s, node=self.node)
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
            self.node,
        )

    def _learn(self) -> None:
        """How many bytes of a stream a token takes, from the answers that ended."""
        for record in self.ended.since(self._learned)[-MAX_LEARNED:]:
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
