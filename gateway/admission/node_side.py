"""
This node towards the engine: what it has, what it is granted, what it may do alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from gateway.admission.governed_table import GovernedTable
from gateway.admission.lease_book import LeaseBook
from gateway.admission.limiter import Limiter
from gateway.admission.slot import SlotWaiter
from gateway.admission.spare_slots import SpareSlots
from gateway.shared import steps
from gateway.shared.answers import GateCount, LeaseNews, PlacesAnswer, Push
from gateway.shared.membership import Membership
from gateway.shared.node_book import GateQuestion, NodeBook
from gateway.shared.shares import equal_part, share_of
from gateway.shared.steps import LeaseReport
from gateway.telemetry.engine_metrics import SlotsOver

SHRINK_AFTER_S = 15.0  # an outage that is longer than a fail-over
EQUAL_AFTER_S = 20.0  # by then every node has shrunk
REFUSE_AFTER_S = 2.5  # a second before the others have this node's slots
PLACES_EVERY_S = 2.0
PLACES_AT_ONCE = 100  # waiters
GATES_AT_ONCE = 500  # whose loads a beat asks for


class LastBeat(NamedTuple):
    """*used*: slots of a gate in use by all nodes; *held*: those of this node."""

    used: int
    held: int


class NodeSide(NodeBook):
    """
    Its methods are the ``NodeBook``, and what the registry asks about the engine.

    Args:
        take_account: takes an account's slot for a waiter, or gives it back.
        alone_room: refuses those beyond what may wait, once this node decides.
        refuse: whether a node that has lost the engine refuses new requests.

    Attributes:
        refusing: whether it does now.
        spares: what it may use besides what it has, once the engine is lost.
    """

    engine: Membership
    book: LeaseBook

    def __init__(
        self,
        users: GovernedTable,
        accounts: GovernedTable,
        clock: Callable[[], float],
        take_account: Callable[[SlotWaiter, str], None],
        alone_room: Callable[[], object],
        refuse: Callable[[], bool],
    ) -> None:
        self._users, self._accounts = users, accounts
        self._clock = clock
        self._take_account = take_account
        self._alone_room = alone_room
        self._refuse = refuse
        self.refusing = False
        self._timers: list[asyncio.TimerHandle] = []
        self._last: dict[str, LastBeat] = {}
        self.spares = SpareSlots()
        self._shares: dict[str, int] = {}  # while alone
        self._shared_limits: dict[str, int] = {}  # that they are parts of
        self._equal = False  # all nodes use equal parts now
        self._places_at = 0.0
        self._place_turn = 0

    # --- what it has ------------------------------------------------------------------

    def reports(self) -> Sequence[LeaseReport]:
        return self.book.reports()

    def lease_count(self) -> int:
        self.book.flush()
        return len(self.book)

    def question(self) -> GateQuestion:
        limited = [gate for gate, limit in self.limits() if limit]
        self.spares.keep_only(limited)
        known = [f"a{name}" for name in self._accounts.limiters]
        known += [
            f"u{name}"
            for name, limiter in self._users.limiters.items()
            if limiter.limit and limiter.slots
        ]
        wanted = self.spares.missing(limited, GATES_AT_ONCE)
        gates = list(dict.fromkeys(known + wanted))[:GATES_AT_ONCE]
        held = {gate: self._held(gate) for gate in gates}
        return GateQuestion(gates, self.spares.question(), held)

    def limits(self) -> Sequence[tuple[str, int | None]]:
        return [
            (f"{table.scope[0]}{name}", limiter.limit)
            for table in (self._users, self._accounts)
            for name, limiter in table.limiters.items()
            if not limiter.removed
        ]

    # --- who decides ------------------------------------------------------------------

    def joined(self) -> None:
        self.refusing = False
        self._stop_timers()
        self._users.govern()
        self._accounts.govern()

    def lost(self) -> None:
        self._equal = False
        self._divide(self._no_share if self.engine.lapsed else self._first_share)
        self._alone_room()
        self._users.evict_needed()
        self._accounts.evict_needed()
        loop = asyncio.get_running_loop()
        self._stop_timers()
        self._timers = [
            loop.call_later(REFUSE_AFTER_S, self._begin_refusing),
            loop.call_later(SHRINK_AFTER_S, self._divide_later, self._lesser_share),
            loop.call_later(EQUAL_AFTER_S, self._divide_later, self._equal_share),
        ]

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def counted(self) -> None:
        # Before all nodes use equal parts, only one that began without the engine does:
        # the others have what was set aside for them.
        if self.refusing or not self._shares:
            return
        if not self.engine.generation:
            self._divide(self._first_share)
        elif self._equal:
            self._divide(self._equal_share)

    def _divide_later(self, share: Callable[[str, Limiter], int]) -> None:
        if not self.engine.up and not self.refusing:
            self._divide(share)
            self._equal = share == self._equal_share

    def _divide(self, share: Callable[[str, Limiter], int]) -> None:
        """From now on this node has *share* of each gate, by its name and limiter."""
        self._shares = {
            gate: share(gate, limiter)
            for table in (self._users, self._accounts)
            for name, limiter in table.limiters.items()
            if limiter.limit
            for gate in [f"{table.scope[0]}{name}"]
        }
        self._shared_limits = {gate: limit or 0 for gate, limit in self.limits()}
        for table in (self._users, self._accounts):
            table.decide(partial(self._share_of, table.scope[0]))

    def _share_of(self, kind: str, limiter: Limiter) -> int:
        gate, limit = f"{kind}{limiter.name}", limiter.limit
        before = self._shared_limits.get(gate, 0)
        if limit > before:  # a reload has brought more: that is divided, too
            more = equal_part(limit - before, self.engine.nodes, self.engine.rank)
            self._shares[gate] = self._shares.get(gate, 0) + more
            self._shared_limits[gate] = limit
        return min(self._shares.get(gate, 0), max(limit, len(limiter.slots)))

    def _first_share(self, gate: str, limiter: Limiter) -> int:
        engine, held = self.engine, len(limiter.slots)
        spare = self.spares.of(gate)
        return share_of(limiter.limit, held, spare, engine.nodes, engine.rank)

    def _no_share(self, gate: str, limiter: Limiter) -> int:
        """What runs runs on; its slots are others' already."""
        return 0

    def _lesser_share(self, gate: str, limiter: Limiter) -> int:
        equal = self._equal_share(gate, limiter)
        return min(self._shares.get(gate, equal), equal)

    def _equal_share(self, gate: str, limiter: Limiter) -> int:
        return equal_part(limiter.limit, self.engine.nodes, self.engine.rank)

    def _begin_refusing(self) -> None:
        if not self.engine.up and self._refuse():
            self.refusing = True
            # Nothing is granted here, and by no other.
            self._users.govern()
            self._accounts.govern()

    # --- what the engine says ---------------------------------------------------------

    def corrected(self, news: Sequence[LeaseNews]) -> None:
        for lease, state, account in news:
            if state != "D":
                self.pushed(Push(state, lease, account))

    def pushed(self, push: Push) -> None:
        lease, holder = push.lease, self.book.holder(push.lease)
        if push.drawn:
            self.spares.drawn(f"{push.kind.lower()}{push.account}")
        if holder is None:  # it is gone; what it was granted is another's
            self.engine.tell(steps.leave(lease))
        elif push.kind == "E":
            self._users.evict(holder)
            self._accounts.evict(holder)
        elif push.kind == "U":
            if holder.waiter is not None and holder.state == "queued_user":
                self._users.grant(holder.waiter, holder.user)
        elif holder.waiter is not None and holder.state == "queued_account":
            self._take_account(holder.waiter, push.account)
        elif holder.account != push.account:  # it left the line meanwhile
            self.engine.tell(steps.leave_account(lease, keep_turn=True))

    def recalled(self, gate: str, keep: int) -> None:
        self.spares.give_back(gate, keep)
        self.engine.tell(steps.give(self.engine.node, gate, keep))
        self.engine.hasten()

    def released(self, gate: str) -> None:
        """A slot of *gate* was given back: it may be set aside now."""
        if not self.spares.of(gate):
            self.engine.hasten()

    def repeated(self) -> None:
        self.spares.forget()

    def all_said(self) -> None:
        self.spares.forget()

    def beaten(self, question: GateQuestion, counts: Sequence[GateCount]) -> None:
        # The engine's number is between what was held when the beat was sent and now.
        held = question.held
        for gate, count in zip(question.gates, counts):
            self.spares.heard(question.number, gate, count.spare)
        self._last = {
            gate: LastBeat(count.used, max(self._held(gate), held[gate]))
            for gate, count in zip(question.gates, counts)
        }
        now = self._clock()
        if now - self._places_at >= PLACES_EVERY_S and self.engine.up:
            self._places_at = now
            self._ask_places()

    def _held(self, gate: str) -> int:
        table = self._users if gate[0] == "u" else self._accounts
        limiter = table.limiters.get(gate[1:])
        return len(limiter.slots) if limiter else 0

    def _ask_places(self) -> None:
        """Where the waiters stand now; of many, some at a time."""
        waiting = [
            holder
            for holder in self.book.holders()
            if holder.waiter is not None and holder.waiter.queued
        ]
        if not waiting:
            return
        begin = self._place_turn % len(waiting)
        some = (waiting[begin:] + waiting[:begin])[:PLACES_AT_ONCE]
        self._place_turn = begin + len(some)
        self.engine.ask(steps.places([one.lease for one in some]), self._placed)

    def _placed(self, answer: PlacesAnswer) -> None:
        for lease, place in answer.places.items():
            holder = self.book.holder(lease)
            if holder is None or holder.waiter is None:
                continue
            at_user = holder.state == "queued_user"
            table = self._users if at_user else self._accounts
            # A push on its way may have moved it to the other line.
            if place.loads and place.loads[0].gate[0] == table.scope[0]:
                table.placed(holder.waiter, place)

    # --- how full everything is -------------------------------------------------------

    def in_use(self, gate: str, here: int) -> int:
        """Slots in use at all nodes, by the last beat and what is held *here* now."""
        last = self._last.get(gate)
        if last is None or not self.engine.up:
            return here
        return max(here, last.used - last.held + here)

    def over(self) -> list[SlotsOver]:
        """Where more runs than the limit, or this node's share of it, says."""
        found = []
        for table in (self._users, self._accounts):
            for name, limiter in table.limiters.items():
                gate, most = f"{table.scope[0]}{name}", limiter.limit
                used = len(limiter.slots)
                if not self.engine.up:
                    most = min(most, self._shares.get(gate, most))
                elif last := self._last.get(gate):
                    # Not ``in_use``: a slot that has come here since is counted twice.
                    used = max(used, last.used)
                if limiter.limit and used > most:
                    found.append(SlotsOver(table.scope, name, used - most))
        return found


def waits(waiter: SlotWaiter) -> bool:
    """Whether *waiter* still waits."""
    return waiter.queued and not waiter.done.done()


def tiers_within(waiter: SlotWaiter) -> list[list[str]]:
    """The tiers of *waiter*, without what it may not have yet."""
    tiers = [[name for name in tier if name in waiter.fits] for tier in waiter.tiers]
    return [tier for tier in tiers if tier]
