"""
The longest silence of an upstream, watched by one timer that is set on lazily.

A piece that arrives costs the note of its time, not a timer of its own.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

LATE_S = 0.1  # a look this late tells of a loop that stood still
GRACE_S = 0.5  # then, for what came meanwhile and lies unread in the socket


def grace_until(now: float, due: float) -> float:
    """
    When to look again if the look that was due came too late; 0 if it came in time.

    While the process stood still (a paused machine, a starved core) it was we who did
    not listen: that is no silence of the upstream.
    """
    return now + GRACE_S if now - due > LATE_S else 0.0


class Owner(Protocol):
    """Whoever waits for the upstream."""

    def is_paused(self) -> bool:
        """Whether it is we who do not listen; that is no silence."""
        ...

    def on_silence(self) -> None:
        """The silence was too long; called once."""
        ...


class IdleTimeout:
    """
    Args:
        limit_s: the longest silence; 0 = no limit, and no timer.

    Attributes:
        heard_at: when the last bytes came, by the loop's clock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        limit_s: float,
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._owner = owner
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._watching = False
        self._graced_at = -1.0  # the ``heard_at`` that had its grace
        self.heard_at = 0.0

    @property
    def limit_s(self) -> float:
        return self._limit_s

    @limit_s.setter
    def limit_s(self, seconds: float) -> None:
        self._limit_s = seconds
        if not self._watching or not seconds:
            return
        # A timer that comes too early looks, and is set on.
        due = self.heard_at + seconds
        if self._timer is None or due < self._due:
            self._set(due)

    def watch(self) -> None:
        """Begin now."""
        self._watching = True
        self.heard_at = self._loop.time()
        if self._limit_s:
            self._set(self.heard_at + self._limit_s)

    def stop(self) -> None:
        """Watch no more."""
        self._watching = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def release(self) -> None:
        """
        Let go of the owner. Else the two would hold each other, and all
        that a request has made would wait for the cycle collector.
        """
        self.stop()
        del self._owner

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)
        self._due = at

    def _look(self) -> None:
        self._timer = None
        if not self._limit_s:
            return
        now = self._loop.time()
        if self._owner.is_paused():
            self.heard_at = now
        if now < self.heard_at + self._limit_s:
            self._set(self.heard_at + self._limit_s)
        elif self._graced_at != self.heard_at and (
            again := grace_until(now, self._due)
        ):
            self._graced_at = self.heard_at
            self._set(again)
        else:
            self._owner.on_silence()
