"""
Timeouts of many futures that all wait equally long, with one timer.

A timer that comes far too late says that the process was stopped, and with it what
works for the futures. So they get a little more time then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

LATE_S = 0.5

Waiter = asyncio.Future[None]


class TimeoutQueue:
    """
    Args:
        timeout_error: makes the exception for a future that was not done in time.
        more_s: seconds until one that is due is looked at again; 0 = it fails now.
    """

    def __init__(
        self,
        timeout_error: Callable[[], Exception],
        more_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._timeout_error = timeout_error
        self._more_s = more_s
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[tuple[float, Waiter]] = deque()  # the next due first
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def future(self, wait_s: float) -> Waiter:
        """A future that fails after *wait_s* seconds, the same for every call."""
        waiter: Waiter = self._loop.create_future()
        self._waiters.append((time.monotonic() + wait_s, waiter))
        if self._timer is None:
            self._look_in(wait_s)
        return waiter

    def _look_in(self, seconds: float) -> None:
        self._timer_at = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def discard_done(self) -> None:
        """Drop the futures that are done; the oldest are done first."""
        waiters = self._waiters
        while waiters and waiters[0][1].done():
            waiters.popleft()

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        self.discard_done()
        if self._waiters and self._waiters[0][0] <= now:
            late = now - self._timer_at > LATE_S
            if more_s := LATE_S if late else self._more_s():
                self._look_in(more_s)
                return
        while self._waiters and self._waiters[0][0] <= now:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self._timeout_error())
        if self._waiters:
            self._look_in(self._waiters[0][0] - now)
