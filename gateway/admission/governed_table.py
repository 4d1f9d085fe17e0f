"""
A table whose slots another one grants, as long as it is there to ask.

Rule 1: while it is *governed*, nothing is granted or evicted here: the queue is the
        list of who waits on this node, in the order in which they would be served.
Rule 2: a slot that was granted elsewhere is taken even above the limit: it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.admission.expected_wait import BusySlots, expected_wait_s, mean_of
from gateway.admission.limiter import Limiter
from gateway.admission.slot import Holder, QueuePosition, Slot, SlotWaiter, Tiers
from gateway.admission.slot_table import Holders, SlotTable
from gateway.shared.answers import GateLoad, LinePlace


class GovernedTable(SlotTable):
    """
    Its many methods are those of ``SlotTable``, and what the other one decides.

    Args:
        released: called with each slot that was released, and whether it is wanted.
        drained: called with a holder that keeps its slots while no other needs them.
        widened: called with a waiter that takes any of its names from now on.
        in_use: how many slots of a gate are in use anywhere, of which so many are here.

    Attributes:
        governed: whether another one decides.
    """

    def __init__(
        self,
        scope: str,
        holders: Holders,
        clock: Callable[[], float],
        released: Callable[[Slot, bool], object],
        drained: Callable[[Holder], object],
        widened: Callable[[SlotWaiter], object],
        in_use: Callable[[str, int], int],
    ) -> None:
        super().__init__(scope, holders, clock)
        self.governed = False
        self._released = released
        self._drained = drained
        self._widened = widened
        self._in_use = in_use
        self._share_of: Callable[[Limiter], int] | None = None
        self._places: dict[SlotWaiter, tuple[LinePlace, float]] = {}

    # --- while it is governed ---------------------------------------------------------

    def grant(self, waiter: SlotWaiter, name: str) -> bool:
        """
        *waiter* has a slot of *name*; False if it cannot take it any more: it was
        cancelled or refused, or a reload has taken the name away.
        """
        limiter = self.limiters.get(name)
        if not waiter.queued or waiter.done.done():
            return False
        if limiter is None or limiter.removed:
            return False
        self.queue.serve(waiter, name)
        self._left_queue(waiter)
        waiter.done.set_result(self._take(limiter, waiter.holder))
        return True

    def hold(self, holder: Holder, name: str) -> Slot | None:
        """The slot of *name* that *holder* was granted; None if there is no such."""
        limiter = self.limiters.get(name)
        if limiter is None or limiter.removed:
            return None
        return self._take(limiter, holder)

    def placed(self, waiter: SlotWaiter, place: LinePlace) -> None:
        """Where *waiter* stands among all nodes' waiters, at this moment."""
        if waiter.queued:
            self._places[waiter] = (place, self._clock())

    def evict(self, holder: Holder) -> None:
        """End the drains of *holder*."""
        for limiter in self.limiters.values():
            for slot in [one for one in limiter.draining if one.holder is holder]:
                limiter.evict(slot)

    def evict_needed(self) -> None:
        """Once this table decides: end a drain whose slot is needed here."""
        self._preempt([n for n, one in self.limiters.items() if one.draining])

    # --- what changes who decides -----------------------------------------------------

    def govern(self) -> None:
        """Another one decides from here on, with each name's own limit."""
        self.governed, self._share_of = True, None
        for limiter in self.limiters.values():
            limiter.resize(limiter.limit)

    def decide(self, share_of: Callable[[Limiter], int]) -> None:
        """
        This table decides from here on.

        Args:
            share_of: how many slots of a limiter may be used here.
        """
        self.governed, self._share_of = False, share_of
        self._places.clear()
        limiters = list(self.limiters.values())
        for limiter in limiters:
            self._resize(limiter, limiter.limit)
        for limiter in limiters:
            self._grant_next(limiter)

    # --- SlotTable, while it is governed ----------------------------------------------

    def take_free(
        self, tiers: Tiers, holder: Holder, fits: frozenset[str] | None = None
    ) -> Slot | None:
        return None if self.governed else super().take_free(tiers, holder, fits)

    def release(self, slot: Slot) -> bool:
        wanted = self._is_wanted(slot)
        granted = super().release(slot)
        self._released(slot, wanted)
        return granted or wanted

    def _is_wanted(self, slot: Slot) -> bool:
        """
        Whether a request may wait for *slot*: where another one decides, it may where
        no other is free.
        """
        if not self.governed:
            return bool(self.queue)
        limiter = self.limiters[slot.name]
        gate, held = f"{self.scope[0]}{slot.name}", len(limiter.slots)
        return 0 < limiter.limit <= self._in_use(gate, held)

    def drain(self, slot: Slot) -> None:
        super().drain(slot)
        self._drained(slot.holder)

    def accept_any(self, waiter: SlotWaiter) -> None:
        super().accept_any(waiter)
        if self.governed and waiter.queued and not waiter.done.done():
            self._widened(waiter)

    def position(self, waiter: SlotWaiter) -> QueuePosition:
        known = self._places.get(waiter)
        if known is None:
            return super().position(waiter)
        place, at = known
        passed_s = max(0.0, self._clock() - at)
        busy = [self._busy(load, passed_s) for load in place.loads]
        limiters = [self.limiters[name] for name in waiter.fits]
        onward_s = sum(limiter.onward.mean_s for limiter in limiters)
        return QueuePosition(
            place.position,
            expected_wait_s(place.position, busy) + onward_s,
            self.scope,
            sum(load.used for load in place.loads),
            sum(load.limit for load in place.loads),
            place.waiting,
        )

    def _busy(self, load: GateLoad, passed_s: float) -> BusySlots:
        limiter = self.limiters.get(load.gate[1:])
        ages_s = [age + passed_s for age in load.ages_s]
        measured = [limiter.service] if limiter else []
        mean_s, spread = mean_of([*measured, self._service], ages_s)
        return BusySlots(load.limit, mean_s, spread, ages_s)

    def _resize(self, limiter: Limiter, limit: int) -> None:
        limiter.limit = limit
        limiter.resize(limit, self._share_of(limiter) if self._share_of else None)

    def _occupy(self, limiter: Limiter, slot: Slot) -> None:
        if limiter.free:
            limiter.take(slot)
        else:
            limiter.exceed(slot)

    def _left_queue(self, waiter: SlotWaiter) -> None:
        super()._left_queue(waiter)
        self._places.pop(waiter, None)

    def _grant_next(self, limiter: Limiter) -> bool:
        return not self.governed and super()._grant_next(limiter)

    def _preempt(self, names: Iterable[str]) -> None:
        if not self.governed:
            super()._preempt(names)
