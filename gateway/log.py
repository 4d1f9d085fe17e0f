"""
One JSON object a line on stdout, and nothing else anywhere.

structlog writes our events; the standard library's loggers, warnings and uncaught
exceptions are led through the same renderer, so that a line of aiohttp or a
traceback is an object too. On a terminal (``log_format = "auto"``) the same events
are rendered for people.

Never logged at any level: keys, prompts, answers. What the events and keys are is
said in ``docs/behaviour.md``.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any, TextIO

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor

from gateway.record import Record

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_TEXT = 2000  # characters of one value; a log line is no place for a body


def set_up(
    level: str = "info", log_format: str = "auto", out: TextIO | None = None
) -> None:
    """Lead everything that this process says to *out* (default: stdout)."""
    stream = out or sys.stdout
    console = is_console(log_format, stream)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if console
        else [structlog.processors.format_exc_info, _shorten, _render_json]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=out is None,  # else tests could not change it
    )
    handler = _Stdlib()
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught


def is_console(log_format: str, out: TextIO | None = None) -> bool:
    """Whether *log_format* means lines for people on *out* (default: stdout)."""
    stream = out or sys.stdout
    return log_format == "console" or (log_format == "auto" and stream.isatty())


def get() -> Any:
    """The logger; values bound for the request are added by themselves."""
    return structlog.get_logger()


def bind(request_id: str) -> None:
    """From now on every line of this task bears *request_id*."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)


def finished(record: Record) -> dict[str, Any]:
    """The canonical line's facts, in the contract's order."""
    usage = record.usage
    line: dict[str, Any] = {
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
    if record.detail:
        line["detail"] = record.detail
    if record.dropped:
        line["dropped"] = list(record.dropped)
    if record.estimated:
        line["estimated"] = True
    return line


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _render_json(logger: Any, method: str, event: EventDict) -> str:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return orjson.dumps({**head, **event}, default=repr).decode()


def _shorten(logger: Any, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _MAX_TEXT and key != "exception":
            event[key] = value[:_MAX_TEXT] + "…"
    return event


class _Stdlib(logging.Handler):
    """A library's own line as one of ours: ``library.logged``."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            # Somebody who does not speak HTTP; aiohttp has answered 400.
            reason = " ".join(error.message.split())[:200]
            get().info("connection.malformed", detail=reason)
            return
        method = "error" if record.levelno >= logging.ERROR else "warning"
        facts: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0]:
            facts["exc_info"] = record.exc_info
        getattr(get(), method)(
            "library.logged", message=record.getMessage()[:_MAX_TEXT], **facts
        )


def _uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    get().error("process.crashed", exc_info=(kind, error, trace))
