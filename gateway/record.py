"""
What is known of one request; written along its way, read by log, ledger, metrics
and trace.

A record starts as ``client_gone``: a request that is cancelled on the way needs no
code to say so. Only an ending that was reached replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.usage import Usage

OUTCOMES = ("ok", "incomplete", "failed", "refused", "client_gone")

NO_FACTS: dict[str, Any] = {}

MarkTuple = tuple[float, str, dict[str, Any]]
"""A ``TimelineMark`` as a record keeps it: a plain tuple costs half."""


class TimelineMark(NamedTuple):
    """One moment of a request: seconds since it was received, what, facts."""

    at_s: float
    event: str
    facts: dict[str, Any]


@dataclass(slots=True)
class AttemptRecord:
    """One try at one account; times are Unix seconds."""

    n: int
    account: str
    started_at: float
    ended_at: float | None = None
    status: int = 0  # the upstream's HTTP status, 0 if there was none
    error_code: str = ""
    received_bytes: int = 0  # of its answer's body
    longest_gap_s: float = 0.0  # between two pieces of it
    last_received: float = 0.0  # monotonic, 0 before

    def receive(self, size: int, now: float) -> None:
        """*size* bytes of the answer have come from the upstream."""
        self.received_bytes += size
        before, self.last_received = self.last_received, now
        if before and now - before > self.longest_gap_s:
            self.longest_gap_s = now - before


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
    connection_id: str = ""  # of the websocket that it came on
    session: str = ""
    dropped: tuple[str, ...] = ()
    unknown_stop: str = ""  # the upstream's stop reason, if it is an unknown one
    detail: str = ""  # of a failure, for the log alone
    message: str = ""  # of a failure: what the client reads, without its own words
    charged: bool = False  # its cost counts for its user
    durable: bool = False  # its last row is committed
    closed: bool = False  # every sink has it
    queued: bool = False  # it had to wait for a slot
    names_account: bool = False  # its answer names the account
    extra_headers: Mapping[str, str] = field(default_factory=dict)  # of its answer
    drained: bool = False  # the client left; its answer is still read
    attempts: list[AttemptRecord] = field(default_factory=list)
    marks: list[MarkTuple] = field(default_factory=list)

    def mark(self, now: float, event: str, **facts: Any) -> None:
        """Add *event*, which happened at monotonic *now*, to the timeline."""
        self.marks.append((now - self.received, event, facts or NO_FACTS))

    def client_left(self, *, has_status: bool) -> None:
        """
        Replace the outcome: the client left before the last byte of its answer was
        sent. The row is written again. What the request cost stays.

        Args:
            has_status: the client has received an HTTP status.
        """
        self.set_outcome("client_gone", "client", "client_gone")
        self.detail = ""
        self.durable = False
        if not has_status:
            self.status = 0
        self.marks = [mark for mark in self.marks if mark[1] != "terminal"]

    def waited_s(self, now: float) -> float:
        """How long it has waited since its body was complete."""
        return now - self.arrived if self.arrived else 0.0

    def set_outcome(self, outcome: str, origin: str = "", error_code: str = "") -> None:
        """Enter how the request ended; the last call before it is closed counts."""
        self.outcome = outcome
        self.origin = origin
        self.error_code = error_code
