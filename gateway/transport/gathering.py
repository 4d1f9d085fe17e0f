"""
Gathering: at high rates the loop rests for a moment before it reads again.

A read by itself costs more than one of several: the wait, the waking, cold caches. So
network cards gather packets before they interrupt, and so does this. While many events
take the fast lane, the loop's rounds begin at most once a period; what has come
meanwhile is handled in one round.

Rule 1: a rest takes a period at most, and a period 2 ms. A round that takes longer is
        followed by no rest.
Rule 2: connections outside of the fast lane are waited for: the head and the first
        events of an answer end a rest at once.
Rule 3: below ``MIN_EVENTS_S`` there are no rests, and without a fast lane no timer.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from time import monotonic

MAX_PERIOD_S = 0.002
MIN_EVENTS_S = 4000.0
"""Above it a period of 1 ms gathers more events than the loop does by itself."""

LOOK_S = 0.05
"""How often the rate is looked at."""


class Gathering:
    """
    Attributes:
        events: that took the fast lane; counted by the lanes.
        is_active: there are rests now.
        rests: how many there were.
    """

    __slots__ = (
        "events",
        "is_active",
        "rests",
        "_loop",
        "_period_s",
        "_waited_for",
        "_timer",
        "_lanes",
        "_looked_at",
        "_rested_at",
    )

    def __init__(self) -> None:
        self.events = 0
        self.is_active = False
        self.rests = 0
        self._loop: asyncio.AbstractEventLoop
        self._period_s = 0.0
        self._lanes = 0
        self._waited_for = select.epoll()
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at = self._rested_at = 0.0

    def set_period(self, period_s: float) -> None:
        """Let rounds of the loop begin at most once in *period_s*; 0 = no rests."""
        self._period_s = period_s

    def open_lane(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        """What arrives at *descriptor* may wait; the rate is worth looking at."""
        self._lanes += 1
        self.pass_over(descriptor)
        if self._timer is None and self._period_s > 0:
            self._loop, self.events = loop, 0
            self._looked_at = loop.time()
            self._timer = loop.call_later(LOOK_S, self._look)

    def close_lane(self) -> None:
        """One lane less; the timer stops with the last."""
        self._lanes -= 1

    def wait_for(self, descriptor: int) -> None:
        """End a rest when *descriptor* can be read."""
        if descriptor >= 0:
            with suppress(OSError):  # it is there already
                self._waited_for.register(descriptor, select.EPOLLIN)

    def pass_over(self, descriptor: int) -> None:
        """Let *descriptor* wait for the end of a rest."""
        if descriptor >= 0:
            with suppress(OSError):  # it is closed, or not there
                self._waited_for.unregister(descriptor)

    def _look(self) -> None:
        now = self._loop.time()
        rate = self.events / max(now - self._looked_at, LOOK_S)
        self._looked_at, was_active = now, self.is_active
        self.is_active = self._period_s > 0 and rate >= MIN_EVENTS_S
        self._timer = None
        if self._lanes > 0 and self._period_s > 0:
            self._timer = self._loop.call_later(LOOK_S, self._look)
        self.events = 0
        if self.is_active and not was_active:
            self._loop.call_soon(self._rest)

    def _rest(self) -> None:
        """Wait for the end of the period; then the loop reads."""
        if not self.is_active:
            return
        period_s = min(self._period_s, MAX_PERIOD_S)
        left_s = self._rested_at + period_s - monotonic()
        if left_s > 0:
            self.rests += 1
            self._waited_for.poll(left_s, 1)  # in whole milliseconds, rounded up
        self._rested_at = monotonic()
        self._loop.call_soon(self._rest)
