"""
The log: one JSON object a line on stdout, and nothing else anywhere.

structlog makes the lines of our events; ``log_routes`` leads the lines of libraries
here. On a terminal (``log_format = "auto"``) the same events are rendered for people.

Rule 1: a line is handed to a writer (``log_writer``) and is lost, never waited for,
        where it cannot be written. Logging raises nothing.
Rule 2: every line of a request has its id.
Rule 3: foreign text is redacted (``redaction``) with every secret that the gateway
        knows.
Rule 4: the canonical line, one for each request, does not pass structlog's processors
        (docs/performance.md), unless others are configured.

structlog's configuration is the whole process's, so what belongs to it, the output and
the known secrets, is this module's.

Never logged at any level: keys, prompts, answers. ``docs/behaviour.md`` lists the
events and their keys.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TextIO

import orjson

from gateway.record import Record
from gateway.telemetry.canonical_line import canonical_line
from gateway.telemetry.log_writer import FLUSH_S, LogLock, LogWriter, TextWriter
from gateway.telemetry.redaction import Redaction
from gateway.telemetry.structlog_alone import EventDict, Processor, structlog
from gateway.telemetry.traceback_text import traceback_text

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_MAX_TEXT = 2000  # characters of one value; a log line is no place for a body
_MAX_EXCEPTION = 20_000  # characters of a traceback
# Our own values: names of the config, and ids that are redacted where they arrive.
_OWN = frozenset(
    ("account", "event", "key", "level", "logger", "request_id", "timestamp", "user")
)
_WATCHED = ("warning", "error", "critical")
_SHOWS_A_KEY = "server.greeted"  # the throwaway key, which is made to be shown


class Outlet(Protocol):
    """Where lines go."""

    lost: int

    def put(self, data: bytes) -> None: ...
    def close(self, timeout_s: float = FLUSH_S) -> None: ...


@dataclass(frozen=True, slots=True)
class _Output:
    """
    Where lines go, and how they are made.

    Attributes:
        direct: lines are JSON and the level lets "info" pass, so a canonical line needs
            no processor.
    """

    outlet: Outlet
    processors: list[Processor]
    direct: bool


_output = _Output(LogWriter(None, lambda lost: b""), [], direct=False)
_lock = LogLock(None)
_redaction = Redaction()
_watcher: Callable[[EventDict], object] | None = None
_request_id: ContextVar[str] = ContextVar("request_id", default="")


def set_up(
    level: str = "info", log_format: str = "auto", out: TextIO | None = None
) -> None:
    """Log to *out* (default: stdout), from *level* on."""
    global _output
    stream = out or sys.stdout  # None where it was closed at the start
    console = is_console(log_format, stream)
    processors: list[Processor] = [
        _add_request_id,
        structlog.processors.add_log_level,
        _add_timestamp,
        _add_traceback,
        _redact,
        _show_watcher,
    ]
    if console:
        colors = stream is not None and stream.isatty()
        processors += [structlog.dev.ConsoleRenderer(colors=colors), _encode]
    else:
        processors.append(_render_json)
    _output.outlet.close()
    outlet = _outlet_to(stream, processors, _output.outlet.lost)
    informs = LEVELS[level] <= LEVELS["info"]
    _output = _Output(outlet, processors, direct=informs and not console)
    logger = _Logger(outlet.put)
    structlog.configure(
        processors=processors,
        wrapper_class=_never_failing(LEVELS[level]),
        logger_factory=lambda *names: logger,
        cache_logger_on_first_use=out is None,  # else tests could not change it
    )


def share(lock: LogLock) -> None:
    """Take turns with other processes, from the next ``set_up`` on."""
    global _lock
    _lock = lock


def watch(watcher: Callable[[EventDict], object] | None) -> None:
    """Call *watcher* with each warning and error, too; None for no watcher."""
    global _watcher
    _watcher = watcher


def flush() -> None:
    """Write what waits, for a bounded time; later lines are lost."""
    _output.outlet.close()


def lines_lost() -> int:
    """How many lines could not be written so far."""
    return _output.outlet.lost


def say(text: str) -> None:
    """Write *text* for people, as it is; for a terminal."""
    _output.outlet.put(_encoded(text + "\n"))


def is_console(log_format: str, out: TextIO | None = None) -> bool:
    """Whether *log_format* means lines for people on *out* (default: stdout)."""
    stream = out or sys.stdout
    if log_format == "auto":
        return stream is not None and stream.isatty()
    return log_format == "console"


def get() -> Any:
    """The logger, which adds the request's id to each line."""
    return structlog.get_logger()


def bind(request_id: str) -> None:
    """From now on every line of this task has *request_id*."""
    _request_id.set(request_id)


# --- foreign text ---------------------------------------------------------------------


def keep_secret(secrets: Iterable[str]) -> None:
    """
    From now on none of *secrets* is written. Those of earlier calls stay secret:
    requests that still run may use them.
    """
    global _redaction
    fresh = frozenset(secrets)
    if not fresh <= _redaction.secrets:
        _redaction = Redaction(_redaction.secrets | fresh)


def redaction() -> Redaction:
    """What takes secrets out of foreign text, with all that are known now."""
    return _redaction


def clean_id(text: str) -> str:
    """*text*, an id or name from outside, without secrets."""
    return _redaction.clean_id(text) if text else ""


def detail(text: str, own: bytes = b"", keep: Collection[str] = ()) -> str:
    """*text*, which is foreign, as log and ledger may hold it; see ``Redaction``."""
    return _redaction.detail(text, own, keep) if text else ""


# --- the canonical line ---------------------------------------------------------------


def finished(record: Record) -> None:
    """Write the canonical line."""
    output, line = _output, canonical_line(record, _now())
    if not output.direct or output.processors[-1] is not _render_json:
        for own in ("timestamp", "level", "event"):
            del line[own]
        get().info("request.finished", **line)
        return
    data = _json(line)
    if len(data) > _MAX_TEXT:  # else no value can be too long
        data = _json({key: _shortened(value) for key, value in line.items()})
    output.outlet.put(data + b"\n")


def _now() -> str:
    """This moment in UTC, as ISO 8601 with microseconds."""
    seconds, rest_ns = divmod(time.time_ns(), 10**9)
    return f"{_second(seconds)}.{rest_ns // 1000:06d}Z"


@lru_cache(maxsize=2)
def _second(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))


# --- every other line -----------------------------------------------------------------


def _add_request_id(logger: Any, method: str, event: EventDict) -> EventDict:
    if request_id := _request_id.get():
        event.setdefault("request_id", request_id)
    if event.get("request_id", "") is None:
        del event["request_id"]
    return event


def _add_timestamp(logger: Any, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = _now()
    return event


def _add_traceback(logger: Any, method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        own = event.pop("own_words", b"")
        event["exception"] = traceback_text(error, lambda text: detail(text, own))
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


def _show_watcher(logger: Any, method: str, event: EventDict) -> EventDict:
    if _watcher is not None and event["level"] in _WATCHED:
        _watcher({key: event[key] for key in event if key != "exception"})
    return event


def _cleaned(value: Any, limit: int = 0) -> Any:
    if isinstance(value, str):
        limit = limit or _MAX_TEXT
        # The cut may fall into a secret, so more than the limit is redacted first.
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


# --- output ---------------------------------------------------------------------------


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
                _output.outlet.lost += 1

    return Safe


class _Logger:
    """What structlog writes with, at every level."""

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

    return LogWriter(fd, notice, lost, _lock)
