"""
The slots of one user or account.

The counter is an ``asyncio.Semaphore``. Nobody ever waits inside it: it is taken only
while it is free, by whom the policy names.
"""

from __future__ import annotations

import asyncio

from gateway.admission.expected_wait import Server, Service, mean_of
from gateway.admission.slot import Slot


class Counter(asyncio.Semaphore):
    """A semaphore that can be taken without a coroutine where nobody ever waits."""

    def take(self) -> None:
        """As ``acquire``; only while it is free."""
        if self._value <= 0:
            raise RuntimeError("the semaphore was not free")
        self._value -= 1


class Limiter:
    """
    Args:
        name: of the user or account.

    Attributes:
        limit: 0 = none.
        slots: those taken, the oldest first.
        draining: those of them that can be evicted, the oldest first.
        evicted: how many were told to go and have not gone yet.
        service: how long slots are held.
        onward: how long a user's requests wait for an account after this gate.
        removed: no longer configured, kept while slots are out.
    """

    __slots__ = (
        "name",
        "limit",
        "slots",
        "draining",
        "evicted",
        "service",
        "onward",
        "removed",
        "_semaphore",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit = 0
        self.slots: dict[Slot, None] = {}
        self.draining: dict[Slot, None] = {}
        self.evicted = 0
        self.service = Service()
        self.onward = Service()
        self.removed = False
        self._semaphore = Counter(0)

    def resize(self, limit: int) -> None:
        """Have *limit* slots; those taken beyond it stay until they are released."""
        self.limit = max(0, limit)
        self._semaphore = Counter(max(0, self.limit - len(self.slots)))

    @property
    def free(self) -> bool:
        """Whether a slot can be taken."""
        # As the semaphore's ``locked``, which looks for waiters that it never has.
        return not self.limit or len(self.slots) < self.limit

    @property
    def load(self) -> tuple[float, int]:
        """Sorts the emptiest first."""
        taken = len(self.slots)
        return (taken / self.limit if self.limit else 0.0, taken)

    def take(self, slot: Slot) -> None:
        """Count *slot* as taken; only while ``free``."""
        if self.limit:
            self._semaphore.take()
        self.slots[slot] = None

    def give(self, slot: Slot) -> None:
        """Count *slot* as free again."""
        del self.slots[slot]
        if self.limit and len(self.slots) < self.limit:
            self._semaphore.release()
        if slot.evict:
            if slot in self.draining:
                del self.draining[slot]
            else:
                self.evicted -= 1

    def server(self, fallback: Service, now: float) -> Server:
        """
        What the expected wait is computed from.

        Args:
            fallback: the measure of all gates, for one that has none yet.
        """
        ages_s = [max(0.0, now - slot.since) for slot in self.slots if not slot.evict]
        mean_s, spread = mean_of((self.service, fallback), ages_s)
        return Server(self.limit, mean_s, spread, ages_s)
