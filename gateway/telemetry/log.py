"""
One JSON object a line on stdout, and nothing else anywhere.

structlog writes our events; what others say comes here through ``log_routes``. On a
terminal (``log_format = "auto"``) the same events are rendered for people.

Rule 1: a line is handed to a writer (``log_writer``) and is lost, never waited for,
        where it cannot be written. Logging raises nothing.
Rule 2: every line of a request bears its id.
Rule 3: what others say is redacted (``redaction``) with every secret that the gateway
        knows.
Rule 4: the canonical line, one for each request, goes round the processors; whoever
        replaces them gets it through them.

Never logged at any level: keys, prompts, answers. What the events and keys are is
said in ``docs/behaviour.md``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from gateway.record import Record
from gateway.telemetry.log_writer import FLUSH_S, LogWriter, TextWriter
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.traceback_text import traceback_text

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_TEXT = 2000  # characters of one value; a log line is no place for a body
_MAX_EXCEPTION = 20_000  # characters of a traceback
# What we say ourselves: names of the config, and ids that were looked at before.
_OWN = frozenset(
    ("account", "event", "key", "level", "logger", "request_id", "timestamp", "user")
)
_SHOWS_A_KEY = "server.greeted"  # the throwaway key, which is made to be shown


class Outlet(Protocol):
    """Where lines go."""

    lost: int

    def put(self, data: bytes) -> None: ...
    def close(self, timeout_s: float = FLUSH_S) -> None: ...


class _Short(NamedTuple):
    """The short way of the canonical line: none where nobody reads it as JSON."""

    processors: list[Processor]  # of the long way, as they are now
    put: Callable[[bytes], None]


_short: _Short | None = None
_outlet: Outlet = LogWriter(None, lambda lost: b"")
_redaction = Redaction()
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_second = 0, ""  # of the last line: Unix seconds, and the same as text


def set_up(
    level: str = "info", log_format: str = "auto", out: TextIO | None = None
) -> None:
    """Lead everything that is logged to *out* (default: stdout)."""
    global _outlet, _short
    stream = out or sys.stdout  # None where it was closed at the start
    console = is_console(log_format, stream)
    processors: list[Processor] = [
        _bear_id,
        structlog.processors.add_log_level,
        _stamp,
        _add_traceback,
        _redact,
    ]
    if console:
        colors = stream is not None and stream.isatty()
        processors += [structlog.dev.ConsoleRenderer(colors=colors), _encode]
    else:
        processors.append(_render_json)
    _outlet.close()
    _outlet = _outlet_to(stream, processors, _outlet.lost)
    informs = LEVELS[level] <= LEVELS["info"]
    _short = _Short(processors, _outlet.put) if informs and not console else None
    logger = _Logger(_outlet.put)
    structlog.configure(
        processors=processors,
        wrapper_class=_never_failing(LEVELS[level]),
        logger_factory=lambda *names: logger,
        cache_logger_on_first_use=out is None,  # else tests could not change it
    )


def flush() -> None:
    """Write what waits, for a bounded time; nothing is written behind it."""
    _outlet.close()


def lines_lost() -> int:
    """How many lines could not be written so far."""
    return _outlet.lost


def say(text: str) -> None:
    """Write *text* for people, as it is; used where lines are for them."""
    _outlet.put(_encoded(text + "\n"))


def is_console(log_format: str, out: TextIO | None = None) -> bool:
    """Whether *log_format* means lines for people on *out* (default: stdout)."""
    stream = out or sys.stdout
    if log_format == "auto":
        return stream is not None and stream.isatty()
    return log_format == "console"


def get() -> Any:
    """The logger; a request's id is added by itself."""
    return structlog.get_logger()


def bind(request_id: str) -> None:
    """From now on every line of this task bears *request_id*."""
    _request_id.set(request_id)


# --- what others say ------------------------------------------------------------------


def keep_secret(secrets: Iterable[str]) -> None:
    """
    From now on none of *secrets* is written, nor of those that were named before:
    requests that still run may be about them.
    """
    global _redaction
    fresh = frozenset(secrets)
    if not fresh <= _redaction.secrets:
        _redaction = Redaction(_redaction.secrets | fresh)


def redaction() -> Redaction:
    """What takes secrets out of foreign words, with all that are known now."""
    return _redaction


def clean_id(text: str) -> str:
    """*text*, an id or name that somebody else gave, without secrets."""
    return _redaction.clean_id(text) if text else ""


def detail(text: str, own: bytes = b"", keep: Collection[str] = ()) -> str:
    """*text*, foreign words, as log and ledger may hold it; see ``Redaction``."""
    return _redaction.detail(text, own, keep) if text else ""


# --- the canonical line ---------------------------------------------------------------


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
        line = _json({key: _shortened(value) for key, value in facts.items()})
    _short.put(line + b"\n")


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


# --- every other line -----------------------------------------------------------------


def _bear_id(logger: Any, method: str, event: EventDict) -> EventDict:
    if request_id := _request_id.get():
        event.setdefault("request_id", request_id)
    if event.get("request_id", "") is None:
        del event["request_id"]
    return event


def _stamp(logger: Any, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = _now()
    return event


def _add_traceback(logger: Any, method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        own = event.pop("own_words", b"")
        event["exception"] = traceback_text(error, lambda said: detail(said, own))
    return event


def _redact(logger: Any, method: str, event: EventDict) -> EventDict:
    if event["event"] == _SHOWS_A_KEY:
        return event
    if event["event"] == "request.finished":  # redacted where it entered the record
        return {key: _shortened(value) for key, value in event.items()}
    for key, value in event.items():
        if key == "detail" and isinstance(value, str):
            event[key] = detail(value)
        elif key == "mistakes":  # in the config: they begin with the path of a key
            event[key] = [_redaction.clean_own(one) for one in value]
        elif key not in _OWN:
            event[key] = _cleaned(value, _MAX_EXCEPTION if key == "exception" else 0)
    return event


def _cleaned(value: Any, limit: int = 0) -> Any:
    if isinstance(value, str):
        limit = limit or _MAX_TEXT
        # What is cut off may have held the rest of a secret: cut behind it.
        return _shortened(_redaction.clean(value[: limit + _MAX_TEXT]), limit)
    if isinstance(value, list | tuple):
        return [_cleaned(one) for one in value]
    return value


def _shortened(value: Any, limit: int = _MAX_TEXT) -> Any:
    if isinstance(value, str) and len(value) > limit:
        return value[:limit] + "…"
    return value


def _render_json(logger: Any, method: str, event: EventDict) -> bytes:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return _json({**head, **event})


def _json(line: EventDict) -> bytes:
    try:
        return orjson.dumps(line, default=repr)
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits
        return json.dumps(line, default=repr, separators=(",", ":")).encode()


def _encode(logger: Any, method: str, text: Any) -> bytes:
    return _encoded(text)


def _encoded(text: str) -> bytes:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace")


# --- the way out ----------------------------------------------------------------------


def _never_failing(level: int) -> type[Any]:
    """
    A logger class from *level* on whose methods raise nothing. An exception inside the
    event loop's exception handler, which logs, would stop the loop.
    """

    class Safe(structlog.make_filtering_bound_logger(level)):  # type: ignore[misc]
        def _proxy_to_logger(self, *args: Any, **facts: Any) -> Any:
            try:
                return super()._proxy_to_logger(*args, **facts)
            except Exception:
                _outlet.lost += 1

    return Safe


class _Logger:
    """What structlog writes with, whatever the level is."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put

    def msg(self, line: bytes) -> None:
        """Hand out one line."""
        self._put(line + b"\n")

    debug = info = warning = error = critical = exception = msg


def _outlet_to(stream: TextIO | None, processors: list[Processor], lost: int) -> Outlet:
    if stream is None:
        return LogWriter(None, lambda lines: b"", lost)
    try:
        fd = stream.fileno()
    except OSError:  # a text in memory
        return TextWriter(stream, lost)

    def notice(lines: int) -> bytes:
        line: Any = {"event": "log.recovered", "lost": lines}
        for processor in processors[1:]:  # it is no request's line
            line = processor(None, "warning", line)
        return bytes(line) + b"\n"

    return LogWriter(fd, notice, lost)
