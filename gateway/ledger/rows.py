"""
A record as rows of the ledger.

Rule 1: whatever a client or an upstream wrote fits afterwards: a strange number or
        text in one request must never keep the others from being written.
Rule 2: the same record gives the same keys, so writing it again is no new request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from gateway.ledger.statement import moment
from gateway.record import Attempt, Mark, Marked, Record
from gateway.usage import count

Row = dict[str, Any]

MAX_TEXT = 512  # characters of an id, a model name, a session
MAX_MARKS = 400  # of a timeline: beyond it the middle is left out
MAX_STATUS = 2**31 - 1


class Rows(NamedTuple):
    """One request as the ledger keeps it."""

    request: Row
    attempts: list[Row]
    timeline: Row

    @property
    def sent(self) -> bool:
        """Whether the request was sent upstream, so it may have cost something."""
        return bool(self.attempts)

    def as_undone(self) -> Rows:
        """The same, for a client that was told of the ledger's own failure."""
        failed = {
            "outcome": "failed",
            "origin": "gateway",
            "error_code": "ledger_unavailable",
        }
        return self._replace(request={**self.request, **failed})


def rows_of(record: Record, outcome: str = "") -> Rows:
    """*record* as rows; *outcome* "open" while the request is still running."""
    request = _request_row(record)
    if outcome:
        request.update(outcome=outcome, origin="", error_code="")
    key = request["request_id"], request["started_at"]
    return Rows(
        request,
        [_attempt_row(*key, attempt) for attempt in record.attempts],
        {
            "request_id": key[0],
            "started_at": key[1],
            "marks": marks_json(record.marks),
        },
    )


def _request_row(record: Record) -> Row:
    usage = record.usage
    request_id = plain(record.request_id)
    return {
        "request_id": request_id,
        "started_at": moment(record.started_at),
        "response_id": plain(record.response_id),
        "user": plain(record.user),
        "key": plain(record.key),
        "account": plain(record.account),
        "protocol": record.protocol,
        "upstream_protocol": record.upstream_protocol,
        "model": plain(record.model),
        "upstream_model": plain(record.upstream_model),
        "stream": record.stream,
        "outcome": record.outcome,
        "origin": record.origin,
        "error_code": plain(record.error_code),
        "status": _status(record.status),
        "attempts": len(record.attempts),
        "queue_ms": number(record.queue_ms),
        "first_event_ms": number(record.first_event_ms),
        "duration_ms": number(record.duration_ms),
        "input_tokens": count(usage.input_tokens),
        "cached_tokens": count(usage.cached_tokens),
        "cache_write_tokens": count(usage.cache_write_tokens),
        "cache_write_1h_tokens": count(usage.cache_write_1h_tokens),
        "output_tokens": count(usage.output_tokens),
        "reasoning_tokens": count(usage.reasoning_tokens),
        "estimated": record.estimated,
        "cost_usd": number(record.cost_usd),
        "upstream_request_id": plain(record.upstream_request_id),
        "client": plain(record.client),
        "session": plain(record.session),
        "dropped": plain(",".join(record.dropped)),
        "plain_id": request_id.replace("-", ""),
    }


def _attempt_row(request_id: str, started_at: str, attempt: Attempt) -> Row:
    ended_at = attempt.ended_at
    return {
        "request_id": request_id,
        "request_started_at": started_at,
        "n": attempt.n,
        "account": plain(attempt.account),
        "started_at": moment(attempt.started_at),
        "ended_at": None if ended_at is None else moment(ended_at),
        "status": _status(attempt.status),
        "error_code": plain(attempt.error_code),
    }


def marks_json(marks: Sequence[Marked]) -> str:
    """A timeline as JSON; a very long one keeps its beginning and its end."""
    kept: Iterable[Marked] = marks
    if len(marks) > MAX_MARKS:
        half = MAX_MARKS // 2
        left_out = Mark(marks[half][0], "…", {"left_out": len(marks) - 2 * half})
        kept = [*marks[:half], left_out, *marks[-half:]]
    listed = [[round(at_s, 6), event, facts] for at_s, event, facts in kept]
    try:
        text = orjson.dumps(listed, default=str, option=orjson.OPT_NON_STR_KEYS)
        return text.decode()
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits
        return json.dumps(listed, default=str, skipkeys=True)


def read_marks(text: str) -> list[Mark]:
    """The timeline that ``marks_json`` wrote."""
    return [Mark(*listed) for listed in json.loads(text)]  # takes half pairs too


def plain(text: str) -> str:
    """*text* as both databases take it: no NUL, no half characters, not endless."""
    text = text[:MAX_TEXT]
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode(errors="replace").decode()


def number(value: float | None) -> float | None:
    """*value* unless it is no number that can be summed."""
    return value if value is not None and math.isfinite(value) else None


def _status(status: int) -> int:
    return status if 0 <= status <= MAX_STATUS else 0
