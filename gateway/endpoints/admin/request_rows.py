"""
Requests as the admin API shows them: of a record, a holder, or a row of the ledger.

Pure: times are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from gateway.admission.interface import HolderInfo
from gateway.endpoints.admin.schema import (
    AttemptFacts,
    Phase,
    RequestDetail,
    RequestState,
    RequestSummary,
)
from gateway.ledger.statement import MAX_UNIX_S
from gateway.record import AttemptRecord, MarkTuple, Record

RECORD_FACTS = (
    *("request_id", "response_id", "user", "key", "account", "protocol", "model"),
    *("upstream_protocol", "upstream_model", "stream", "client", "session"),
    *("estimated", "cost_usd", "upstream_request_id"),
)
"""What passes as it is, from a record and from a row of the ledger."""
TOKENS = (
    *("input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
_record_facts = attrgetter(*RECORD_FACTS)
_tokens = attrgetter(*TOKENS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEDGER_FACTS = (
    *RECORD_FACTS,
    *TOKENS,
    *("started_at", "outcome", "origin", "error_code"),
    *("queue_ms", "first_event_ms", "duration_ms"),
)


class LiveFacts(NamedTuple):
    """
    What is known of a request beside its record.

    Attributes:
        state_s: seconds in its phase.
        position, wait_s: in the queue; None for none.
        bytes_per_token: of earlier answers of its model; None before the first.
        node: the process that serves it; "" where there is one.
    """

    phase: Phase
    state_s: float | None = None
    position: int | None = None
    wait_s: float | None = None
    bytes_per_token: float | None = None
    node: str = ""


ENDED = LiveFacts("ended")


def state_of(phase: Phase) -> RequestState:
    """The state that *phase* belongs to."""
    if phase == "ended":
        return "ended"
    return "running" if phase in ("running", "draining") else "waiting"


def facts_of_record(record: Record, live: LiveFacts, now: float) -> dict[str, Any]:
    """
    The fields of ``RequestFacts`` for *record*.

    Args:
        now: monotonic seconds.
    """
    usage, phase = record.usage, live.phase
    ended = phase == "ended"
    attempt = record.attempts[-1] if record.attempts else None
    return {
        **dict(zip(RECORD_FACTS, _record_facts(record))),
        **dict(zip(TOKENS, _tokens(usage))),
        "state": state_of(phase),
        "phase": phase,
        "node": live.node,
        "started_at": _moment(record.started_at),
        "age_s": None if ended else round(now - record.received, 3),
        "state_s": live.state_s,
        "position": live.position,
        "wait_s": live.wait_s,
        "received_bytes": attempt.received_bytes if attempt else None,
        "tokens_per_s": _tokens_per_s(record, live, now),
        "outcome": record.outcome if ended else "",
        "origin": record.origin if ended else "",
        "error_code": record.error_code if ended else "",
        "status": record.status or None,
        "queue_ms": _rounded(record.queue_ms),
        "first_event_ms": _rounded(record.first_event_ms),
        "duration_ms": _rounded(record.duration_ms) if ended else None,
        "dropped": list(record.dropped),
    }


def _tokens_per_s(record: Record, live: LiveFacts, now: float) -> float | None:
    first_ms, attempts = record.first_event_ms, record.attempts
    if first_ms is None or not attempts:
        return None
    if live.phase == "ended":
        if record.duration_ms is None:
            return None
        tokens: float | None = record.usage.output_tokens
        took_s = (record.duration_ms - first_ms) / 1000
    else:
        took_s = now - record.received - first_ms / 1000
        each = live.bytes_per_token
        tokens = attempts[-1].received_bytes / each if each else None
    return round(tokens / took_s, 1) if tokens and took_s > 0.05 else None


def summary_of_record(record: Record, live: LiveFacts, now: float) -> RequestSummary:
    """*record* in a list."""
    attempts = len(record.attempts)
    return RequestSummary(**facts_of_record(record, live, now), attempts=attempts)


def place_of(
    phase: Phase, account: str, position: int | None, attempts: int, has_output: bool
) -> tuple[object, ...]:
    """What is news about a request at once; its progress is not."""
    return phase, account, position, attempts, has_output


def place_of_row(row: RequestSummary) -> tuple[object, ...]:
    """The same of a row."""
    has_output = row.first_event_ms is not None
    return place_of(row.phase, row.account, row.position, row.attempts, has_output)


def place_of_record(record: Record, live: LiveFacts) -> tuple[object, ...]:
    """The same of what the row would be made of."""
    has_output, attempts = record.first_event_ms is not None, len(record.attempts)
    return place_of(live.phase, record.account, live.position, attempts, has_output)


def detail_of_record(record: Record, live: LiveFacts, now: float) -> RequestDetail:
    """*record* with its attempts and its timeline."""
    return RequestDetail(
        **facts_of_record(record, live, now),
        attempts=[_attempt_of_record(one) for one in record.attempts],
        timeline=timeline_of(record.marks),
        others=[],
    )


def summary_of_holder(holder: HolderInfo, node: str) -> RequestSummary:
    """A request of this process whose client has left, or a test of an account."""
    phase: Any = holder.state
    return RequestSummary(
        request_id=holder.request_id,
        state=state_of(phase),
        phase=phase,
        user=holder.user,
        account=holder.account,
        node=node,
        state_s=round(holder.age_s, 3),
    )


def summary_of_row(row: Mapping[str, Any]) -> RequestSummary:
    """A row of the ledger's table ``request``."""
    return RequestSummary(**_facts_of_row(row), attempts=row["attempts"])


def detail_of_row(
    row: Mapping[str, Any],
    attempts: list[dict[str, Any]],
    marks: Sequence[MarkTuple],
    others: list[str],
) -> RequestDetail:
    """The same with its attempts and its timeline."""
    facts = AttemptFacts.__slots__
    tries = [AttemptFacts(*[one[name] for name in facts]) for one in attempts]
    return RequestDetail(
        **_facts_of_row(row),
        attempts=tries,
        timeline=timeline_of(marks),
        others=others,
    )


def _facts_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: row[name] for name in LEDGER_FACTS}
    is_open = row["outcome"] == "open"
    facts["state"] = "running" if is_open else "ended"
    facts["phase"] = "running" if is_open else "ended"
    facts["outcome"] = "" if is_open else row["outcome"]
    facts["status"] = row["status"] or None
    facts["dropped"] = row["dropped"].split(",") if row["dropped"] else []
    first_ms, took_ms = row["first_event_ms"], row["duration_ms"]
    if row["output_tokens"] and first_ms is not None and took_ms is not None:
        if (took_s := (took_ms - first_ms) / 1000) > 0.05:
            facts["tokens_per_s"] = round(row["output_tokens"] / took_s, 1)
    return facts


def _attempt_of_record(attempt: AttemptRecord) -> AttemptFacts:
    ended_at = attempt.ended_at
    return AttemptFacts(
        attempt.n,
        attempt.account,
        datetime.fromtimestamp(attempt.started_at, UTC),
        None if ended_at is None else datetime.fromtimestamp(ended_at, UTC),
        attempt.status or None,
        attempt.error_code,
    )


def timeline_of(marks: Sequence[MarkTuple]) -> list[dict[str, Any]]:
    """Marks as JSON objects, in milliseconds since the request was received."""
    return [
        {"at_ms": round(at_s * 1000, 3), "event": event, **facts}
        for at_s, event, facts in marks
    ]


def _moment(unix_s: float) -> datetime:
    """*unix_s* to the same microsecond as ``statement.moment`` writes it."""
    return _EPOCH + timedelta(
        microseconds=int(max(0.0, min(unix_s, MAX_UNIX_S)) * 1e6 + 0.5)
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def is_named(wanted: str, record: Record) -> bool:
    """Whether *wanted* is an id of *record*, or its session's."""
    ids = (record.response_id, record.upstream_request_id, record.session)
    return is_id(wanted, record.request_id) or wanted in filter(None, ids)


def is_id(wanted: str, request_id: str) -> bool:
    """Whether *wanted* is that id, without dashes or as a response's, too."""
    plain = request_id.replace("-", "")
    return wanted == request_id or wanted.replace("-", "") in (plain, f"resp_{plain}")
