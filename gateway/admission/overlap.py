"""
Admission of a process beside another one that leaves: the limits hold for both.

A slot of a user or account is in this process, or *elsewhere*. Where it leaves, a
process keeps what it needs for those that it has, and gives the rest away; the one
that stays gives back what the leaving one still asks for, before its own waiters.

Rule 1: what is given is first taken away here, then said; so both together never have
        more than the limit.
Rule 2: those who wait in the leaving process come before those of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from gateway.admission.limiter import Limiter
from gateway.admission.registry import Registry
from gateway.admission.slot import Slot
from gateway.admission.slot_table import SlotTable

Gate = tuple[str, str]
"""A scope (``user``, ``account``) and a name."""


class OverlapTable(SlotTable):
    """
    A table some of whose slots are elsewhere.

    Attributes:
        elsewhere: how many of each name are.
        wished: how many more of each name are to go there when they are released.
        yielded: called with the name of one that has gone.
        released: called when a slot was released.
    """

    elsewhere: dict[str, int]
    wished: Counter[str]
    yielded: Callable[[str], object] | None = None
    released: Callable[[], object] | None = None

    def set_elsewhere(self, name: str, slots: int) -> None:
        """From now on *slots* of *name* are elsewhere; what is free here is granted."""
        if self.elsewhere.get(name, 0) == slots:
            return
        self.elsewhere[name] = slots
        if limiter := self.limiters.get(name):
            self._resize(limiter, limiter.limit)
            self._grant_next(limiter)

    def room(self, name: str) -> int:
        """How many slots of *name* are neither taken here nor elsewhere."""
        limiter = self.limiters.get(name)
        if limiter is None:
            return 0
        taken = len(limiter.slots) + self.elsewhere.get(name, 0)
        return max(0, limiter.limit - taken)

    def release(self, slot: Slot) -> bool:
        if self.wished and self.wished[slot.name] > 0:
            self._yield(slot.name)
        granted = super().release(slot)
        if self.released is not None:
            self.released()
        return granted

    def _yield(self, name: str) -> None:
        """The slot of *name* that is being released goes elsewhere."""
        limiter = self.limiters[name]
        if len(limiter.slots) + self.elsewhere.get(name, 0) > limiter.limit:
            return  # beyond a lowered limit: it frees nothing
        self.wished[name] -= 1
        self.elsewhere[name] = self.elsewhere.get(name, 0) + 1
        self._resize(limiter, limiter.limit)  # it counts as one beyond the share
        if self.yielded is not None:
            self.yielded(name)

    def _resize(self, limiter: Limiter, limit: int) -> None:
        there = self.elsewhere.get(limiter.name, 0)
        limiter.resize(limit, max(0, limit - there) if there else None)


class OverlapRegistry(Registry):
    """The ``Admission`` of one process that may follow another, and be followed."""

    def _table(self, scope: str) -> SlotTable:
        table = OverlapTable(scope, self._holders, self._clock)
        table.elsewhere, table.wished = {}, Counter()
        return table

    @property
    def tables(self) -> dict[str, OverlapTable]:
        """By scope."""
        found = {}
        for table in (self._users, self._accounts):
            assert isinstance(table, OverlapTable)
            found[table.scope] = table
        return found

    def needs(self) -> dict[Gate, int]:
        """
        How many slots the requests of this process may hold at once, at most: what is
        held, and what is promised to those that wait. Names that need none are left
        out.
        """
        needs: dict[Gate, int] = {}
        in_all = 0
        for name, limiter in self._users.limiters.items():
            wanted = len(limiter.slots) + self._users.queue.waiting((name,))
            wanted += self._holders.arriving.get(name, 0)
            wanted = min(wanted, limiter.limit) if limiter.limit else wanted
            in_all += wanted
            if wanted:
                needs["user", name] = wanted
        accounts = self._accounts.limiters.values()
        without = max(0, in_all - sum(len(one.slots) for one in accounts))
        for limiter in accounts:
            wanted = len(limiter.slots) + without
            wanted = min(wanted, limiter.limit) if limiter.limit else wanted
            if wanted:
                needs["account", limiter.name] = wanted
        return needs

    def dump_positions(self) -> dict[str, Any]:
        """The positions that are reserved, and how far the numbers have come."""
        return {
            "arrivals": self._arrivals,
            "served": self._accounts.queue.served,
            "reserved": self._reserved.dump(),
        }

    def load_positions(self, known: dict[str, Any]) -> None:
        """Take over what ``dump_positions`` of another process gave."""
        self._arrivals = max(self._arrivals, known["arrivals"])
        self._accounts.queue.skip_to(known["served"])
        self._reserved.load(known["reserved"])
