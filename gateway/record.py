"""
What is known of one request; written along its way, read by log, ledger, metrics
and trace.

A record starts as ``client_gone``: whoever is cancelled on the way leaves the truth
behind, and only an ending that was really reached upgrades it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.usage import Usage

OUTCOMES = ("ok", "incomplete", "failed", "refused", "client_gone")

Marked = tuple[float, str, dict[str, Any]]
"""A ``TimelineMark`` as a record notes it: a plain tuple costs half."""


class TimelineMark(NamedTuple):
    """One moment of a request: seconds since it was received, what, facts."""

    at_s: float
    event: str
    facts: dict[str, Any]


@dataclass(slots=True)
class Attempt:
    """One try at one account; times are Unix seconds."""

    n: int
    account: str
    started_at: float
    ended_at: float | None = None
    status: int = 0  # the upstream's HTTP status, 0 if there was none
    error_code: str = ""


@dataclass(slots=True)
class Record:
    """One request. ``*_ms`` are milliseconds since it was received."""

    request_id: str
    started_at: float  # Unix seconds
    received: float  # monotonic seconds
    arrived: float = 0.0  # monotonic seconds when its body was complete, 0 before
    response_id: str = ""
    user: str = ""
    key: str = ""  # first 8 hex digits of the key's hash
    account: str = ""
    protocol: str = ""
    upstream_protocol: str = ""
    model: str = ""
    upstream_model: str = ""
    stream: bool = False
    outcome: str = "client_gone"
    origin: str = "client"
    error_code: str = "client_gone"
    status: int = 0  # the HTTP status that the client got
    queue_ms: float | None = None
    first_event_ms: float | None = None
    duration_ms: float | None = None
    usage: Usage = field(default_factory=Usage)
    estimated: bool = False
    cost_usd: float | None = None
    upstream_request_id: str = ""
    client: str = "other"
    session: str = ""
    dropped: tuple[str, ...] = ()
    unknown_stop: str = ""  # the upstream's word for why it ended, if not known
    detail: str = ""  # of a failure, for the log alone
    durable: bool = False  # the ledger has its last word
    closed: bool = False  # every sink has it
    in_line: bool = False  # it had to wait for a slot
    tells_account: bool = False  # its answer names the account
    head: Mapping[str, str] = field(default_factory=dict)  # more headers of its answer
    drained: bool = False  # the client left; its answer is still read
    attempts: list[Attempt] = field(default_factory=list)
    marks: list[Marked] = field(default_factory=list)

    def mark(self, now: float, event: str, **facts: Any) -> None:
        """Note that *event* happened at monotonic *now*."""
        self.marks.append((now - self.received, event, facts))

    def left(self, *, told: bool) -> None:
        """
        The client left before the last byte of its answer had gone out: whatever was
        entered before is overtaken, in the ledger, too. What it cost stays.

        Args:
            told: it has got a status.
        """
        self.ended("client_gone", "client", "client_gone")
        self.detail = ""
        self.durable = False
        if not told:
            self.status = 0
        self.marks = [mark for mark in self.marks if mark[1] != "terminal"]

    def waited_s(self, now: float) -> float:
        """How long it has waited since its body was complete."""
        return now - self.arrived if self.arrived else 0.0

    def ended(self, outcome: str, origin: str = "", error_code: str = "") -> None:
        """Say how it ended; the last word counts until the record is closed."""
        self.outcome = outcome
        self.origin = origin
        self.error_code = error_code
