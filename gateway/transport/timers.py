"""
RequestTimers of many requests at once, of which the event loop has one.

A request has several, for seconds to minutes, and nearly all end unused. The loop's own
take half a kilobyte each and twice the time.

Rule 1: what is due is called within TICK_S, or within FAR_TICK_S where that was far
        away: a tick is kept until it is over, whether or not an owner still waits. At
        most a millisecond early, as by uvloop.
Rule 2: it is called in an empty context: a line that it logs belongs to no request.
Rule 3: an owner waits once at most; waiting again is its own to end first.
"""

from __future__ import annotations

import asyncio
import heapq
from contextvars import Context
from typing import Protocol

TICK_S = 1 / 64
FAR_S = 32.0
FAR_TICK_S = 1.0
EARLY_S = 0.001
NOT_WAITING = 0
"""In the place of the number that ``at`` returns."""


class TimerOwner(Protocol):
    """What waits; equal to itself alone."""

    def on_timer(self) -> None:
        """The time has come."""
        ...


class RequestTimers:
    """
    The timers of *loop*.

    Attributes:
        loop: the one that calls them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ticks: list[int] = []  # a heap; each has its owners
        self._owners: dict[int, dict[TimerOwner, None]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._handle_tick = 0
        self._context = Context()

    def at(self, when: float, owner: TimerOwner) -> int:
        """
        Call *owner* at the loop time *when*.

        Returns the number by which it is ended.
        """
        tick = int(when / TICK_S) + 1
        if when - self.loop.time() > FAR_S:
            tick += -tick % int(FAR_TICK_S / TICK_S)
        owners = self._owners.get(tick)
        if owners is None:
            owners = self._owners[tick] = {}
            heapq.heappush(self._ticks, tick)
            self._wait_for(tick)
        owners[owner] = None
        return tick

    def end(self, number: int, owner: TimerOwner) -> None:
        """Do not call *owner*."""
        owners = self._owners.get(number)
        if owners is not None:
            owners.pop(owner, None)

    def _wait_for(self, tick: int) -> None:
        if self._handle is not None:
            if self._handle_tick <= tick:
                return
            self._handle.cancel()
        self._handle_tick = tick
        self._handle = self.loop.call_at(
            tick * TICK_S, self._look, context=self._context
        )

    def _look(self) -> None:
        """Call what is due, and wait for the next that somebody waits for."""
        self._handle = None
        ticks, latest = self._ticks, self.loop.time() + EARLY_S
        while ticks:
            owners = self._owners[ticks[0]]
            if owners and ticks[0] * TICK_S > latest:
                break
            while owners:  # one that is called may end another
                owner = next(iter(owners))
                del owners[owner]
                self._call(owner)
            del self._owners[heapq.heappop(ticks)]
        if ticks:
            self._wait_for(ticks[0])

    def _call(self, owner: TimerOwner) -> None:
        """One that fails keeps no other from being called."""
        try:
            owner.on_timer()
        except Exception as error:
            self.loop.call_exception_handler(
                {"message": f"{owner.on_timer.__qualname__} failed", "exception": error}
            )


_latest: list[RequestTimers] = []  # one at most


def timers_of(loop: asyncio.AbstractEventLoop) -> RequestTimers:
    """The timers of *loop*; a process serves on one loop."""
    if _latest and _latest[0].loop is loop:
        return _latest[0]
    _latest[:] = [RequestTimers(loop)]
    return _latest[0]
