"""
What changes, looked up while it is read: requests, accounts, users, rates, warnings.

Rule 1: nothing here is called by a request. The state is compared with what it was,
        several times a second, and only while there are readers.
Rule 2: what changes often is coalesced: a request that streams is an event a second at
        most, and no more than MAX_PROGRESS of them in a second. Where more than
        MAX_FRESH begin in a second, those that go well within a second are in the rates
        alone, and readers are served once a second: so what readers cost does not grow
        with the requests. A failure is always an event.
Rule 3: other processes are asked once a second for all readers of this one. What one
        has said is taken for what it has until it has been silent for SILENT_LOOKS.
Rule 4: what happened while there was no reader is found at the next look, if it is
        still known; else no reader can go on from before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.admission.interface import AdmissionView
from gateway.endpoints.admin.accounts import AccountView
from gateway.endpoints.admin.event_log import EventLog
from gateway.endpoints.admin.live_requests import LiveRequests
from gateway.endpoints.admin.recent_warnings import RecentWarnings
from gateway.endpoints.admin.request_rows import place_of_row
from gateway.endpoints.admin.schema import AccountFacts, RequestSummary
from gateway.telemetry import log

if TYPE_CHECKING:
    from gateway.endpoints.admin.neighbours import Neighbours, Since

LOOK_S = 0.25
SLOW_LOOK_S = 1.0  # for what is not about requests, and for progress
MAX_PROGRESS = 100
MAX_FRESH = 20
SILENT_LOOKS = 3
RATE_S = 10.0  # over which rates are taken


@dataclass(frozen=True, slots=True)
class UserCount:
    """The slots of one user; *limit* is 0 for none."""

    name: str
    running: int
    waiting: int
    limit: int


@dataclass(frozen=True, slots=True)
class Rates:
    """
    Over the last seconds, of all processes.

    Attributes:
        tokens_per_s: output of the answers that run, and of those that ended.
    """

    requests_per_s: float
    tokens_per_s: float
    failures_per_min: float
    running: int
    waiting: int


@dataclass(slots=True)
class _Heard:
    """What another process had when it answered last, *looks* looks ago."""

    rows: dict[str, RequestSummary]
    now: Since
    looks: int = 0


class EventFeed:
    """
    Args:
        neighbours: the other processes; None where there are none.
        clock: monotonic seconds.

    Attributes:
        log: the events.
    """

    def __init__(
        self,
        live: LiveRequests,
        accounts: AccountView,
        admission: AdmissionView,
        warnings: RecentWarnings,
        neighbours: Neighbours | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = EventLog()
        self._live = live
        self._accounts = accounts
        self._admission = admission
        self._clock = clock
        self._rows: dict[str, RequestSummary] = {}
        self._known_accounts: dict[str, AccountFacts] = {}
        self._known_users: dict[str, UserCount] = {}
        self._ended = live.ended.count
        self._slow_at = -SLOW_LOOK_S
        self._fresh = MAX_FRESH  # rows of young requests that are left in this second
        self._done: deque[tuple[float, int, bool]] = deque()
        self._warnings = warnings
        self._warned = warnings.count
        self._neighbours = neighbours
        self._heard: dict[str, _Heard] = {}
        self._readers = 0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()

    # --- readers ----------------------------------------------------------------------

    async def enter(self) -> None:
        """One more reads: look from now on."""
        self._readers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._follow(), name="event-feed"
            )
        await self.look()

    def leave(self) -> None:
        """One less reads; the last one ends the looking."""
        self._readers -= 1
        if not self._readers and self._task:
            self._task.cancel()
            self._task = None

    async def news(self) -> None:
        """Return when there are new events."""
        await self._news.wait()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S if self._fresh > 0 else SLOW_LOOK_S)
            try:
                await self.look()
            except Exception:  # readers see nothing new; the next look may do better
                log.get().exception("events.failed")

    def snapshot(self) -> dict[str, Any]:
        """Everything as it was at the last look."""
        return {
            "requests": list(self._rows.values()),
            "accounts": list(self._known_accounts.values()),
            "users": list(self._known_users.values()),
            "rates": self._rates(),
        }

    # --- looking ----------------------------------------------------------------------

    async def look(self) -> None:
        """Add an event for everything that has changed since the last look."""
        async with self._looking:
            before = self.log.end
            is_slow = self._clock() - self._slow_at >= SLOW_LOOK_S
            self._warnings.want()
            if is_slow and self._neighbours is not None:
                await self._hear(self._neighbours)
            if is_slow:
                self._fresh = MAX_FRESH
            self._add_endings()
            progress = MAX_PROGRESS if is_slow else 0
            own = self._live.own(self._rows, progress, self._fresh)
            rows = {row.request_id: row for row in own}
            self._fresh -= len(rows.keys() - self._rows.keys())
            for heard in self._heard.values():
                rows |= heard.rows
            self._add_lost(rows)
            self._add_requests(rows, progress)
            if is_slow:
                self._slow_at = self._clock()
                await self._add_accounts()
                self._add_users()
                self.log.add("rates", self._rates())
            self._add_warnings(self._warnings.since(self._warned))
            self._warned = self._warnings.count
            if self.log.end != before:
                self._news.set()
                self._news = asyncio.Event()

    async def _hear(self, neighbours: Neighbours) -> None:
        """What other processes have, and what has ended there."""
        known = {node: heard.now for node, heard in self._heard.items()}
        for news in await neighbours.news(known):
            rows = {row.request_id: row for row in news.rows}
            self._heard[news.node] = _Heard(rows, news.now)
            if news.gap:
                self.log.forget()
            for row in news.ended:
                self._add_ending(row)
            self._add_warnings(news.warnings)
        for node, heard in list(self._heard.items()):
            heard.looks += 1
            if heard.looks > SILENT_LOOKS:
                del self._heard[node]

    def _add_warnings(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            self.log.add("log", line)

    def _add_endings(self) -> None:
        """What has ended here."""
        ended = self._live.ended
        records = ended.since(self._ended)
        if len(records) < ended.count - self._ended:
            self.log.forget()  # some are not known any more
        self._ended = ended.count
        for record in records:
            is_known = record.request_id in self._rows or record.outcome != "ok"
            if is_known or self._fresh > 0:
                self._fresh -= not is_known
                self._add_ending(*self._live.endings([record]))
            else:
                tokens = record.usage.output_tokens or 0
                self._done.append((self._clock(), tokens, False))

    def _add_lost(self, rows: Mapping[str, RequestSummary]) -> None:
        """What is not there any more, and of which no process said how it ended."""
        for ident in self._rows.keys() - rows.keys():
            row = self._rows.pop(ident)  # its process died, or does not answer
            ending = {"request_id": row.request_id, "state": "ended", "phase": "ended"}
            facts = {"node": row.node, "user": row.user, "account": row.account}
            self.log.add("request", ending | facts)

    def _add_ending(self, row: RequestSummary) -> None:
        self.log.add("request", row)
        self._rows.pop(row.request_id, None)
        failed = row.outcome in ("failed", "refused")
        self._done.append((self._clock(), row.output_tokens or 0, failed))

    def _add_requests(self, rows: dict[str, RequestSummary], left: int) -> None:
        for ident, row in rows.items():
            known = self._rows.get(ident)
            if known is row:
                continue
            is_news = known is None or place_of_row(known) != place_of_row(row)
            if not is_news:
                if not left or known == row:
                    continue
                left -= 1
            self.log.add("request", row)
        self._rows = rows

    async def _add_accounts(self) -> None:
        fresh = {one.name: one for one in await self._accounts.all()}
        for name, facts in fresh.items():
            known = self._known_accounts.get(name)
            if known is None or _standing(known) != _standing(facts):
                self.log.add("account", facts)
        for name in self._known_accounts.keys() - fresh.keys():
            self.log.add("account", {"name": name, "state": "removed"})
        self._known_accounts = fresh

    def _add_users(self) -> None:
        fresh = {
            one.name: UserCount(one.name, one.in_use, one.waiting, one.limit)
            for one in self._admission.counts("user")
        }
        if self._neighbours is not None:
            states = Counter((row.user, row.state) for row in self._rows.values())
            for name, count in fresh.items():
                running, waiting = states[name, "running"], states[name, "waiting"]
                fresh[name] = UserCount(name, running, waiting, count.limit)
        for name, count in fresh.items():
            if self._known_users.get(name) != count:
                self.log.add("user", count)
        for name in self._known_users.keys() - fresh.keys():
            self.log.add("user", {"name": name, "removed": True})
        self._known_users = fresh

    def _rates(self) -> Rates:
        now = self._clock()
        while self._done and self._done[0][0] < now - RATE_S:
            self._done.popleft()
        states = Counter(row.state for row in self._rows.values())
        running = sum(row.tokens_per_s or 0.0 for row in self._rows.values())
        failed = sum(one for _, _, one in self._done)
        return Rates(
            round(len(self._done) / RATE_S, 2),
            round(running, 1),
            round(failed * 60 / RATE_S, 1),
            states["running"] + self._live.unseen["running"],
            states["waiting"] + self._live.unseen["waiting"],
        )


def _standing(facts: AccountFacts) -> tuple[object, ...]:
    """What is news about an account; that time passes is none."""
    until = facts.until and round(facts.until.timestamp())
    slots = (facts.slots, facts.holders, facts.waiting, round(facts.wait_s))
    known = (facts.sessions, facts.failures, len(facts.outages))
    return (facts.state, facts.reason, until and until // 2, slots, known)
