"""
Leads to the log what is not logged by us: the lines of libraries, warnings, and
uncaught exceptions. Each becomes a line of the log; nothing goes to stderr.

Rule 1: none of it raises. An exception inside the event loop's exception handler,
        which logs, would stop the loop.
Rule 2: it is foreign text, also where Python formats it: values in it may be a
        client's, so only the beginning is kept, redacted.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
import threading
from types import TracebackType
from typing import Any

from gateway.telemetry import log

# Where a parser's message begins to quote the line that it is about.
_LINE_ITSELF = re.compile(r"[\n\r]|\bb?['\"]|['\"`]")


def take_over() -> None:
    """Log what this process would write to stderr, and flush the log at its end."""
    route_libraries()
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _thread_crashed
    atexit.register(log.flush)


def route_libraries() -> None:
    """Log what libraries log, from WARNING on."""
    logging.basicConfig(handlers=[_Route()], level=logging.WARNING, force=True)


class _Route(logging.Handler):
    """A library's own line as one of ours: ``library.logged``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:  # a message that cannot be formatted
            log.get().warning(
                "library.logged", logger=record.name, message="unreadable"
            )

    def _emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and (malformed := _malformed(error)):
            # The peer does not speak HTTP; aiohttp has answered 400.
            log.get().info("connection.malformed", detail=_parser_message(malformed))
            return
        method = "error" if record.levelno >= logging.ERROR else "warning"
        message = record.getMessage()
        facts: dict[str, Any] = {"logger": record.name}
        if record.name == "asyncio":
            # Behind the first line it shows objects and the values in them. The
            # request of its context is not the one that it is about: a connection is
            # older than the request that it serves.
            message = message.partition("\n")[0]
            facts["request_id"] = None
        if error is not None:
            facts["exc_info"] = error
        getattr(log.get(), method)(
            "library.logged", message=log.detail(message), **facts
        )


def _malformed(error: BaseException) -> str:
    """What aiohttp's parser says of what a peer has sent; "" for another error."""
    from aiohttp.http_exceptions import HttpProcessingError  # slow to load

    return error.message if isinstance(error, HttpProcessingError) else ""


def _parser_message(message: str) -> str:
    """A parser's *message* without the line that it quotes, which may hold a key."""
    return log.detail(_LINE_ITSELF.split(message, maxsplit=1)[0]).rstrip(" :")


def _uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    log.get().error("process.crashed", exc_info=error)


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else ""
    log.get().error("thread.crashed", thread=name, exc_info=args.exc_value)


def _unraisable(args: Any) -> None:
    """An exception that Python cannot raise anywhere, as in a finaliser."""
    log.get().error("exception.ignored", exc_info=args.exc_value)
