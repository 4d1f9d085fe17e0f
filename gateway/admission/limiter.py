"""
The slots of one user or account.

An ``asyncio.Semaphore`` decides whether one is free. No task ever waits inside it: the
fair queue decides who is next, and the semaphore is acquired only while it is not
locked.
"""

from __future__ import annotations

import asyncio

from gateway.admission.expected_wait import BusySlots, ServiceTimes, mean_of
from gateway.admission.slot import Slot


class Limiter:
    """
    Args:
        name: of the user or account.

    Attributes:
        limit: 0 = none.
        slots: those taken, the oldest first.
        draining: those of them that can be evicted, the oldest first.
        leaving: those that were handed on by requests that are not over.
        evicted: how many were asked to go and have not gone yet.
        service: how long slots are held.
        onward: how long a user's requests wait for an account after this limiter.
        removed: no longer configured, kept while slots are out.
    """

    __slots__ = (
        "name",
        "limit",
        "slots",
        "draining",
        "leaving",
        "evicted",
        "service",
        "onward",
        "removed",
        "_semaphore",
        "_excess",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit = 0
        self.slots: dict[Slot, None] = {}
        self.draining: dict[Slot, None] = {}
        self.leaving: set[Slot] = set()
        self.evicted = 0
        self.service = ServiceTimes()
        self.onward = ServiceTimes()
        self.removed = False
        self._semaphore: asyncio.Semaphore | None = None  # None = no limit
        self._excess = 0  # slots beyond a lowered limit: they free nothing

    def resize(self, limit: int, share: int | None = None) -> None:
        """
        Have *limit* slots; those taken beyond it stay until they are released.

        Args:
            share: how many of them may be taken here; None = all.
        """
        self.limit = max(0, limit)
        self._excess = 0
        self._semaphore = None
        if self.limit:
            usable = self.limit if share is None else share
            self._semaphore = asyncio.Semaphore(usable)
            for _ in self.slots:
                if self._semaphore.locked():
                    self._excess += 1
                else:
                    _acquire(self._semaphore)

    @property
    def free(self) -> bool:
        """Whether a slot can be taken."""
        return self._semaphore is None or not self._semaphore.locked()

    @property
    def load(self) -> tuple[float, int]:
        """Sorts the emptiest first."""
        taken = len(self.slots)
        return (taken / self.limit if self.limit else 0.0, taken)

    @property
    def ending(self) -> int:
        """How many slots are drained, or their holders were asked to go."""
        return len(self.draining) + self.evicted

    def take(self, slot: Slot) -> None:
        """Count *slot* as taken; only while ``free``."""
        if self._semaphore is not None:
            _acquire(self._semaphore)
        self.slots[slot] = None

    def exceed(self, slot: Slot) -> None:
        """Count *slot* as taken beyond the limit."""
        self._excess += 1
        self.slots[slot] = None

    def give(self, slot: Slot) -> None:
        """Count *slot* as free again."""
        del self.slots[slot]
        if self._excess:
            self._excess -= 1
        elif self._semaphore is not None:
            self._semaphore.release()
        if slot.evict:
            if slot in self.draining:
                del self.draining[slot]
            else:
                self.evicted -= 1

    def evict(self, slot: Slot) -> None:
        """Ask the holder of *slot*, which drains, to go."""
        assert slot.evict
        del self.draining[slot]
        self.evicted += 1
        asyncio.get_running_loop().call_soon(slot.evict)

    def busy(self, fallback: ServiceTimes, now: float) -> BusySlots:
        """
        What the expected wait is computed from.

        Args:
            fallback: the measure of all limiters, for one that has none yet.
        """
        ages_s = [max(0.0, now - slot.since) for slot in self.slots if not slot.evict]
        mean_s, spread = mean_of((self.service, fallback), ages_s)
        return BusySlots(self.limit, mean_s, spread, ages_s)


def _acquire(semaphore: asyncio.Semaphore) -> None:
    """
    Acquire *semaphore* without a task: while it is not locked, its ``acquire`` returns
    at its first step.

    Raises:
        RuntimeError: it was locked.
    """
    acquiring = semaphore.acquire()
    try:
        acquiring.send(None)
    except StopIteration:
        return
    acquiring.close()
    raise RuntimeError("the semaphore was locked")
