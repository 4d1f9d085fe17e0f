"""The canonical log line: one for each request, its keys in the contract's order."""

from __future__ import annotations

from typing import Any

from gateway.record import Record


def canonical_line(record: Record, timestamp: str) -> dict[str, Any]:
    """Everything that the log says about *record*, which was redacted before."""
    usage = record.usage
    line: dict[str, Any] = {
        "timestamp": timestamp,
        "level": "info",
        "event": "request.finished",
        "request_id": record.request_id,
        "response_id": record.response_id,
        "user": record.user,
        "account": record.account,
        "protocol": record.protocol,
        "upstream_protocol": record.upstream_protocol,
        "model": record.model,
        "upstream_model": record.upstream_model,
        "stream": record.stream,
        "outcome": record.outcome,
        "origin": record.origin,
        "error_code": record.error_code,
        "status": record.status,
        "attempts": len(record.attempts),
        "queue_ms": _rounded(record.queue_ms),
        "first_event_ms": _rounded(record.first_event_ms),
        "duration_ms": _rounded(record.duration_ms),
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "upstream_request_id": record.upstream_request_id,
        "client": record.client,
        "session": record.session,
        "key": record.key,
    }
    _add_optional(line, record)
    return line


def _add_optional(line: dict[str, Any], record: Record) -> None:
    """The keys that most lines have not."""
    if record.connection_id:
        line["connection_id"] = record.connection_id
    if record.detail:
        line["detail"] = record.detail
    if record.unknown_stop:
        line["unknown_stop"] = record.unknown_stop
    if record.dropped:
        line["dropped"] = list(record.dropped)
    if record.estimated:
        line["estimated"] = True


def _rounded(value: float | None) -> float | None:
    # ``round`` takes three times as long.
    return None if value is None else int(value * 10 + 0.5) / 10
