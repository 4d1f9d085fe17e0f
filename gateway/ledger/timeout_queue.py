"""Time-outs of many futures that all wait equally long: one timer for all of them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

Waiter = asyncio.Future[None]


class TimeoutQueue:
    """
    Args:
        overdue: makes the exception for a future that was not done in time.
    """

    def __init__(self, overdue: Callable[[], Exception]) -> None:
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[tuple[float, Waiter]] = deque()  # the next due first
        self._timer: asyncio.TimerHandle | None = None

    def make(self, wait_s: float) -> Waiter:
        """A future that fails after *wait_s* seconds, the same for every call."""
        waiter: Waiter = self._loop.create_future()
        self._waiters.append((time.monotonic() + wait_s, waiter))
        if self._timer is None:
            self._timer = self._loop.call_later(wait_s, self._look)
        return waiter

    def forget_done(self) -> None:
        """Let go of what does not wait any more; the eldest are done first."""
        waiters = self._waiters
        while waiters and waiters[0][1].done():
            waiters.popleft()

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        self.forget_done()
        while self._waiters and self._waiters[0][0] <= now:
            _, waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self._overdue())
        if self._waiters:
            until = self._waiters[0][0]
            self._timer = self._loop.call_later(until - now, self._look)
