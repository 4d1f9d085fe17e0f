"""
What the other processes of a gateway know: their requests, and what ended there.

    ask      all others at once; each answers for itself, or is passed over
    answer   what this process has; nothing is said while no one asks

Rule 1: an answer has bounds: what is beyond them is counted, not sent.
Rule 2: a process of another version may answer: unknown fields are passed over.

Imported only where there are others.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from gateway.admission.interface import AdmissionView
from gateway.endpoints.admin.live_requests import LiveRequests
from gateway.endpoints.admin.operations import JSON
from gateway.endpoints.admin.recent_warnings import RecentWarnings
from gateway.endpoints.admin.schema import RequestSummary
from gateway.shared.bus import Bus

MAX_ROWS = 1000  # of running and waiting requests in one answer
MAX_ENDED = 300

_FIELDS = frozenset(one.name for one in dataclasses.fields(RequestSummary))


@dataclass(frozen=True, slots=True)
class Since:
    """How much is known of a process: as many have ended, as many warnings came."""

    ended: int
    warnings: int


@dataclass(frozen=True, slots=True)
class News:
    """
    What one process says of itself.

    Attributes:
        rows: its requests that run and wait.
        ended: those that ended since; none where nothing was known of the process.
        gap: some that ended are not in *ended*.
        now: what to ask for the next time.
    """

    node: str
    rows: list[RequestSummary]
    ended: list[RequestSummary]
    warnings: list[Mapping[str, Any]]
    gap: bool
    now: Since


class Neighbours:
    """This process among the others on *bus*."""

    def __init__(
        self,
        bus: Bus,
        live: LiveRequests,
        admission: AdmissionView,
        warnings: RecentWarnings,
    ) -> None:
        self._bus = bus
        self._live = live
        self._admission = admission
        self._warnings = warnings
        bus.answer("news", self._news)
        bus.answer("request", self._detail)
        bus.answer("account-waiting", lambda text: self._waiting())
        bus.listen("ending", lambda text: live.mark_own(*orjson.loads(text)))

    # --- asking -----------------------------------------------------------------------

    async def rows(self) -> list[RequestSummary]:
        """The requests that run and wait in other processes."""
        return [row for news in await self.news({}) for row in news.rows]

    async def news(self, known: Mapping[str, Since]) -> list[News]:
        """What those say that answer; *known*: what was heard of each before."""
        asked = {node: [since.ended, since.warnings] for node, since in known.items()}
        texts = await self._bus.ask("news", orjson.dumps(asked).decode())
        return [_read(orjson.loads(text)) for text in texts]

    async def detail(self, wanted: str) -> dict[str, Any] | None:
        """The request that *wanted* names, where another process has it at hand."""
        for text in await self._bus.ask("request", orjson.dumps(wanted).decode()):
            if text:
                found: dict[str, Any] = orjson.loads(text)
                return found
        return None

    def tell_ended(self, request_id: str, who: str) -> None:
        """*who* ends that request: its timeline says so."""
        self._bus.tell("ending", orjson.dumps([request_id, who]).decode())

    async def waiting(self) -> Counter[str]:
        """How many requests of other processes wait that each account would fit."""
        total: Counter[str] = Counter()
        for text in await self._bus.ask("account-waiting"):
            total.update(orjson.loads(text))
        return total

    # --- answering --------------------------------------------------------------------

    def _news(self, text: str) -> str:
        known = orjson.loads(text).get(self._live.node)
        ended, count = self._live.ended, self._live.ended.count
        document: dict[str, Any] = {"node": self._live.node, "now": [count, 0]}
        document["rows"] = [_brief(one) for one in self._live.own()[:MAX_ROWS]]
        if known is not None:
            self._warnings.want()
            document["now"][1] = self._warnings.count
            records = ended.since(known[0])[-MAX_ENDED:]
            document["ended"] = [_brief(one) for one in self._live.endings(records)]
            document["gap"] = len(records) < count - known[0]
            document["warnings"] = self._warnings.since(known[1])
        return orjson.dumps(document, default=str, option=JSON).decode()

    def _detail(self, text: str) -> str:
        found = self._live.detail(orjson.loads(text))
        return orjson.dumps(found, default=str, option=JSON).decode() if found else ""

    def _waiting(self) -> str:
        counts = self._admission.counts("account")
        return orjson.dumps({o.name: o.waiting for o in counts if o.waiting}).decode()


def _brief(row: RequestSummary) -> dict[str, Any]:
    """*row* without what is not known of it."""
    values = ((name, getattr(row, name)) for name in _FIELDS)
    return {
        name: value
        for name, value in values
        if not (value is None or value is False or value == "" or value == [])
    }


def _read(document: Mapping[str, Any]) -> News:
    read = partial(map, _row)
    return News(
        document["node"],
        list(read(document["rows"])),
        list(read(document.get("ended", ()))),
        document.get("warnings", []),
        document.get("gap", False),
        Since(*document["now"]),
    )


def _row(values: Mapping[str, Any]) -> RequestSummary:
    facts = {name: value for name, value in values.items() if name in _FIELDS}
    if started_at := facts.get("started_at"):
        facts["started_at"] = datetime.fromisoformat(started_at)
    return RequestSummary(**{"user": "", **facts})
