"""
Whether this process has stood still, as a stopped one does, unseen by the engine.

A node that has not beaten for the time of its lease may have been declared dead; then
what it had is others'. The engine says so with its next answer. Where it is lost before
that, the node has to know it by itself.
"""

from __future__ import annotations

import time


class Standstill:
    """
    Attributes:
        seen: it has stood still, and has had no answer since.
    """

    def __init__(self) -> None:
        self._beat_at: float | None = None
        self._over_at: float | None = None

    def beat(self, longest_s: float) -> float:
        """It beats now; the time. Without a beat for *longest_s* it stood still."""
        now = time.monotonic()
        if self._beat_at is not None and now - self._beat_at >= longest_s:
            self._over_at = now
        self._beat_at = now
        return now

    def answered(self, sent_at: float) -> None:
        """The engine has answered what was sent then."""
        if self._over_at is not None and sent_at >= self._over_at:
            self._over_at = None

    @property
    def seen(self) -> bool:
        return self._over_at is not None

    def rest(self) -> None:
        """It beats no more: the engine is lost."""
        self._beat_at = None
