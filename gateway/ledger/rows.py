"""
A record as rows of the ledger.

Rule 1: whatever a client or an upstream wrote fits afterwards: a strange number or
        text in one request must never keep the others from being written. Words that
        are ours (a protocol, an outcome, a name of the config) fit as they are.
Rule 2: the same record gives the same keys, so writing it again is no new request.
Rule 3: a row is a tuple in the order of its table's columns; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, NamedTuple

import orjson

from gateway.ledger.statement import moment
from gateway.ledger.tables import request
from gateway.record import AttemptRecord, MarkTuple, Record, TimelineMark
from gateway.usage import MAX_TOKENS, Usage, count

Row = tuple[Any, ...]

MAX_TEXT = 512  # characters of an id, a model name, a session
MAX_MARKS = 400  # of a timeline: beyond it the middle is left out
MAX_STATUS = 2**31 - 1
OUTCOME = [c.name for c in request.columns].index("outcome")
UNRECORDED = "failed", "gateway", "ledger_unavailable"  # outcome, origin, error_code


class RequestRows(NamedTuple):
    """One request as the ledger keeps it; ``request`` and ``timeline`` begin alike."""

    request: Row
    attempts: list[Row]
    timeline: Row

    @property
    def sent(self) -> bool:
        """Whether the request was sent upstream, so it may have cost something."""
        return bool(self.attempts)

    def as_unrecorded(self) -> RequestRows:
        """The same, for a client whose answer was the ledger's own failure."""
        before, after = (
            self.request[:OUTCOME],
            self.request[OUTCOME + len(UNRECORDED) :],
        )
        return self._replace(request=(*before, *UNRECORDED, *after))


def rows_of(record: Record, is_open: bool = False, node: str = "") -> RequestRows:
    """
    *record* as rows, as it ended.

    Args:
        is_open: it is still running.
        node: the process that serves it.
    """
    texts = _all_plain(
        record.request_id,
        record.error_code,
        record.response_id,
        record.model,
        record.upstream_model,
        record.upstream_request_id,
        record.session,
    )
    request_id, started_at = texts[0], moment(record.started_at)
    ended = ("open", "", "") if is_open else (record.outcome, record.origin, texts[1])
    return RequestRows(
        _request_row(record, started_at, ended, (*texts, node)),
        [_attempt_row(request_id, started_at, attempt) for attempt in record.attempts],
        (request_id, started_at, marks_json(record.marks)),
    )


def _request_row(
    record: Record, started_at: str, ended: tuple[str, str, str], texts: Sequence[str]
) -> Row:
    request_id, _, response_id, model, upstream_model, upstream_id, session, node = (
        texts
    )
    queue_ms, first_event_ms, duration_ms, cost_usd = _finite(
        record.queue_ms, record.first_event_ms, record.duration_ms, record.cost_usd
    )
    return (
        request_id,
        started_at,
        response_id,
        record.user,
        record.key,
        record.account,
        record.protocol,
        record.upstream_protocol,
        model,
        upstream_model,
        record.stream,
        *ended,
        _status(record.status),
        len(record.attempts),
        queue_ms,
        first_event_ms,
        duration_ms,
        *_counts(record.usage),
        record.estimated,
        cost_usd,
        upstream_id,
        record.client,
        session,
        plain(",".join(record.dropped)) if record.dropped else "",
        request_id.replace("-", ""),
        node,
    )


def _attempt_row(request_id: str, started_at: str, attempt: AttemptRecord) -> Row:
    ended_at = attempt.ended_at
    return (
        request_id,
        started_at,
        attempt.n,
        attempt.account,
        moment(attempt.started_at),
        None if ended_at is None else moment(ended_at),
        _status(attempt.status),
        plain(attempt.error_code) if attempt.error_code else "",
    )


def marks_json(marks: Sequence[MarkTuple]) -> str:
    """A timeline as JSON; a very long one keeps its beginning and its end."""
    kept: Iterable[MarkTuple] = marks
    if len(marks) > MAX_MARKS:
        half = MAX_MARKS // 2
        at_s, _, _ = marks[half]
        left_out = at_s, "…", {"left_out": len(marks) - 2 * half}
        kept = [*marks[:half], left_out, *marks[-half:]]
    # To the microsecond; ``round`` takes five times as long.
    listed = [
        ((at_s * 1e6 + 0.5) // 1 / 1e6, event, facts) for at_s, event, facts in kept
    ]
    try:
        return orjson.dumps(listed, default=str).decode()
    except TypeError:  # half a surrogate pair, a number beyond 64 bits, an odd key
        return json.dumps(listed, default=str, skipkeys=True)


def read_marks(text: str) -> list[TimelineMark]:
    """The timeline that ``marks_json`` wrote."""
    return [
        TimelineMark(*listed) for listed in json.loads(text)
    ]  # takes half pairs too


def plain(text: str) -> str:
    """*text* as both databases take it: no NUL, no half characters, not endless."""
    text = text[:MAX_TEXT]
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode(errors="replace").decode()


def _all_plain(*texts: str) -> Sequence[str]:
    """Each of *texts* as ``plain`` makes it; nearly always all are so already."""
    whole = "".join(texts)
    if len(whole) <= MAX_TEXT and whole.isascii() and "\0" not in whole:
        return texts
    return [plain(text) for text in texts]


def _finite(*values: float | None) -> Sequence[float | None]:
    """*values* without those that cannot be summed; nearly always all can."""
    if isfinite(sum(filter(None, values))):
        return values
    return [value if value is None or isfinite(value) else None for value in values]


def _counts(usage: Usage) -> list[int | None]:
    """The counts of *usage* in the order of their columns, where they can be ones."""
    counts = (
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )
    return [
        (
            one
            if one is None or type(one) is int and 0 <= one <= MAX_TOKENS
            else count(one)
        )
        for one in counts
    ]


def _status(status: int) -> int:
    return status if 0 <= status <= MAX_STATUS else 0
