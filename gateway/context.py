"""The request context: what the packages that serve one model request need of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from multidict import CIMultiDictProxy

from gateway.accounts.choice import AccountQuery
from gateway.accounts.session import Session
from gateway.admission.body_room import BodyShare
from gateway.admission.interface import Holder, QueuePosition, Slot
from gateway.client.body import RequestBody
from gateway.client.kinds import ClientKind
from gateway.config.schema import Limits, User
from gateway.protocols.protocol import WireProtocol
from gateway.record import NO_FACTS, AttemptRecord, Record


@dataclass(slots=True)
class RequestContext:
    """
    Attributes:
        path: the endpoint behind ``/v1``.
        query: the query string of the client's URL.
        session: the conversation, for affinity.
        deadline: monotonic seconds until which the request may wait for slots.
        slot: the user's; None before it is granted and once a drain has it.
        share: what its body takes of its user's room, until an account is asked.
        stopped: the code by which it was ended from outside: its answer is not read on.
        shown_position: the position in the queue that its client was last shown.
        account_query: what it asks of accounts.
    """

    ask: RequestBody
    record: Record
    wire: WireProtocol
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    user: User
    limits: Limits
    client: ClientKind
    session: Session
    holder: Holder
    deadline: float
    share: BodyShare
    slot: Slot | None = None
    stopped: str = ""
    shown_position: int = 0
    account_query: AccountQuery = field(init=False)

    def __post_init__(self) -> None:
        self.account_query = AccountQuery(
            self.ask.model, self.wire.name, self.session, self.user.name
        )
        waiting = self.record, self.ask
        self.holder.on_wait = MethodType(_begin_to_wait, waiting)  # half of a partial

    @property
    def attempt(self) -> AttemptRecord:
        """The attempt that is under way."""
        return self.record.attempts[-1]

    def mark(self, event: str, **facts: Any) -> None:
        """Note a moment in the timeline."""
        record = self.record
        record.marks.append(
            (time.monotonic() - record.received, event, facts or NO_FACTS)
        )

    def show_position(self, position: int) -> None:
        """Note the *position* in the queue that its client is shown, if it is new."""
        if position != self.shown_position:
            self.shown_position = position
            self.mark("position_shown", position=position)

    def mark_ending(self, outcome: str, **facts: Any) -> None:
        """Note how the answer ended, and what it was like on the way."""
        attempts = self.record.attempts
        last = attempts[-1] if attempts else AttemptRecord(0, "", 0.0)
        self.mark(
            "terminal",
            outcome=outcome,
            bytes=last.received_bytes,
            longest_gap_ms=round(last.longest_gap_s * 1000, 1),
            **facts,
        )

    def first_output(self) -> None:
        """The first real output is there."""
        now, record = time.monotonic(), self.record
        record.first_event_ms = (now - record.received) * 1000
        record.mark(now, "first_output")


def _begin_to_wait(waiting: tuple[Record, RequestBody], place: QueuePosition) -> None:
    """Note that a request waits in a queue; its body is parsed again behind it."""
    record, ask = waiting
    record.queued = True
    record.mark(
        time.monotonic(),
        "queued",
        scope=place.scope,
        position=place.position,
        expected_s=round(place.expected_s, 1),
        taken=[tuple(one) for one in place.taken],
    )
    ask.rest()
