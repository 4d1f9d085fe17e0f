"""
What ``gateway top`` knows: the state of the events, what is selected, sorted, filtered.

Pure: times are given, and keys are words.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SORTS = ("age", "user", "account", "tokens")
MAX_FAILURES = 50
FAILED = ("failed", "refused")

Facts = dict[str, Any]


@dataclass(slots=True)
class TopState:
    """
    Attributes:
        requests: those that wait and run, by id.
        seen_at: when each was last heard of, in seconds of the caller's clock.
        failures: the latest last, as lines.
        selected: the id of a request; "" for none.
        at: its place among the rows, for when it ends.
        message: what came of the last action.
        timeline: the lines of an opened request; empty for none.
        top_line: the first of them that is seen.
    """

    requests: dict[str, Facts] = field(default_factory=dict)
    accounts: dict[str, Facts] = field(default_factory=dict)
    users: dict[str, Facts] = field(default_factory=dict)
    rates: Facts = field(default_factory=dict)
    seen_at: dict[str, float] = field(default_factory=dict)
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_FAILURES))
    connected: bool = False
    sort: str = SORTS[0]
    filter: str = ""
    selected: str = ""
    at: int = 0
    message: str = ""
    timeline: list[str] = field(default_factory=list)
    top_line: int = 0

    def apply(self, event: str, data: Mapping[str, Any], now: float) -> None:
        """Take up one event."""
        self.connected = True
        if event == "snapshot":
            self._take(data, now)
        elif event == "request":
            self._request(dict(data), now)
        elif event == "account":
            self._named(self.accounts, dict(data))
        elif event == "user":
            self._named(self.users, dict(data))
        elif event == "rates":
            self.rates = dict(data)
        elif event == "log":
            self._logged(data)

    def _take(self, data: Mapping[str, Any], now: float) -> None:
        self.requests = {one["request_id"]: one for one in data["requests"]}
        self.seen_at = dict.fromkeys(self.requests, now)
        self.accounts = {one["name"]: one for one in data["accounts"]}
        self.users = {one["name"]: one for one in data["users"]}
        self.rates = data["rates"]

    def _request(self, row: Facts, now: float) -> None:
        ident = row["request_id"]
        if row["state"] == "ended":
            self.requests.pop(ident, None)
            self.seen_at.pop(ident, None)
            return
        self.requests[ident] = row
        self.seen_at[ident] = now

    def _named(self, known: dict[str, Facts], row: Facts) -> None:
        if row.get("state") == "removed" or row.get("removed"):
            known.pop(row["name"], None)
        else:
            known[row["name"]] = row

    def _logged(self, line: Mapping[str, Any]) -> None:
        at = str(line.get("timestamp", ""))[11:19]
        names = ("account", "user", "error_code", "reason", "detail", "request_id")
        facts = (f"{name}={line[name]}" for name in names if line.get(name))
        self.failures.append(f"{at} {line['event']} {' '.join(facts)}")

    # --- what is shown ----------------------------------------------------------------

    def age_s(self, row: Facts, now: float) -> float:
        """Seconds since the request was received, or since it was first seen."""
        known_s = row["age_s"] if row.get("age_s") is not None else row.get("state_s")
        return (known_s or 0.0) + now - self.seen_at.get(row["request_id"], now)

    def rows(self, now: float) -> list[Facts]:
        """The requests in the order and with the filter that were chosen."""
        wanted = self.filter.lower()
        names = ("request_id", "user", "account", "model", "state", "client")
        found = [
            row
            for row in self.requests.values()
            if any(wanted in str(row.get(name) or "").lower() for name in names)
        ]
        if self.sort == "age":
            return sorted(found, key=lambda row: -self.age_s(row, now))
        if self.sort == "tokens":
            return sorted(found, key=lambda row: -(row.get("tokens_per_s") or 0.0))
        return sorted(found, key=lambda row: str(row.get(self.sort) or ""))

    def move(self, steps: int, now: float) -> None:
        """Select another row."""
        ids = [row["request_id"] for row in self.rows(now)]
        if not ids:
            self.selected = ""
            return
        if self.selected:
            at = ids.index(self.selected) if self.selected in ids else self.at
            self.at = max(0, min(at + steps, len(ids) - 1))
        else:
            self.at = 0
        self.selected = ids[self.at]

    def chosen(self, now: float) -> str:
        """The selected request, if it is still there and seen; "" else."""
        ids = [row["request_id"] for row in self.rows(now)]
        return self.selected if self.selected in ids else ""

    def open(self, lines: list[str]) -> None:
        """Show *lines* instead of everything else."""
        self.timeline, self.top_line = lines, 0

    def turn(self, key: str) -> None:
        """Move in what is open; any other key closes it."""
        if key in "jk":
            step = 1 if key == "j" else -1
            self.top_line = max(0, min(self.top_line + step, len(self.timeline) - 1))
        else:
            self.timeline = []

    def next_sort(self) -> None:
        """Sort by the next of SORTS."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]


def left_s(until: str | None, now: datetime) -> float | None:
    """Seconds until the moment *until*; None for none, or one that is over."""
    if not until:
        return None
    left = (datetime.fromisoformat(until) - now).total_seconds()
    return left if left > 0 else None
