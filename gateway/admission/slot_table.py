"""
One table of admission: the limiters of all users, or of all accounts, and their queue.

Rule 1: nothing here waits, so nothing here can be interrupted half-way.
Rule 2: no limiter is free while a waiter that it fits is in the queue. So a request
        that finds a free limiter overtakes no other.
Rule 3: a slot that is released goes to the next waiter in the same turn of the event
        loop.
Rule 4: only so many requests of a name may have handed their slots on and not be over:
        what they still hold (an answer that its client does not read) stays bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from gateway.admission.expected_wait import ServiceTimes, expected_wait_s
from gateway.admission.limiter import Limiter
from gateway.admission.policy import FairQueue
from gateway.admission.slot import (
    Holder,
    QueuePosition,
    Slot,
    SlotWaiter,
    TakenSlots,
    Tiers,
)

MAX_TAKEN = 8  # users or accounts in the account of a wait
MAX_HOLDERS = 5  # of each
MORE_LEAVING = 8
"""How many more requests of a name than it has slots may have handed theirs on and not
be over: a quick answer may be followed by several more before its row is committed."""


class Holders:
    """
    Every holder that is inside admission.

    Attributes:
        queued: how many of each user wait.
        arriving: how many of each user are still sending their bodies.
    """

    def __init__(self) -> None:
        self.all: dict[Holder, None] = {}
        self.queued: dict[str, int] = {}
        self.arriving: Counter[str] = Counter()

    def ref(self, holder: Holder) -> None:
        """*holder* has one more slot, or waits in one more queue."""
        holder.refs += 1
        self.all[holder] = None

    def unref(self, holder: Holder) -> None:
        """*holder* has one less."""
        holder.refs -= 1
        if not holder.refs:
            del self.all[holder]

    def count_queued(self, holder: Holder, more: int) -> None:
        """Count *more* (1 or -1) waiting requests of the holder's user."""
        count = self.queued.get(holder.user, 0) + more
        if count:
            self.queued[holder.user] = count
        else:
            self.queued.pop(holder.user, None)


class SlotTable:
    """
    Its many methods are what can happen to slots, and to the queue before them.

    Args:
        scope: ``user`` or ``account``.
        clock: monotonic seconds.
    """

    def __init__(
        self, scope: str, holders: Holders, clock: Callable[[], float]
    ) -> None:
        self.scope = scope
        self.limiters: dict[str, Limiter] = {}
        self.queue: FairQueue[SlotWaiter] = FairQueue()
        self._holders = holders
        self._clock = clock
        self._limits: dict[str, int] = {}
        self._service = ServiceTimes()  # of all limiters together

    # --- the limiters ----------------------------------------------------------------

    def set(self, name: str, limit: int) -> None:
        """Make the limiter, or change its limit; new room goes to the waiters."""
        limiter = self.limiters.get(name)
        if limiter is None:
            limiter = self.limiters[name] = Limiter(name)
        limiter.removed = False
        self._resize(limiter, limit)
        self._limits[name] = limiter.limit
        self._grant_next(limiter)

    def _resize(self, limiter: Limiter, limit: int) -> None:
        limiter.resize(limit)

    def remove(self, name: str) -> list[tuple[SlotWaiter, int]]:
        """
        Take the limiter away; what runs in its slots may finish.

        Returns: the waiters that nothing fits any more, out of the queue, each with
            its user's ``last_served``.
        """
        limiter = self.limiters.get(name)
        if limiter is None:
            return []
        limiter.removed = True
        orphans = []
        for waiter in self.queue.at(name):
            if waiter.done.done():  # cancelled, but its task has not run since
                self.leave_queue(waiter)
                continue
            last_served = self.queue.remove(waiter)
            # it may have waited for its session's own alone
            waiter.fits = (waiter.fits - {name}) or self.configured(waiter.tiers)
            if not waiter.fits:
                self._left_queue(waiter)
                orphans.append((waiter, last_served))
                continue
            self.queue.add(waiter, last_served)
            if slot := self.take_free(waiter.tiers, waiter.holder, waiter.fits):
                self._grant(waiter, slot)
            else:  # what was evicted for it may have been here
                self._preempt(waiter.fits)
        self._forget(limiter)
        return orphans

    def configured(self, tiers: Tiers) -> frozenset[str]:
        """The names in *tiers* that have a limiter."""
        limiters = self.limiters
        names = [name for tier in tiers for name in tier]
        return frozenset(
            [
                name
                for name in names
                if (limiter := limiters.get(name)) and not limiter.removed
            ]
        )

    def _forget(self, limiter: Limiter) -> None:
        if not limiter.slots:
            self.limiters.pop(limiter.name, None)
            self._limits.pop(limiter.name, None)

    # --- slots -----------------------------------------------------------------------

    def take_free(
        self, tiers: Tiers, holder: Holder, fits: frozenset[str] | None = None
    ) -> Slot | None:
        """A slot of the best tier that has a free limiter, there of the emptiest."""
        for tier in tiers:
            best: Limiter | None = None
            least = (0.0, 0)
            for name in tier:
                limiter = self.limiters.get(name)
                if limiter is None or limiter.removed:
                    continue
                if fits is not None and name not in fits:
                    continue
                load = limiter.load
                if best is None or load < least:
                    best, least = limiter, load
            # Where the emptiest is not free, none is.
            if best is not None and best.free:
                return self._take(best, holder)
        return None

    def _take(self, limiter: Limiter, holder: Holder) -> Slot:
        now = self._clock()
        slot = Slot(limiter.name, self.scope, holder, now, self)
        self._occupy(limiter, slot)
        self._holders.ref(holder)
        holder.state, holder.since = "running", now
        if self.scope == "account":
            holder.account = limiter.name
        return slot

    def _occupy(self, limiter: Limiter, slot: Slot) -> None:
        limiter.take(slot)

    def release(self, slot: Slot) -> bool:
        """*slot* is given back: grant it to the next waiter; whether there is one."""
        limiter = self.limiters[slot.name]
        if not slot.evict:
            self._measure(limiter, slot)
        limiter.give(slot)
        holder = slot.holder
        if holder.account == slot.name and self.scope == "account":
            holder.account = ""
        self._holders.unref(holder)
        if limiter.removed:
            self._forget(limiter)
        granted = bool(self.queue or limiter.draining) and self._grant_next(limiter)
        if slot.evict:  # a waiter that it was evicted for may still wait elsewhere
            self._preempt([n for n, other in self.limiters.items() if other.draining])
        return granted

    def may_hand_on(self, slot: Slot) -> bool:
        """Whether *slot* may be released before its request is over; see rule 4."""
        limiter = self.limiters[slot.name]
        if 0 < limiter.limit <= len(limiter.leaving) - MORE_LEAVING:
            return False
        limiter.leaving.add(slot)
        return True

    def over(self, slot: Slot) -> None:
        """The request that has handed *slot* on is over."""
        if limiter := self.limiters.get(slot.name):
            limiter.leaving.discard(slot)

    def drain(self, slot: Slot) -> None:
        """*slot* is kept only as long as no waiter needs it."""
        limiter = self.limiters[slot.name]
        self._measure(limiter, slot)
        slot.holder.enter("draining", self._clock())
        limiter.draining[slot] = None
        self._preempt((limiter.name,))

    def _measure(self, limiter: Limiter, slot: Slot) -> None:
        held_s = self._clock() - slot.since
        limiter.service.add(held_s)
        self._service.add(held_s)

    def _grant_next(self, limiter: Limiter) -> bool:
        """
        Grant what is free to the next waiters, then evict drains for the others.
        Whether one was granted.
        """
        granted = False
        while limiter.free and not limiter.removed:
            waiter = self.queue.next(limiter.name)
            if waiter is None:
                return granted
            if waiter.done.done():  # cancelled, but its task has not run since
                self.leave_queue(waiter)
                continue
            self.queue.serve(waiter, limiter.name)
            self._left_queue(waiter)
            waiter.done.set_result(self._take(limiter, waiter.holder))
            granted = True
        if limiter.draining:
            self._preempt((limiter.name,))
        return granted

    def _grant(self, waiter: SlotWaiter, slot: Slot) -> None:
        """Take *waiter* out of the queue and let it have *slot*."""
        self.leave_queue(waiter)
        waiter.done.set_result(slot)

    def _preempt(self, names: Iterable[str]) -> None:
        """Evict the oldest draining holder at *names*, if its slot is needed."""
        slots = [
            next(iter(limiter.draining))
            for name in names
            if (limiter := self.limiters.get(name))
            and limiter.draining
            and self._needed(name)
        ]
        if not slots:
            return
        oldest = min(slots, key=lambda slot: slot.holder.since)
        self.limiters[oldest.name].evict(oldest)

    def _needed(self, name: str) -> bool:
        """Whether more wait at *name* than slots are about to be free by eviction."""
        reach = self.queue.reach(name)
        evicted = sum(self.limiters[other].evicted for other in reach)
        return self.queue.waiting(reach) > evicted

    # --- the queue -------------------------------------------------------------------

    def enter_queue(self, waiter: SlotWaiter, last_served: int | None = None) -> None:
        """Add *waiter*, behind the others or with the ``last_served`` that it had."""
        holder = waiter.holder
        self.queue.add(waiter, last_served)
        waiter.queued = True
        holder.waiter = waiter
        holder.enter(f"queued_{self.scope}", self._clock())
        self._holders.ref(holder)
        self._holders.count_queued(holder, 1)

    def leave_queue(self, waiter: SlotWaiter) -> int | None:
        """Take *waiter* out; its user's ``last_served``, if it was still queued."""
        if not waiter.queued:
            return None
        last_served = self.queue.remove(waiter)
        self._left_queue(waiter)
        return last_served

    def _left_queue(self, waiter: SlotWaiter) -> None:
        waiter.queued = False
        waiter.holder.enter("running", self._clock())
        waiter.holder.waiter = None
        self._holders.count_queued(waiter.holder, -1)
        self._holders.unref(waiter.holder)

    def empty_queue(self) -> list[tuple[SlotWaiter, int]]:
        """Take all waiters out; each comes with its user's ``last_served``."""
        waiters = {one: None for name in self.limiters for one in self.queue.at(name)}
        left = [(waiter, self.leave_queue(waiter)) for waiter in waiters]
        return [
            (waiter, last_served)
            for waiter, last_served in left
            if last_served is not None and not waiter.done.done()
        ]

    def preempt_for(self, waiter: SlotWaiter) -> None:
        """Evict a drain whose slot *waiter* needs."""
        self._preempt(waiter.fits)

    def accept_any(self, waiter: SlotWaiter) -> None:
        """*waiter* waited for its session's own name long enough: any name will do."""
        if not waiter.queued or waiter.done.done():
            return
        last_served = self.queue.remove(waiter)
        waiter.fits = self.configured(waiter.tiers) | waiter.fits
        self.queue.add(waiter, last_served)
        if slot := self.take_free(waiter.tiers, waiter.holder):
            self._grant(waiter, slot)
        else:
            self._preempt(waiter.fits)

    def expected_wait_s(self, name: str) -> float:
        """Seconds that one more would wait for a slot of *name*; 0 for none known."""
        limiter = self.limiters.get(name)
        if limiter is None or limiter.free:
            return 0.0
        busy = limiter.busy(self._service, self._clock())
        return expected_wait_s(1 + self.queue.waiting((name,)), [busy])

    def position(self, waiter: SlotWaiter) -> QueuePosition:
        """The position of *waiter*, and what it waits for."""
        now = self._clock()
        limiters = [self.limiters[name] for name in waiter.fits]
        position = self.queue.position(waiter, self._limits)
        busy = [limiter.busy(self._service, now) for limiter in limiters]
        onward_s = sum(limiter.onward.mean_s for limiter in limiters)
        return QueuePosition(
            position,
            expected_wait_s(position, busy) + onward_s,
            self.scope,
            sum(len(limiter.slots) for limiter in limiters),
            sum(limiter.limit for limiter in limiters),
            self.queue.waiting(waiter.fits),
        )


def taken_slots(
    limiters: Mapping[str, Limiter], names: Iterable[str]
) -> tuple[TakenSlots, ...]:
    """Who holds the slots of *names*; bounded."""
    found = []
    for name in sorted(names)[:MAX_TAKEN]:
        users = Counter(slot.holder.user for slot in limiters[name].slots)
        holders = tuple(users.most_common(MAX_HOLDERS))
        found.append(TakenSlots(name, limiters[name].limit, holders))
    return tuple(found)
