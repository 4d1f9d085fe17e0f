"""
One JSON object a line on stdout, and nothing else anywhere.

structlog writes our events; the standard library's loggers, warnings and uncaught
exceptions are led through the same renderer, so that a line of aiohttp or a
traceback is an object too. On a terminal (``log_format = "auto"``) the same events
are rendered for people.

Rule 1: a line is written at once, whole and in one piece, from whichever thread. Only
        canonical lines may wait for the end of the event loop's turn, in which often
        twenty requests end together: then they leave in one write, and in any case
        before the next other line.
Rule 2: every line of a request bears its id.
Rule 3: the canonical line, one for each request, goes round the processors; whoever
        replaces them gets it through them.

Never logged at any level: keys, prompts, answers. What the events and keys are is
said in ``docs/behaviour.md``.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, TextIO, cast

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from structlog.typing import EventDict, Processor

from gateway.record import Record

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_TEXT = 2000  # characters of one value; a log line is no place for a body


class _Short(NamedTuple):
    """The short way of the canonical line: none where nobody reads it as JSON."""

    processors: list[Processor]  # of the long way, as they are now
    add: Callable[[bytes], None]


_short: _Short | None = None
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_second = 0, ""  # of the last line: Unix seconds, and the same as text


def set_up(
    level: str = "info", log_format: str = "auto", out: TextIO | None = None
) -> None:
    """Lead everything that this process says to *out* (default: stdout)."""
    global _short
    stream = out or sys.stdout
    processors: list[Processor] = [_bear_id, structlog.processors.add_log_level, _stamp]
    factory: Callable[..., Any]
    if is_console(log_format, stream):
        processors.append(structlog.dev.ConsoleRenderer(colors=stream.isatty()))
        factory, _short = structlog.PrintLoggerFactory(stream), None
    else:
        processors += [structlog.processors.format_exc_info, _shorten, _render_json]
        lines = _Lines(_bytes_of(stream))
        factory, _short = lines.logger_for, _Short(processors, lines.add)
    if LEVELS[level] > LEVELS["info"]:
        _short = None
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
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
    """The logger; a request's id is added by itself."""
    return structlog.get_logger()


def bind(request_id: str) -> None:
    """From now on every line of this task bears *request_id*."""
    _request_id.set(request_id)


def finished(record: Record) -> None:
    """Write the canonical line."""
    facts = _facts(record)
    if _short is None or _short.processors[-1] is not _render_json:
        for own in ("timestamp", "level", "event"):
            del facts[own]
        get().info("request.finished", **facts)
        return
    line = _json(facts)
    if len(line) > _MAX_TEXT:  # else no value can be too long
        line = _json(_shorten(None, "info", facts))
    _short.add(line)


def _facts(record: Record) -> dict[str, Any]:
    """The canonical line, in the contract's order."""
    usage = record.usage
    line: dict[str, Any] = {
        "timestamp": _now(),
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
    if record.detail:
        line["detail"] = record.detail
    if record.unknown_stop:
        line["unknown_stop"] = record.unknown_stop
    if record.dropped:
        line["dropped"] = list(record.dropped)
    if record.estimated:
        line["estimated"] = True
    return line


def _rounded(value: float | None) -> float | None:
    # ``round`` takes three times as long.
    return None if value is None else int(value * 10 + 0.5) / 10


def _now() -> str:
    """This moment in UTC, as ISO 8601 with microseconds."""
    global _second
    seconds, rest_ns = divmod(time.time_ns(), 10**9)
    known, text = _second
    if seconds != known:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds, text  # in one step: other threads write lines too
    return f"{text}.{rest_ns // 1000:06d}Z"


def _bear_id(logger: Any, method: str, event: EventDict) -> EventDict:
    if request_id := _request_id.get():
        event.setdefault("request_id", request_id)
    return event


def _stamp(logger: Any, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = _now()
    return event


def _render_json(logger: Any, method: str, event: EventDict) -> bytes:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return _json({**head, **event})


def _json(line: EventDict) -> bytes:
    try:
        return orjson.dumps(line, default=repr)
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits
        return json.dumps(line, default=repr, separators=(",", ":")).encode()


def _shorten(logger: Any, method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _MAX_TEXT and key != "exception":
            event[key] = value[:_MAX_TEXT] + "…"
    return event


def _bytes_of(stream: TextIO) -> BinaryIO:
    """Where lines are written as bytes, past the encoder of *stream*."""
    buffer = getattr(stream, "buffer", None)
    if isinstance(buffer, io.BufferedIOBase):
        return cast(BinaryIO, buffer)
    if isinstance(buffer, io.RawIOBase):
        return cast(BinaryIO, _Unbuffered(buffer))
    return cast(BinaryIO, _Encoded(stream))


class _Lines:
    """The one way out for lines; a logger writes its own at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.flush = file.flush
        self._kept: deque[bytes] = deque()  # until the end of the loop's turn
        self._logger = structlog.BytesLogger(cast(BinaryIO, self))

    def logger_for(self, *names: str) -> structlog.BytesLogger:
        """What structlog writes with."""
        return self._logger

    def add(self, line: bytes) -> None:
        """Write *line* at the end of the event loop's turn; at once without a loop."""
        if not self._kept:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return self._logger.msg(line)
            loop.call_soon(self._logger.msg, b"")
        self._kept.append(line + b"\n")

    def write(self, line: bytes) -> None:
        """Called by the logger, which lets in one thread at a time: a line, or none."""
        kept = self._kept
        before = b"".join([kept.popleft() for _ in range(len(kept))])
        if line == b"\n":
            line = b""
        if before or line:
            self._file.write(before + line)


class _Unbuffered:
    """A file (python -u) that may take a part of a line only."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.flush = raw.flush

    def write(self, line: bytes) -> None:
        while line:
            taken = self._raw.write(line)
            if taken is None:
                raise BlockingIOError("stdout takes nothing at the moment")
            line = line[taken:]


class _Encoded:
    """A stream of text without a file, written to as one of bytes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.flush = stream.flush

    def write(self, line: bytes) -> None:
        self._stream.write(line.decode())


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
