"""
Requests whose row is to be written ahead, unless they end before.

Rule 1: what is still open after JOIN_AFTER_S joins the next write; after OPEN_WITHIN_S
        it is written by itself. So a short request is written
        once, as it ended, and a long one seldom needs a transaction of its own.
Rule 2: one timer for all of them, and none while there is nothing to write ahead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.record import Record

JOIN_AFTER_S = 0.04
OPEN_WITHIN_S = 0.06


class OpenRowBuffer:
    """
    Args:
        write: called with the records that may not wait any longer.

    Attributes:
        records: in the order of their begin, by identity, for a record has no hash:
            when it began, in monotonic seconds, and the record.
    """

    def __init__(self, write: Callable[[list[Record]], None]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self.records: dict[int, tuple[float, Record]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, record: Record, now: float) -> None:
        """*record* is being sent upstream at monotonic *now*, or once more."""
        self.records.setdefault(id(record), (now, record))
        if self._timer is None:
            self._timer = self._loop.call_later(OPEN_WITHIN_S, self._look)

    def drop(self, record: Record) -> None:
        """*record* has ended."""
        self.records.pop(id(record), None)

    def take(self, now: float, after_s: float = JOIN_AFTER_S) -> list[Record]:
        """Those that began at least *after_s* seconds ago; they are dropped here."""
        taken: list[Record] = []
        for began_at, record in self.records.values():
            if began_at + after_s > now:
                break
            taken.append(record)
        for record in taken:
            del self.records[id(record)]
        return taken

    def finish(self) -> list[Record]:
        """All that is left; the timer ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = [record for _, record in self.records.values()]
        self.records.clear()
        return left

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        if late := self.take(now, OPEN_WITHIN_S):
            self._write(late)
        for began_at, _ in self.records.values():
            # Not at the instant: a record that is due soon after can then join.
            wait_s = max(began_at + OPEN_WITHIN_S - now, JOIN_AFTER_S / 2)
            self._timer = self._loop.call_later(wait_s, self._look)
            return
