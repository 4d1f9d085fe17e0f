"""
One layer of admission: the gates of all users, or of all accounts, and their line.

Rule 1: nothing here waits, so nothing here can be interrupted half-way.
Rule 2: no gate is free while one whom it fits stands in line. So whoever finds a free
        gate overtakes nobody.
Rule 3: whoever releases a slot hands it to the next in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from gateway.admission.expected_wait import Service, expected_wait_s
from gateway.admission.limiter import Limiter
from gateway.admission.policy import FairQueue
from gateway.admission.slot import Holder, Place, Slot, Tiers, Waiting


class Holders:
    """
    Every holder that is inside admission.

    Attributes:
        queued: how many of each user wait.
        arriving: how many of each user are still sending their bodies.
    """

    def __init__(self) -> None:
        self.holders: dict[Holder, None] = {}
        self.queued: dict[str, int] = {}
        self.arriving: Counter[str] = Counter()

    def tie(self, holder: Holder) -> None:
        """*holder* has one more slot, or stands in one more line."""
        holder.ties += 1
        self.holders[holder] = None

    def untie(self, holder: Holder) -> None:
        """*holder* has one less."""
        holder.ties -= 1
        if not holder.ties:
            del self.holders[holder]

    def queue(self, holder: Holder, more: int) -> None:
        """Count *more* (1 or -1) waiting requests of the holder's user."""
        count = self.queued.get(holder.user, 0) + more
        if count:
            self.queued[holder.user] = count
        else:
            self.queued.pop(holder.user, None)


class SlotTable:
    """
    Args:
        scope: ``user`` or ``account``.
        clock: monotonic seconds.
    """

    def __init__(self, scope: str, roll: Holders, clock: Callable[[], float]) -> None:
        self.scope = scope
        self.gates: dict[str, Limiter] = {}
        self.line: FairQueue[Waiting] = FairQueue()
        self._roll = roll
        self._clock = clock
        self._limits: dict[str, int] = {}
        self._service = Service()  # of all gates together

    # --- the gates -------------------------------------------------------------------

    def set(self, name: str, limit: int) -> None:
        """Make the gate, or change its limit; new room goes to those who wait."""
        gate = self.gates.get(name)
        if gate is None:
            gate = self.gates[name] = Limiter(name)
        gate.removed = False
        gate.resize(limit)
        self._limits[name] = gate.limit
        self._hand_on(gate)

    def remove(self, name: str) -> list[tuple[Waiting, int]]:
        """
        Take the gate away; what runs behind it may finish.

        Returns: those who wait for nothing any more, out of the line, and the turns
            that they had.
        """
        gate = self.gates.get(name)
        if gate is None:
            return []
        gate.removed = True
        orphans = []
        for waiting in self.line.at(name):
            if waiting.done.done():  # cancelled, but its task has not run since
                self.part(waiting)
                continue
            turn = self.line.remove(waiting)
            # it may have waited for its session's own alone
            waiting.fits = (waiting.fits - {name}) or self.known(waiting.tiers)
            if not waiting.fits:
                self._left_line(waiting)
                orphans.append((waiting, turn))
                continue
            self.line.add(waiting, turn)
            if slot := self.enter(waiting.tiers, waiting.holder, waiting.fits):
                self._grant(waiting, slot)
        self._forget(gate)
        return orphans

    def dissolve(self) -> list[tuple[Waiting, int]]:
        """Take everybody out of the line; each comes with the turn that it had."""
        waiters = {one: None for name in self.gates for one in self.line.at(name)}
        turns = [(waiting, self.part(waiting)) for waiting in waiters]
        return [
            (waiting, turn)
            for waiting, turn in turns
            if turn is not None and not waiting.done.done()
        ]

    def known(self, tiers: Tiers) -> frozenset[str]:
        """The names in *tiers* that have a gate."""
        gates = self.gates
        names = [name for tier in tiers for name in tier]
        return frozenset(
            [name for name in names if (gate := gates.get(name)) and not gate.removed]
        )

    def _forget(self, gate: Limiter) -> None:
        if not gate.slots:
            self.gates.pop(gate.name, None)
            self._limits.pop(gate.name, None)

    # --- slots -----------------------------------------------------------------------

    def enter(
        self, tiers: Tiers, holder: Holder, fits: frozenset[str] | None = None
    ) -> Slot | None:
        """A slot of the best tier that has a free gate, there of the emptiest one."""
        for tier in tiers:
            best: Limiter | None = None
            for name in tier:
                gate = self.gates.get(name)
                if gate is None or gate.removed or not gate.free:
                    continue
                if fits is not None and name not in fits:
                    continue
                if best is None or gate.load < best.load:
                    best = gate
            if best is not None:
                return self._take(best, holder)
        return None

    def _take(self, gate: Limiter, holder: Holder) -> Slot:
        now = self._clock()
        slot = Slot(gate.name, self.scope, holder, now, self)
        gate.take(slot)
        self._roll.tie(holder)
        holder.state, holder.since = "running", now
        if self.scope == "account":
            holder.account = gate.name
        return slot

    def leave(self, slot: Slot) -> None:
        """*slot* is given back: hand it to whose turn it is."""
        gate = self.gates[slot.name]
        if not slot.evict:
            self._measure(gate, slot)
        gate.give(slot)
        holder = slot.holder
        if holder.account == slot.name and self.scope == "account":
            holder.account = ""
        self._roll.untie(holder)
        if gate.removed:
            self._forget(gate)
        if self.line or gate.draining:
            self._hand_on(gate)
        if slot.evict:  # it may have been promised to one who still waits elsewhere
            self._preempt([n for n, other in self.gates.items() if other.draining])

    def drain(self, slot: Slot) -> None:
        """*slot* is kept only as long as nobody else needs it."""
        gate = self.gates[slot.name]
        self._measure(gate, slot)
        slot.holder.becomes("draining", self._clock())
        gate.draining[slot] = None
        self._preempt((gate.name,))

    def _measure(self, gate: Limiter, slot: Slot) -> None:
        held_s = self._clock() - slot.since
        gate.service.add(held_s)
        self._service.add(held_s)

    def _hand_on(self, gate: Limiter) -> None:
        """Give what is free to whose turn it is, then ask those who drain to go."""
        while gate.free and not gate.removed:
            waiting = self.line.next(gate.name)
            if waiting is None:
                return
            if waiting.done.done():  # cancelled, but its task has not run since
                self.part(waiting)
                continue
            self.line.serve(waiting, gate.name)
            self._left_line(waiting)
            waiting.done.set_result(self._take(gate, waiting.holder))
        if gate.draining:
            self._preempt((gate.name,))

    def _grant(self, waiting: Waiting, slot: Slot) -> None:
        """Take *waiting* out of the line and let it have *slot*."""
        self.part(waiting)
        waiting.done.set_result(slot)

    def _preempt(self, names: Iterable[str]) -> None:
        """Tell the oldest draining holder at *names* to go, if its slot is needed."""
        slots = [
            next(iter(gate.draining))
            for name in names
            if (gate := self.gates.get(name)) and gate.draining and self._needed(name)
        ]
        if not slots:
            return
        oldest = min(slots, key=lambda slot: slot.holder.since)
        gate = self.gates[oldest.name]
        del gate.draining[oldest]
        gate.evicted += 1
        assert oldest.evict
        asyncio.get_running_loop().call_soon(oldest.evict)

    def _needed(self, name: str) -> bool:
        """Whether more wait at *name* than were promised an evicted slot."""
        reach = self.line.reach(name)
        promised = sum(self.gates[other].evicted for other in reach)
        return self.line.waiting(reach) > promised

    # --- the line --------------------------------------------------------------------

    def join(self, waiting: Waiting, turn: int | None = None) -> None:
        """Let *waiting* stand in line, at the place of *turn* if it had one."""
        holder = waiting.holder
        self.line.add(waiting, turn)
        waiting.in_line = True
        holder.waiting = waiting
        holder.becomes(f"queued_{self.scope}", self._clock())
        self._roll.tie(holder)
        self._roll.queue(holder, 1)

    def part(self, waiting: Waiting) -> int | None:
        """Take *waiting* out of the line; its turn, if it still stood there."""
        if not waiting.in_line:
            return None
        turn = self.line.remove(waiting)
        self._left_line(waiting)
        return turn

    def _left_line(self, waiting: Waiting) -> None:
        waiting.in_line = False
        waiting.holder.becomes("running", self._clock())
        waiting.holder.waiting = None
        self._roll.queue(waiting.holder, -1)
        self._roll.untie(waiting.holder)

    def press(self, waiting: Waiting) -> None:
        """*waiting* needs a slot that somebody may be draining."""
        self._preempt(waiting.fits)

    def leaving(self, waiting: Waiting) -> int:
        """How many slots that fit *waiting* are drained, or told to go."""
        gates = [self.gates[name] for name in waiting.fits]
        return sum(len(gate.draining) + gate.evicted for gate in gates)

    def widen(self, waiting: Waiting) -> None:
        """It waited for its session's own name long enough: now any name will do."""
        if not waiting.in_line or waiting.done.done():
            return
        turn = self.line.remove(waiting)
        waiting.fits = self.known(waiting.tiers) | waiting.fits
        self.line.add(waiting, turn)
        if slot := self.enter(waiting.tiers, waiting.holder):
            self._grant(waiting, slot)
        else:
            self._preempt(waiting.fits)

    def place(self, waiting: Waiting) -> Place:
        """Where *waiting* stands."""
        now = self._clock()
        gates = [self.gates[name] for name in waiting.fits]
        position = self.line.position(waiting, self._limits)
        servers = [gate.server(self._service, now) for gate in gates]
        onward_s = sum(gate.onward.mean_s for gate in gates)
        return Place(
            position,
            expected_wait_s(position, servers) + onward_s,
            self.scope,
            sum(len(gate.slots) for gate in gates),
            sum(gate.limit for gate in gates),
            self.line.waiting(waiting.fits),
        )
