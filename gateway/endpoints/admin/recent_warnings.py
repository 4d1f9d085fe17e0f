"""The last warnings and errors of this process's log, while somebody asks for them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from gateway.telemetry import log

MAX_WARNINGS = 50
WANTED_S = 5.0  # after which the log is not watched any more, unless asked again

Line = Mapping[str, Any]


class RecentWarnings:
    """
    The last lines, in their order.

    Attributes:
        count: how many there were while the log was watched.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lines: deque[Line] = deque(maxlen=MAX_WARNINGS)
        self._until = 0.0
        self._watching = False

    def want(self) -> None:
        """Watch the log from now on, for a while."""
        self._until = time.monotonic() + WANTED_S
        if not self._watching:
            self._watching = True
            log.watch(self._add)
            self._look_again(WANTED_S)

    def since(self, count: int) -> list[Line]:
        """Those behind the one of that number, as far as they are kept."""
        new = min(self.count - count, len(self._lines))
        return [self._lines[index] for index in range(-new, 0)] if new > 0 else []

    def _add(self, line: Line) -> None:
        self.count += 1
        self._lines.append(line)

    def _look_again(self, after_s: float) -> None:
        asyncio.get_running_loop().call_later(after_s, self._maybe_stop)

    def _maybe_stop(self) -> None:
        left_s = self._until - time.monotonic()
        if left_s > 0:
            self._look_again(left_s)
            return
        self._watching = False
        log.watch(None)
