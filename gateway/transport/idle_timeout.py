"""
The longest silence of an upstream, watched by one timer that is moved lazily.

A piece that arrives costs one assignment (``last_received_at``), not a new timer.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.transport.timers import NOT_WAITING, timers_of

LATE_S = 0.1
"""A timer that fires this late shows that the event loop stood still."""

GRACE_S = 0.5
"""Extra time after that, to read what arrived meanwhile."""


def grace_until(now: float, due: float) -> float:
    """
    The time of another check if the timer fired too late, 0 if it was punctual.

    A process that stood still (a paused machine, a starved core) did not read: that is
    no silence of the upstream.
    """
    return now + GRACE_S if now - due > LATE_S else 0.0


class IdleTimeoutOwner(Protocol):
    """What waits for the upstream."""

    def settle(self) -> None:
        """Enter in ``last_received_at`` what has arrived unseen."""
        ...

    def is_reading_paused(self) -> bool:
        """Whether back-pressure keeps the socket unread; that is no silence."""
        ...

    def on_idle_timeout(self) -> None:
        """The limit is exceeded; called once."""
        ...


class IdleTimeout:
    """
    Args:
        limit_s: the longest silence; 0 = no limit, and no timer.

    Attributes:
        last_received_at: when the last bytes arrived, by the loop's clock.
    """

    __slots__ = (
        "_loop",
        "_limit_s",
        "_owner",
        "_timer",
        "_due",
        "_is_running",
        "_grace_given_for",
        "last_received_at",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: IdleTimeoutOwner,
        limit_s: float,
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._owner = owner
        self._timer = NOT_WAITING
        self._due = 0.0
        self._is_running = False
        self._grace_given_for = -1.0  # the ``last_received_at`` that had its grace
        self.last_received_at = 0.0

    @property
    def limit_s(self) -> float:
        return self._limit_s

    @limit_s.setter
    def limit_s(self, seconds: float) -> None:
        self._limit_s = seconds
        if not self._is_running or not seconds:
            return
        # A timer that fires too early is moved then.
        due = self.last_received_at + seconds
        if not self._timer or due < self._due:
            self._set(due)

    def start(self) -> None:
        """Start measuring now."""
        self._is_running = True
        self.last_received_at = self._loop.time()
        if self._limit_s:
            self._set(self.last_received_at + self._limit_s)

    def stop(self) -> None:
        """Stop measuring."""
        self._is_running = False
        self._end_timer()

    def release(self) -> None:
        """
        Stop, and drop the owner. The two refer to each other, and without this all
        objects of a request would wait for the cycle collector.
        """
        self.stop()
        del self._owner

    def _set(self, at: float) -> None:
        self._end_timer()
        self._timer = timers_of(self._loop).at(at, self)
        self._due = at

    def _end_timer(self) -> None:
        if self._timer:
            timers_of(self._loop).end(self._timer, self)
            self._timer = NOT_WAITING

    def on_timer(self) -> None:
        """See ``TimerOwner``: look how long the silence is."""
        self._timer = NOT_WAITING
        if not self._limit_s:
            return
        now = self._loop.time()
        self._owner.settle()
        if self._owner.is_reading_paused():
            self.last_received_at = now
        if now < self.last_received_at + self._limit_s:
            self._set(self.last_received_at + self._limit_s)
        elif self._grace_given_for != self.last_received_at and (
            again := grace_until(now, self._due)
        ):
            self._grace_given_for = self.last_received_at
            self._set(again)
        else:
            self._owner.on_idle_timeout()
