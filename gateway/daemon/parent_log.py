"""
The parent's lines of the log, without the log's libraries: it stays small.

Rule 1: they look like the workers' lines and go to the same descriptor; ``LogLock``
        keeps the lines of all these processes whole.
Rule 2: nothing foreign is written here: what a worker reports is redacted already.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from gateway.telemetry.log_writer import LogLock, LogWriter

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
SOON_S = 0.1  # that a line of this process may come before a worker's next


class ParentLog:
    """
    Args:
        lock: shared with the workers.
        lost: how many lines were lost before the code was replaced.
    """

    def __init__(self, lock: LogLock, lost: int = 0) -> None:
        stream = sys.stdout
        fd = stream.fileno() if stream is not None else None
        self._console = stream is not None and stream.isatty()
        self._level = LEVELS["info"]
        self._writer = LogWriter(fd, self._notice, lost, lock)

    def configure(self, level: str, log_format: str) -> None:
        """Obey ``server.log_level`` and ``server.log_format``."""
        self._level = LEVELS[level]
        if log_format != "auto":
            self._console = log_format == "console"

    def info(self, event: str, **facts: Any) -> None:
        """What happens every day."""
        self._put("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """What the operator may want to look at."""
        self._put("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """What the operator must look at."""
        self._put("error", event, facts)

    @property
    def lines_lost(self) -> int:
        """How many lines could not be written."""
        return self._writer.lost

    def settle(self) -> None:
        """Give the lines so far a moment to be written before another process's."""
        self._writer.settle(SOON_S)

    def close(self) -> None:
        """Write what waits; later lines are lost."""
        self._writer.close()

    def _put(self, level: str, event: str, facts: dict[str, Any]) -> None:
        if LEVELS[level] >= self._level:
            self._writer.put(self._line(level, event, facts))

    def _line(self, level: str, event: str, facts: dict[str, Any]) -> bytes:
        now = time.time_ns()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        stamp = f"{second}.{now % 10**9 // 1000:06d}Z"
        if self._console:
            words = " ".join(f"{key}={value!r}" for key, value in facts.items())
            text = f"{stamp} [{level:<9}] {event:<30} {words}"
            return text.rstrip().encode("utf-8", "backslashreplace") + b"\n"
        head = {"timestamp": stamp, "level": level, "event": event}
        text = json.dumps({**head, **facts}, separators=(",", ":"), default=repr)
        return text.encode() + b"\n"

    def _notice(self, lost: int) -> bytes:
        return self._line("warning", "log.recovered", {"lost": lost})


def made_lock() -> LogLock:
    """A lock that the workers inherit."""
    if not hasattr(os, "memfd_create"):
        return LogLock(None)
    return LogLock(os.memfd_create("gateway-log"))
