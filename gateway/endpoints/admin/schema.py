"""What the admin API answers about requests and accounts: the shapes alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

RequestState = Literal["running", "waiting", "ended"]
Phase = Literal[
    "arriving", "queued_user", "queued_account", "running", "draining", "ended"
]
Outcome = Literal["ok", "incomplete", "failed", "refused", "client_gone"]
AccountState = Literal["ready", "cooling", "paused"]


@dataclass(slots=True, kw_only=True)
class RequestFacts:
    """
    One request. Texts that are not known are empty, numbers null. Nothing changes one;
    it is not frozen, since a frozen one of so many fields takes three times as long to
    make, and readers of the events want many.

    Attributes:
        phase: what it does within its state; ``arriving``: its body is not complete.
        node: the process that serves it; "" where there is one.
        age_s: seconds since it was received.
        state_s: seconds in its present phase.
        position, wait_s: in the queue, and the seconds until its slot.
        received_bytes: of the answer that is under way.
        tokens_per_s: output of the answer that is under way, estimated by its bytes;
            of one that has ended, over the time since its first output.
    """

    request_id: str
    state: RequestState
    phase: Phase
    user: str
    account: str = ""
    node: str = ""
    response_id: str = ""
    key: str = ""
    protocol: str = ""
    upstream_protocol: str = ""
    model: str = ""
    upstream_model: str = ""
    stream: bool | None = None
    client: str = ""
    session: str = ""
    started_at: datetime | None = None
    age_s: float | None = None
    state_s: float | None = None
    position: int | None = None
    wait_s: float | None = None
    received_bytes: int | None = None
    tokens_per_s: float | None = None
    outcome: str = ""
    origin: str = ""
    error_code: str = ""
    status: int | None = None
    queue_ms: float | None = None
    first_event_ms: float | None = None
    duration_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    cost_usd: float | None = None
    upstream_request_id: str = ""
    dropped: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class RequestSummary(RequestFacts):
    """A request in a list; ``attempts`` is how many accounts were asked."""

    attempts: int = 0


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """One try at one account; ``status`` is the upstream's, null without one."""

    n: int
    account: str
    started_at: datetime
    ended_at: datetime | None
    status: int | None
    error_code: str


@dataclass(slots=True, kw_only=True)
class RequestDetail(RequestFacts):
    """
    A request with everything that is known of it.

    Attributes:
        timeline: ``at_ms``, ``event`` and the facts of each event.
        others: the ids of further requests that the id names, as a session does.
    """

    attempts: list[AttemptFacts]
    timeline: list[dict[str, Any]]
    others: list[str]


@dataclass(frozen=True, slots=True)
class RequestList:
    """``next`` is there where there is more: give it back as the parameter *next*."""

    data: list[RequestSummary]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class RequestEnding:
    """A request that is being ended, and in which state it was."""

    request_id: str
    state: RequestState


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """``limit`` is 0 for none."""

    in_use: int
    limit: int


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """A user who has slots of an account."""

    user: str
    requests: int


@dataclass(frozen=True, slots=True)
class OutageFacts:
    """
    What an account is left out for.

    Attributes:
        scope: ``account``: for all; else for the ``user`` or ``model`` *name*.
        failures: in a row.
    """

    scope: str
    name: str
    reason: str
    until: datetime
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFacts:
    """
    One account.

    Attributes:
        reason: of a cooldown, or "paused"; "" for none.
        until: when it is asked again; null while it is ready or paused.
        paused_by: as ``who`` of ``admin.changed``.
        outages: also those that concern one user or one model alone.
        holders: who has its slots, on every node.
        waiting: requests that it would fit, and that wait for a slot.
        wait_s: that one more request would wait for a slot here.
        failures: attempts that failed in the last hour, by code.
    """

    name: str
    state: AccountState
    reason: str
    until: datetime | None
    returns_in_s: float | None
    paused_at: datetime | None
    paused_by: str
    protocol: str
    base_url: str
    models: list[str]
    priority: int
    slots: SlotFacts
    holders: list[SlotHolder]
    waiting: int
    wait_s: float
    sessions: int
    failures_last_hour: int
    failures: dict[str, int]
    outages: list[OutageFacts]


@dataclass(frozen=True, slots=True)
class AccountList:
    """Every account of the config."""

    data: list[AccountFacts]
